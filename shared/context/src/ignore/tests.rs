//! The documented meaning of ignore files, as tables and as properties.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use proptest::prelude::{Strategy, any, prop, proptest};

use super::{Error, IgnoreRules, Inherited};

fn ignored(file: &str, path: &str) -> bool {
    let rules = IgnoreRules::parse(file.as_bytes()).unwrap();
    rules.is_ignored(Path::new(path))
}

#[test]
fn one_pattern_matches_what_docker_documents() {
    for (pattern, path, expected) in [
        // Plain names are anchored at the root and cover what is below.
        ("temp", "temp", true),
        ("temp", "temp/file", true),
        ("temp", "temperature", false),
        ("temp", "sub/temp", false),
        ("/temp/", "temp/file", true),
        ("./a//b/../c", "a/c", true),
        ("..", "a", false),
        (".", "a", false),
        ("/", "a", false),
        // `*` and `?` stay inside one part of the path.
        ("*", "a/b/c", true),
        ("*/temp*", "sub/temporary.txt", true),
        ("*/temp*", "temporary.txt", false),
        ("*/temp*", "a/b/temporary.txt", false),
        ("*/*/temp*", "a/b/temporary", true),
        ("temp?", "temps", true),
        ("temp?", "temp", false),
        ("temp?", "temp/", false),
        ("a/*.txt", "a/b.txt", true),
        ("a/*.txt", "a/b/c.txt", false),
        ("?", "é", true),
        ("??", "é", false),
        // `**` crosses folders, none included.
        ("**", "a/b", true),
        ("**/*.go", "main.go", true),
        ("**/*.go", "a/b/main.go", true),
        ("**/*.go", "a/main.gone", false),
        ("**/node_modules", "node_modules/x", true),
        ("**/node_modules", "a/b/node_modules/x", true),
        ("**/node_modules", "my_node_modules", false),
        ("a/**/z", "a/z", true),
        ("a/**/z", "a/b/c/z", true),
        ("a/**/z", "a/bz", false),
        ("a/**", "a", false),
        ("a/**", "a/b/c", true),
        ("a**", "abc/d", true),
        ("a**c", "ac", true),
        ("a**c", "ab/c", true),
        ("a**c", "abc", false),
        // A leading `**` before plain text is "ends with".
        ("**.log", "a/b.log", true),
        ("**log", "catalog", true),
        ("**lo*", "catalog", false),
        ("**lo*", "cata/log", true),
        // Classes and escapes.
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aee", false),
        ("a[^b-d]e", "aee", true),
        ("a[!b]e", "a!e", true),
        (r"a[\]\-]e", "a]e", true),
        (r"a[\]\-]e", "a-e", true),
        ("[α-ω]", "λ", true),
        (r"\*", "*", true),
        (r"\*", "a", false),
        (r"a\ b", "a b", true),
        (r"\#no-comment", "#no-comment", true),
        (r"\!name", "!name", true),
        // Characters that only mean something in regular expressions.
        ("a.c", "abc", false),
        ("a.|)$(}+{b^c", "a.|)$(}+{b^c", true),
        ("x(1)+*", "x(1)+tail", true),
        ("a]", "a]", true),
    ] {
        assert_eq!(ignored(pattern, path), expected, "`{pattern}` on `{path}`");
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    for (file, path, expected) in [
        ("*.md\n!README.md", "README.md", false),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", false),
        ("!a\n*", "a", true),
        ("docs\n!docs/README.md", "docs/README.md", false),
        ("docs\n!docs/README.md", "docs/other", true),
        ("docs/\n!docs/README.md", "docs/README.md", false),
        ("**\n!src", "src/deep/file", false),
        ("**\n!src/**", "src/deep/file", false),
        ("**\n!src\nsrc/deep", "src/deep/file", true),
        ("**\n! /src/*.rs ", "src/main.rs", false),
        ("a\n!a/b\na/b/c\n!a/b/c/d", "a/b/c/d", false),
        ("a\n!a/b\na/b/c\n!a/b/c/d", "a/b/c/e", true),
        // Docker's walk does not look at `!a` while `a` is not ignored, so it
        // does not help what `a` holds.
        ("a/*\n!a", "a/b", true),
    ] {
        assert_eq!(ignored(file, path), expected, "{file:?} on `{path}`");
    }
}

#[test]
fn lines_are_read_as_docker_reads_them() {
    let file = "\u{feff}# comment\n  # pattern with a hash\n\n/a/b/\r\n  c d \t\n! /e/./f\n!  g\n";
    let rules = IgnoreRules::parse(file.as_bytes()).unwrap();
    let patterns: Vec<_> = rules.patterns().collect();
    assert_eq!(patterns, ["# pattern with a hash", "a/b", "c d", "!e/f", "!g"]);
}

#[test]
fn bad_lines_are_refused_with_their_number() {
    for pattern in
        ["[", "[a", "[^", "[]a]", "[-]", "[x-]", "[a-b-c]", "[z-a]", "a[", "\\", "[\\", "[a\\"]
    {
        let file = format!("fine\n{pattern}\n");
        match IgnoreRules::parse(file.as_bytes()) {
            Err(Error::BadPattern { line: 2, .. }) => {}
            other => panic!("`{pattern}` gave {other:?}"),
        }
    }
    for pattern in ["!", " ! ", "!/", "!/a/.."] {
        match IgnoreRules::parse(pattern.as_bytes()) {
            Err(Error::EmptyException { line: 1 }) => {}
            other => panic!("`{pattern}` gave {other:?}"),
        }
    }
}

#[test]
fn names_that_are_no_utf8_match_byte_for_byte() {
    let rules = IgnoreRules::parse(b"caf\xe9\nx*\n?\xff").unwrap();
    let judge = |path: &[u8]| rules.judge(path, &Inherited::default()).is_ignored;
    assert!(judge(b"caf\xe9"));
    assert!(!judge(b"caf\xe8"));
    assert!(judge(b"x\xfe\xff"));
    assert!(judge(b"\xfe\xff"));
    assert!(!judge(b"a\xfe"));
}

#[test]
fn folders_without_exceptions_below_need_no_visit() {
    let rules = IgnoreRules::parse(b"*\n!src/main.rs\n!doc/*\n!lib/**\n!b/*/**\n!*.md").unwrap();
    for (folder, expected) in [
        ("src", true),
        ("src/main.rs", false),
        ("src/other", false),
        ("srcs", false),
        ("doc", true),
        ("doc/a", false),
        ("lib", true),
        ("lib/a", true),
        ("b", true),
        ("b/c", true),
        ("target", false),
    ] {
        assert_eq!(rules.may_bring_back_below(folder.as_bytes()), expected, "{folder}");
    }
    let rules = IgnoreRules::parse(b"*\n!**/keep").unwrap();
    assert!(rules.may_bring_back_below(b"target"));
}

#[test]
fn a_dockerfile_brings_its_own_ignore_file() {
    let folder = tempfile::tempdir().unwrap();
    let (context, elsewhere) = (folder.path().join("context"), folder.path().join("docker"));
    std::fs::create_dir_all(&context).unwrap();
    std::fs::create_dir_all(&elsewhere).unwrap();
    let dockerfile = elsewhere.join("web.Dockerfile");
    let rules = || IgnoreRules::for_build(&context, Some(&dockerfile)).unwrap();

    assert!(rules().is_empty());
    std::fs::write(context.join(".dockerignore"), "general").unwrap();
    assert!(rules().is_ignored(Path::new("general")));
    let own = elsewhere.join("web.Dockerfile.dockerignore");
    std::fs::write(&own, "").unwrap();
    assert!(!rules().is_ignored(Path::new("general")));
    assert_eq!(rules().source(), Some(own.as_path()));
}

/// A few letters, so that paths and patterns meet often.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,2}", 1..4).prop_map(|parts| parts.join("/"))
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "ab", "*", "**", "a*", "?", "[ab]", "**b"]);
    (any::<bool>(), prop::collection::vec(part, 1..4)).prop_map(|(exception, parts)| {
        format!("{}{}", if exception { "!" } else { "" }, parts.join("/"))
    })
}

proptest! {
    #[test]
    fn a_folder_that_is_not_visited_holds_nothing_that_is_kept(
        patterns in prop::collection::vec(pattern(), 1..6),
        folder in path(),
        below in path(),
    ) {
        let rules = IgnoreRules::parse(patterns.join("\n").as_bytes()).unwrap();
        let visited = !rules.is_ignored(Path::new(&folder))
            || rules.may_bring_back_below(folder.as_bytes());
        let entry = format!("{folder}/{below}");
        if !visited {
            assert!(rules.is_ignored(Path::new(&entry)), "{patterns:?}: {entry}");
        }
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(content: Vec<u8>, path: Vec<u8>) {
        if let Ok(rules) = IgnoreRules::parse(&content) {
            let _ = rules.judge(&path, &Inherited::default());
        }
    }

    #[test]
    fn an_escaped_name_matches_exactly_itself(
        name in "[ -.0-~]{0,7}[!-.0-~]",
        other in "[ -.0-~]{0,7}[!-.0-~]",
    ) {
        let escaped: String = name.chars().flat_map(|c| ['\\', c]).collect();
        let rules = IgnoreRules::parse(escaped.as_bytes()).unwrap();
        assert!(rules.is_ignored(Path::new(&name)));
        assert_eq!(rules.is_ignored(Path::new(&other)), other == name);
    }
}
