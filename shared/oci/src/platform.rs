//! Platforms: `os/architecture[/variant]` in Go's words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The text was not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform such as `linux/amd64`")]
pub struct Error(pub String);

/// What an image runs on; displays as `linux/amd64` or `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, Go's `GOOS`.
    pub os: String,
    /// Processor architecture, Go's `GOARCH`.
    pub architecture: String,
    /// Variant of the architecture, for example `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system; Windows images carry it.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

impl Platform {
    /// `linux/amd64`, the platform of a snapshot unless configured otherwise.
    #[must_use]
    pub fn linux_amd64() -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            variant: None,
            os_version: None,
        }
    }

    /// Whether an image of this platform may stand where `wanted` is asked
    /// for: a variant counts only if `wanted` names one, and `arm64` and
    /// `arm64/v8` are the same.
    #[must_use]
    pub fn satisfies(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && wanted
                .significant_variant()
                .is_none_or(|variant| self.significant_variant() == Some(variant))
    }

    fn significant_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", Some("v8")) | (_, Some("")) => None,
            (_, variant) => variant,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_deref() {
            None | Some("") => Ok(()),
            Some(variant) => write!(f, "/{variant}"),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| is_word(part)) {
            return Err(Error(text.to_owned()));
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(Error(text.to_owned())),
        };
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
            os_version: None,
        })
    }
}

fn is_word(part: &str) -> bool {
    !part.is_empty()
        && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn parses_and_displays() {
        for text in ["linux/amd64", "linux/arm/v7", "windows/amd64", "linux/s390x"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert_eq!("linux/amd64".parse(), Ok(Platform::linux_amd64()));
        for text in ["", "linux", "linux/", "/amd64", "linux/amd64/", "a/b/c/d", "Linux/amd64"] {
            assert_eq!(text.parse::<Platform>(), Err(Error(text.to_owned())));
        }
    }

    #[test]
    fn a_variant_counts_only_if_it_is_asked_for() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(platform("linux/amd64/v2").satisfies(&platform("linux/amd64")));
        assert!(!platform("linux/amd64").satisfies(&platform("linux/amd64/v2")));
        assert!(platform("linux/arm64").satisfies(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm/v6").satisfies(&platform("linux/arm/v7")));
        assert!(!platform("linux/arm64").satisfies(&platform("linux/amd64")));
        assert!(!platform("windows/amd64").satisfies(&platform("linux/amd64")));
    }
}
