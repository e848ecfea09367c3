//! `.dockerignore`: reading it, and deciding what it leaves out.
//!
//! Owns: the meaning of an ignore file as Docker's `patternmatcher` gives it,
//! which differs from gitignore's: patterns are anchored at the context root,
//! `*` stops at `/`, and a folder that is ignored may still have entries below
//! it that a later `!` pattern brings back.
//! Refuses: walking the file system; that is the packer's part.
//!
//! Two deliberate differences. Docker translates a pattern into a regular
//! expression without escaping everything, so that `\d` means "a digit" there
//! and `[*]` never matches a star. Here an escaped character and a character in
//! a class always mean themselves, as Docker's documentation says. And Docker
//! guesses from the beginning of a `!` pattern which ignored folders to open:
//! what `!b/*/**` brings back in `b/c` it never finds. Here it is found.

use std::borrow::Cow;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::glob::Glob;

mod clean;
mod glob;
#[cfg(test)]
mod tests;

/// Why an ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file exists but cannot be read.
    #[error("reading the ignore file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A line holds `!` and nothing after it.
    #[error("line {line}: `!` is not followed by a pattern")]
    EmptyException {
        /// Line number, from 1.
        line: usize,
    },
    /// A line is not a valid pattern.
    #[error("line {line}: bad pattern `{pattern}`: {reason}")]
    BadPattern {
        /// Line number, from 1.
        line: usize,
        /// The pattern as written, after cleaning.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// The patterns of one ignore file, ready to judge paths.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    patterns: Vec<Pattern>,
    source: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Vec<u8>,
    is_exception: bool,
    glob: Glob,
}

/// Which patterns matched a folder, to be handed to the judgement of what it
/// holds. The default value stands for the context root.
#[derive(Clone, Debug, Default)]
pub struct Inherited(Vec<bool>);

/// The answer for one path.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The path itself stays out of the context.
    pub is_ignored: bool,
    /// To be passed on for the entries below, if the path is a folder.
    pub inherited: Inherited,
}

impl IgnoreRules {
    /// Rules that ignore nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Finds and reads the ignore file of a build as BuildKit does:
    /// `<Dockerfile>.dockerignore` beside the Dockerfile, wherever that lies,
    /// and otherwise `.dockerignore` in the context folder.
    ///
    /// # Errors
    /// [`Error::Read`] if a file is there but unreadable, and the errors of
    /// [`IgnoreRules::parse`].
    pub fn for_build(context: &Path, dockerfile: Option<&Path>) -> Result<Self, Error> {
        let beside = dockerfile.map(|dockerfile| {
            let mut path = dockerfile.as_os_str().to_owned();
            path.push(".dockerignore");
            PathBuf::from(path)
        });
        for path in beside.into_iter().chain([context.join(".dockerignore")]) {
            match std::fs::read(&path) {
                Ok(content) => {
                    let mut rules = Self::parse(&content)?;
                    rules.source = Some(path);
                    return Ok(rules);
                }
                Err(source) if source.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::Read { path, source }),
            }
        }
        Ok(Self::none())
    }

    /// Parses the content of an ignore file: a byte-order mark is dropped,
    /// lines that start with `#` and empty ones are skipped, white space at
    /// both ends goes, paths are cleaned (`./a//b/../c` is `a/c`) and one
    /// leading `/` goes.
    ///
    /// # Errors
    /// [`Error::EmptyException`] and [`Error::BadPattern`].
    pub fn parse(content: &[u8]) -> Result<Self, Error> {
        let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        let mut patterns = Vec::new();
        for (index, line) in content.split(|byte| *byte == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let line = clean::trim(line);
            if !line.is_empty() {
                patterns.push(Pattern::parse(line, index + 1)?);
            }
        }
        Ok(Self { patterns, source: None })
    }

    /// The file these rules came from, if [`IgnoreRules::for_build`] found one.
    #[must_use]
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// Whether there is no pattern at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The cleaned patterns in order, exceptions with their `!`, as BuildKit
    /// takes them for `exclude_patterns`. Bytes that are no UTF-8 are replaced.
    pub fn patterns(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.patterns.iter().map(|pattern| {
            let text = String::from_utf8_lossy(&pattern.text);
            if pattern.is_exception { Cow::Owned(format!("!{text}")) } else { text }
        })
    }

    /// Judges one path, relative to the context root and separated by `/`,
    /// given the result of the folder it lies in. The last pattern that
    /// matches the path, or a folder above it, decides.
    #[must_use]
    pub fn judge(&self, path: &[u8], parent: &Inherited) -> Judgement {
        let path = glob::Subject::new(path);
        let mut matched = vec![false; self.patterns.len()];
        let mut is_ignored = false;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.0.get(index).copied().unwrap_or(false);
            // A pattern that could not change the outcome is not looked at, and
            // then counts as not matching for the entries below. Docker's walk
            // does the same, and it shows: `a/*` then `!a` leaves `a/b` out.
            matched[index] =
                inherited || (pattern.is_exception == is_ignored && pattern.glob.matches(&path));
            if matched[index] {
                is_ignored = !pattern.is_exception;
            }
        }
        Judgement { is_ignored, inherited: Inherited(matched) }
    }

    /// Judges one path without a walk, by judging the folders above it first.
    #[must_use]
    pub fn is_ignored(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        let ends = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at)
            .chain([path.len()]);
        let mut inherited = Inherited::default();
        let mut is_ignored = false;
        for end in ends {
            let judgement = self.judge(&path[..end], &inherited);
            is_ignored = judgement.is_ignored;
            inherited = judgement.inherited;
        }
        is_ignored
    }

    /// Whether a `!` pattern may bring back something below an ignored folder,
    /// so that a walk has to descend into it.
    #[must_use]
    pub fn may_bring_back_below(&self, folder: &[u8]) -> bool {
        let below = [folder, b"/"].concat();
        let below = glob::Subject::new(&below);
        self.patterns.iter().any(|pattern| pattern.is_exception && pattern.glob.may_begin(&below))
    }
}

impl Pattern {
    fn parse(line: &[u8], number: usize) -> Result<Self, Error> {
        let (is_exception, written) = match line.strip_prefix(b"!") {
            Some(rest) => (true, clean::trim(rest)),
            None => (false, line),
        };
        if written.is_empty() {
            return Err(Error::EmptyException { line: number });
        }
        let mut text = clean::clean(written);
        if text.len() > 1 && text.starts_with(b"/") {
            text.remove(0);
        }
        // Docker cleans `!/` once more, together with its `!`.
        if is_exception && text == b"/" {
            return Err(Error::EmptyException { line: number });
        }
        let glob = Glob::parse(&text).map_err(|reason| Error::BadPattern {
            line: number,
            pattern: String::from_utf8_lossy(&text).into_owned(),
            reason,
        })?;
        Ok(Self { text, is_exception, glob })
    }
}
