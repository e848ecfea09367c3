//! Repository names and tags, by the grammar of the OCI distribution
//! specification ("Pulling manifests").
//!
//! Invariant: neither can hold an empty path segment, `.` or `..`, a backslash
//! or a percent sign, so both are safe as parts of object keys and URLs. A
//! segment of a repository name never begins with `_`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest repository name in bytes; the distribution project's bound.
pub(crate) const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// The text was not a name or a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing at all.
    #[error("repository name is empty")]
    Empty,
    /// More than 255 characters.
    #[error("repository name is longer than {MAX_NAME} characters")]
    TooLong,
    /// An uppercase letter.
    #[error("repository name `{0}` must be lowercase")]
    Uppercase(String),
    /// Anything else that the grammar does not have.
    #[error("`{0}` is not a repository name")]
    Name(String),
    /// Not a tag.
    #[error("`{0}` is not a tag")]
    Tag(String),
}

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

/// The name of a repository within a registry: lowercase segments parted by
/// slashes, for example `library/debian`; at most 255 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(String);

text_type!(RepositoryName);

impl FromStr for RepositoryName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if text.len() > MAX_NAME {
            return Err(Error::TooLong);
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(Error::Uppercase(text.to_owned()));
        }
        if !text.split('/').all(is_segment) {
            return Err(Error::Name(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_segment(segment: &str) -> bool {
    let is_alphanumeric = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let edges = [segment.bytes().next(), segment.bytes().last()];
    if !edges.iter().all(|edge| edge.is_some_and(is_alphanumeric)) {
        return false;
    }
    let is_word = |byte: u8| is_alphanumeric(byte) || matches!(byte, b'.' | b'_' | b'-');
    segment.bytes().all(is_word)
        && segment
            .split(|letter: char| letter.is_ascii_alphanumeric())
            .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|byte| byte == b'-'))
}

/// A movable name of a manifest within a repository: a letter, digit or `_`,
/// then up to 127 of these, `.` and `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

text_type!(Tag);

impl FromStr for Tag {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let well_formed = text.len() <= MAX_TAG
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(Error::Tag(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn names_of_the_grammar() {
        for text in ["a", "library/debian", "a.b", "a_b", "a__b", "a---b", "0/1/2", "a-b_c.d/e"] {
            assert!(text.parse::<RepositoryName>().is_ok(), "{text}");
        }
        let wrong = [
            "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a..b", "a___b", "a._b", "a-.b", "_a",
            "a_", "-a", "a-", "a b", "a\\b", "a%2fb", "a\0", "é", "a:b", "a@b",
        ];
        for text in wrong {
            assert_eq!(text.parse::<RepositoryName>(), Err(Error::Name(text.into())), "{text}");
        }
        assert_eq!("".parse::<RepositoryName>(), Err(Error::Empty));
        assert_eq!("aB".parse::<RepositoryName>(), Err(Error::Uppercase("aB".into())));
        assert!("a".repeat(255).parse::<RepositoryName>().is_ok());
        assert_eq!("a".repeat(256).parse::<RepositoryName>(), Err(Error::TooLong));
    }

    #[test]
    fn tags_of_the_grammar() {
        for text in ["latest", "v1.2-rc", "_x", "A", "1"] {
            assert!(text.parse::<Tag>().is_ok(), "{text}");
        }
        for text in ["", ".a", "-a", "a/b", "a b", "a:b", "..", &"a".repeat(129)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_the_regular_expression_makes_is_taken(
            text in "[a-z0-9]{1,4}((\\.|_|__|-{1,3})[a-z0-9]{1,4}){0,3}(/[a-z0-9]{1,4}){0,3}"
        ) {
            prop_assert_eq!(text.parse::<RepositoryName>().map(|name| name.0), Ok(text));
        }

        #[test]
        fn nothing_that_is_taken_can_leave_its_folder(text in "[a-z._/\\\\%A-Z-]{0,12}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                prop_assert!(name.as_str().split('/').all(
                    |part| !part.is_empty() && !part.starts_with(['.', '_', '-'])
                ));
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert!(!tag.as_str().contains('/') && !tag.as_str().starts_with('.'));
            }
        }
    }
}
