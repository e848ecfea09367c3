//! The two LLB definitions that a solve hands to the frontend.
//!
//! Owns how archives become a build context and how the Dockerfile's text
//! becomes a file. An operation is addressed by the digest of its encoding, as
//! BuildKit's `solver/pb/ops.proto` has it: inputs come before their users and
//! the last entry only points at the result.

use std::collections::BTreeMap;

use bollard_buildkit_proto::pb::{
    self, Definition, FileAction, FileActionCopy, FileActionMkDir, FileActionMkFile, FileOp, Input,
    Op, OpMetadata, SourceOp, file_action::Action,
};
use prost::Message;
use slipway_oci::Digest;

use crate::request::ContextSource;

/// Name of a fetched archive inside its own source.
const ARCHIVE: &str = "context.tar";

/// A file operation's input that stands for an empty file system.
const SCRATCH: i64 = -1;

/// The build context: all archives unpacked over one another, in order.
pub(crate) fn context(sources: &[ContextSource]) -> Definition {
    let mut graph = Graph::default();
    let mut union = None;
    for (index, source) in sources.iter().enumerate() {
        let number = index + 1;
        let archive = graph.add(fetch(source), format!("[internal] load build context {number}"));
        union = Some(if source.excludes.is_empty() {
            let unpacked = unpack(&archive, union.as_ref());
            graph.add(unpacked, format!("[internal] unpack build context {number}"))
        } else {
            let whole = graph
                .add(unpack(&archive, None), format!("[internal] unpack build context {number}"));
            let filtered = filter(&whole, union.as_ref(), &source.excludes);
            graph.add(filtered, format!("[internal] filter build context {number}"))
        });
    }
    let result = union.unwrap_or_else(|| {
        let empty = file_op(vec![], vec![action(SCRATCH, None, make_dir("/", 0o755))]);
        graph.add(empty, "[internal] empty build context".to_owned())
    });
    graph.finish(&result)
}

/// A file system that holds nothing but the Dockerfile, at `name`.
pub(crate) fn dockerfile(name: &str, text: &[u8]) -> Definition {
    let mut actions = Vec::new();
    if let Some((folder, _)) = name.rsplit_once('/') {
        actions.push(action(SCRATCH, None, make_dir(&format!("/{folder}"), 0o755)));
    }
    let write = Action::Mkfile(FileActionMkFile {
        path: format!("/{name}"),
        mode: 0o644,
        data: text.to_vec(),
        owner: None,
        timestamp: 0,
    });
    // Without operation inputs, input 0 is the first action's output.
    let base = if actions.is_empty() { SCRATCH } else { 0 };
    actions.push(action(base, None, write));
    let last = actions.len() - 1;
    for (index, action) in actions.iter_mut().enumerate() {
        action.output = if index == last { 0 } else { SCRATCH };
    }
    let mut graph = Graph::default();
    let file = graph.add(file_op(vec![], actions), format!("[internal] load {name}"));
    graph.finish(&file)
}

/// Operations in the order they were added, inputs first.
#[derive(Default)]
struct Graph {
    operations: Vec<Vec<u8>>,
    metadata: BTreeMap<String, OpMetadata>,
}

/// An operation's only output, by the operation's digest.
#[derive(Clone)]
struct Output(String);

impl Output {
    fn input(&self) -> Input {
        Input { digest: self.0.clone(), index: 0 }
    }
}

impl Graph {
    fn add(&mut self, operation: Op, name: String) -> Output {
        let encoded = operation.encode_to_vec();
        let digest = digest(&encoded);
        if !self.metadata.contains_key(&digest) {
            let description = BTreeMap::from([("llb.customname".to_owned(), name)]);
            let metadata = OpMetadata { description, ..OpMetadata::default() };
            self.metadata.insert(digest.clone(), metadata);
            self.operations.push(encoded);
        }
        Output(digest)
    }

    fn finish(mut self, result: &Output) -> Definition {
        let end = Op { inputs: vec![result.input()], ..Op::default() };
        self.operations.push(end.encode_to_vec());
        Definition { def: self.operations, metadata: self.metadata, source: None }
    }
}

fn digest(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

/// Pinned by checksum: BuildKit refuses other bytes, and asks nobody once it
/// holds these.
fn fetch(source: &ContextSource) -> Op {
    let attrs = BTreeMap::from([
        ("http.checksum".to_owned(), source.digest.to_string()),
        ("http.filename".to_owned(), ARCHIVE.to_owned()),
    ]);
    let source = SourceOp { identifier: source.url.clone(), attrs };
    Op { op: Some(pb::op::Op::Source(source)), ..Op::default() }
}

/// Unpacks `archive` over `base`.
fn unpack(archive: &Output, base: Option<&Output>) -> Op {
    let copy = FileActionCopy {
        src: format!("/{ARCHIVE}"),
        dest: "/".to_owned(),
        attempt_unpack_docker_compatibility: true,
        ..plain_copy()
    };
    merge(archive, base, copy)
}

/// Copies `whole` over `base`, without what `excludes` match.
fn filter(whole: &Output, base: Option<&Output>, excludes: &[String]) -> Op {
    let copy = FileActionCopy {
        src: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        exclude_patterns: excludes.iter().map(|pattern| rooted(pattern)).collect(),
        ..plain_copy()
    };
    merge(whole, base, copy)
}

fn merge(from: &Output, base: Option<&Output>, copy: FileActionCopy) -> Op {
    let mut inputs = vec![from.input()];
    let base = base.map_or(SCRATCH, |base| {
        inputs.push(base.input());
        1
    });
    file_op(inputs, vec![action(base, Some(0), Action::Copy(copy))])
}

/// Keeps modes, owners and times as they are.
fn plain_copy() -> FileActionCopy {
    FileActionCopy { mode: -1, timestamp: -1, ..FileActionCopy::default() }
}

fn make_dir(path: &str, mode: i32) -> Action {
    let path = path.to_owned();
    Action::Mkdir(FileActionMkDir { path, mode, make_parents: true, owner: None, timestamp: 0 })
}

fn action(base: i64, secondary: Option<i64>, action: Action) -> FileAction {
    FileAction {
        input: base,
        secondary_input: secondary.unwrap_or(SCRATCH),
        output: 0,
        action: Some(action),
    }
}

fn file_op(inputs: Vec<Input>, actions: Vec<FileAction>) -> Op {
    Op { inputs, op: Some(pb::op::Op::File(FileOp { actions })), ..Op::default() }
}

/// A leading slash means nothing in `.dockerignore`, but something here.
fn rooted(pattern: &str) -> String {
    match pattern.strip_prefix('!') {
        Some(negated) => format!("!{}", negated.trim_start_matches('/')),
        None => pattern.trim_start_matches('/').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn source(url: &str, excludes: &[&str]) -> ContextSource {
        ContextSource {
            url: url.to_owned(),
            digest: Digest::sha256(url),
            excludes: excludes.iter().map(|&pattern| pattern.to_owned()).collect(),
        }
    }

    fn decoded(definition: &Definition) -> Vec<Op> {
        definition.def.iter().map(|op| Op::decode(op.as_slice()).unwrap()).collect()
    }

    /// What BuildKit checks when it loads a definition.
    fn assert_sound(definition: &Definition) {
        let mut known = Vec::new();
        for (encoded, op) in definition.def.iter().zip(decoded(definition)) {
            for input in &op.inputs {
                assert!(known.contains(&input.digest), "an input comes after its user");
            }
            known.push(digest(encoded));
        }
        let (end, rest) = known.split_last().unwrap();
        assert!(!definition.metadata.contains_key(end));
        assert_eq!(rest.len(), definition.metadata.len(), "each operation has a name, once");
        assert!(rest.iter().all(|digest| definition.metadata.contains_key(digest)));
        let last = decoded(definition).pop().unwrap();
        assert!(last.op.is_none() && last.inputs.len() == 1);
    }

    #[test]
    fn archives_are_unpacked_over_one_another_in_order() {
        let definition = context(&[source("http://h/1", &[]), source("http://h/2", &[])]);
        assert_sound(&definition);
        let ops = decoded(&definition);
        assert_eq!(ops.len(), 5);
        assert_eq!(ops[1].inputs, [Input { digest: digest(&definition.def[0]), index: 0 }]);
        let base_of_second = &ops[3].inputs[1].digest;
        assert_eq!(*base_of_second, digest(&definition.def[1]));
    }

    #[test]
    fn only_a_context_with_patterns_is_filtered() {
        let definition = context(&[source("http://h/1", &["/a", "!/a/b", "*.o"])]);
        assert_sound(&definition);
        let copies: Vec<FileActionCopy> = decoded(&definition)
            .into_iter()
            .filter_map(|op| match op.op {
                Some(pb::op::Op::File(file)) => file.actions.into_iter().next()?.action,
                _ => None,
            })
            .filter_map(|action| match action {
                Action::Copy(copy) => Some(copy),
                _ => None,
            })
            .collect();
        assert_eq!(copies.len(), 2);
        assert!(copies[0].attempt_unpack_docker_compatibility);
        assert_eq!(copies[1].exclude_patterns, ["a", "!a/b", "*.o"]);
    }

    #[test]
    fn the_same_archive_twice_is_fetched_once() {
        let definition = context(&[source("http://h/1", &[]), source("http://h/1", &[])]);
        assert_sound(&definition);
        assert_eq!(definition.def.len(), 4);
    }

    #[test]
    fn folders_of_the_dockerfile_are_made_first() {
        let definition = dockerfile("docker/prod/Dockerfile", b"FROM scratch");
        assert_sound(&definition);
        assert_sound(&dockerfile("Dockerfile", b""));
        let Some(pb::op::Op::File(file)) = &decoded(&definition)[0].op else {
            panic!("no file op")
        };
        assert_eq!(file.actions.len(), 2);
        assert_eq!((file.actions[0].output, file.actions[1].input), (SCRATCH, 0));
    }

    proptest! {
        #[test]
        fn any_list_of_contexts_is_a_sound_definition(
            contexts in prop::collection::vec(("http://h/[a-c]", prop::collection::vec("[a-b*!/]{1,3}", 0..3)), 0..6)
        ) {
            let sources: Vec<ContextSource> = contexts
                .iter()
                .map(|(url, excludes)| {
                    source(url, &excludes.iter().map(String::as_str).collect::<Vec<_>>())
                })
                .collect();
            let definition = context(&sources);
            assert_sound(&definition);
            prop_assert_eq!(definition, context(&sources), "the digests depend on the request alone");
        }
    }
}
