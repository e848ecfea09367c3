//! The images that a Dockerfile names: `FROM`, `COPY --from` and
//! `RUN --mount=…,from=`, with its arguments filled in.
//!
//! Only for finding credentials, and whether images are the region's own. What it
//! overlooks is built without; it decides nothing about the build itself.

use std::collections::BTreeMap;

use slipway_oci::ImageReference;

/// Every image of another registry's that `dockerfile` takes something from,
/// each once, in order.
#[must_use]
pub fn images(dockerfile: &str, args: &BTreeMap<String, String>) -> Vec<ImageReference> {
    let mut found = Found { args, defaults: BTreeMap::new(), stages: vec![], images: vec![] };
    for instruction in instructions(dockerfile) {
        found.read(&instruction);
    }
    found.images
}

struct Found<'a> {
    args: &'a BTreeMap<String, String>,
    /// Arguments before the first stage: the only ones that `FROM` sees.
    defaults: BTreeMap<String, String>,
    stages: Vec<String>,
    images: Vec<ImageReference>,
}

impl Found<'_> {
    fn read(&mut self, instruction: &str) {
        let mut words = instruction.split_whitespace();
        let Some(name) = words.next() else { return };
        let words: Vec<&str> = words.collect();
        match name.to_ascii_uppercase().as_str() {
            "ARG" if self.stages.is_empty() => words.iter().for_each(|word| self.arg(word)),
            "FROM" => self.stage(&words),
            "COPY" => words
                .iter()
                .filter_map(|word| word.strip_prefix("--from="))
                .for_each(|image| self.image(image)),
            "RUN" => {
                let mounts = words.iter().filter_map(|word| word.strip_prefix("--mount="));
                let parts = mounts.flat_map(|mount| mount.split(','));
                parts.filter_map(|part| part.strip_prefix("from=")).for_each(|i| self.image(i));
            }
            _ => {}
        }
    }

    fn arg(&mut self, word: &str) {
        let (name, default) = word.split_once('=').unwrap_or((word, ""));
        let value = match self.args.get(name) {
            Some(given) => given.clone(),
            None => self.expand(unquoted(default)),
        };
        self.defaults.insert(name.to_owned(), value);
    }

    fn stage(&mut self, words: &[&str]) {
        let mut words = words.iter().filter(|word| !word.starts_with("--"));
        let Some(image) = words.next() else { return };
        self.image(image);
        let alias = words.next().filter(|word| word.eq_ignore_ascii_case("as"));
        let alias = alias.and_then(|_| words.next()).map(|alias| alias.to_ascii_lowercase());
        self.stages.push(alias.unwrap_or_default());
    }

    fn image(&mut self, text: &str) {
        let name = self.expand(unquoted(text));
        let is_stage = self.stages.contains(&name.to_ascii_lowercase())
            || name.bytes().all(|c| c.is_ascii_digit())
            || name == "scratch";
        if is_stage {
            return;
        }
        if let Ok(image) = name.parse::<ImageReference>()
            && !self.images.contains(&image)
        {
            self.images.push(image);
        }
    }

    /// `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+instead}`.
    fn expand(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some((inner, tail)) = after.strip_prefix('{').and_then(|a| a.split_once('}')) {
                out.push_str(&self.braced(inner));
                rest = tail;
            } else {
                let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
                out.push_str(self.value(&after[..end]));
                rest = &after[end..];
            }
        }
        out.push_str(rest);
        out
    }

    fn braced(&self, inner: &str) -> String {
        let (name, rest) = inner.split_once(':').unwrap_or((inner, ""));
        let value = self.value(name);
        match (rest.strip_prefix('-'), rest.strip_prefix('+')) {
            (Some(default), _) if value.is_empty() => default.to_owned(),
            (_, Some(instead)) if !value.is_empty() => instead.to_owned(),
            (_, Some(_)) => String::new(),
            _ => value.to_owned(),
        }
    }

    fn value(&self, name: &str) -> &str {
        self.defaults.get(name).map_or("", String::as_str)
    }
}

fn unquoted(text: &str) -> &str {
    let inner = |quote| text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Instructions as single lines: comments left out, continued lines joined, the
/// bodies of here-documents skipped.
fn instructions(dockerfile: &str) -> Vec<String> {
    let mut lines = dockerfile.lines();
    let escape = if has_backtick_escape(dockerfile) { '`' } else { '\\' };
    let mut all = vec![];
    let mut current = String::new();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.starts_with('#') || (line.is_empty() && !current.is_empty()) {
            continue;
        }
        if let Some(start) = line.strip_suffix(escape) {
            current.push_str(start);
            current.push(' ');
            continue;
        }
        current.push_str(line);
        let instruction = std::mem::take(&mut current);
        for end in here_documents(&instruction) {
            // `by_ref` keeps what follows the document.
            lines.by_ref().find(|line| line.trim_start_matches('\t') == end);
        }
        all.push(instruction);
    }
    all.push(current);
    all
}

/// `# escape=` with a backtick, among the directives at the top.
fn has_backtick_escape(dockerfile: &str) -> bool {
    let directives = dockerfile.lines().map_while(|line| line.trim().strip_prefix('#'));
    let mut pairs = directives.filter_map(|line| line.split_once('='));
    pairs.any(|(name, value)| name.trim().eq_ignore_ascii_case("escape") && value.trim() == "`")
}

/// The words that end the here-documents of an instruction that can have some.
fn here_documents(instruction: &str) -> Vec<String> {
    let name = instruction.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return vec![];
    }
    let starts = instruction.split_whitespace().filter_map(|word| {
        let at = word.find("<<")?;
        let word = word[at + 2..].trim_start_matches('-');
        let word = unquoted(word);
        let is_word = !word.is_empty() && word.chars().all(|c| c.is_alphanumeric() || c == '_');
        is_word.then(|| word.to_owned())
    });
    starts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dockerfile: &str, args: &[(&str, &str)]) -> Vec<String> {
        let args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        images(dockerfile, &args.collect()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_place_that_names_an_image_is_read() {
        let dockerfile = "\
            # syntax=docker/dockerfile:1\n\
            ARG REGISTRY=r.io\nARG TAG\nARG FULL=\"${REGISTRY}/x:${TAG:-1}\"\n\
            from --platform=$BUILDPLATFORM ${FULL} AS Base\n\
            ARG REGISTRY=other.io\n\
            FROM base\n\
            FROM scratch AS empty\n\
            COPY --chown=1:1 --from=tools.io/a/b:2 \\\n  # a remark\n  /x /y\n\
            COPY --from=0 /x /y\nCOPY --from=BASE /x /y\n\
            RUN --mount=type=bind,from=mounts.io/m,target=/m true\n\
            FROM $REGISTRY/y@sha256:0000000000000000000000000000000000000000000000000000000000000000\n\
            FROM debian\n";
        assert_eq!(
            names(dockerfile, &[]),
            [
                "r.io/x:1",
                "tools.io/a/b:2",
                "mounts.io/m",
                "r.io/y@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                "docker.io/library/debian",
            ]
        );
        assert_eq!(names(dockerfile, &[("REGISTRY", "given.io"), ("TAG", "7")])[0], "given.io/x:7");
    }

    #[test]
    fn text_that_only_looks_like_an_instruction_is_not_read() {
        let dockerfile = "FROM a.io/x\nRUN <<EOF\nFROM evil.io/y\nEOF\nRUN echo \\\n\
                          FROM evil.io/y\nCOPY <<-'A' <<B /x\nFROM evil.io/z\nA\nFROM evil.io/z\nB\n\
                          # FROM evil.io/y\nCOPY --from=b.io/x / /\n";
        assert_eq!(names(dockerfile, &[]), ["a.io/x", "b.io/x"]);
        let backtick = "# escape=`\nFROM `\n a.io/x\nRUN dir C:\\\nFROM b.io/x\n";
        assert_eq!(names(backtick, &[]), ["a.io/x", "b.io/x"]);
        assert_eq!(names("", &[]), Vec::<String>::new());
        assert_eq!(names("FROM\nCOPY --from=\nFROM ${X\nRUN --mount=", &[]), Vec::<String>::new());
    }
}
