//! Regions and the classes of workers in them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::is_slug;

/// The text was not a region or class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Regions are slugs: lowercase letters, digits and hyphens.
    #[error("`{0}` is not a region name: use 1 to 63 lowercase letters, digits and hyphens")]
    Region(String),
    /// Only the classes listed are known.
    #[error("`{0}` is not a worker class: known are `cpu` and `gpu`")]
    Class(String),
}

/// A place where snapshots live and are made, such as `us` or `us-east-1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Region(String);

impl Region {
    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Region {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_slug(text) { Ok(Self(text.to_owned())) } else { Err(Error::Region(text.to_owned())) }
    }
}

impl TryFrom<String> for Region {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Region> for String {
    fn from(region: Region) -> Self {
        region.0
    }
}

/// What a worker can do; a job asks for exactly one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Ordinary builds and pulls.
    Cpu,
    /// Snapshots that need a GPU.
    Gpu,
}

impl Class {
    /// Every class, in order.
    pub const ALL: [Self; 2] = [Self::Cpu, Self::Gpu];

    /// The token used in subjects and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| Error::Class(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn regions_are_slugs() {
        assert_eq!("us-east-1".parse::<Region>().unwrap().as_str(), "us-east-1");
        assert!("US".parse::<Region>().is_err());
        assert!(serde_json::from_str::<Region>("\"a.b\"").is_err());
    }

    #[test]
    fn classes_round_trip() {
        for class in Class::ALL {
            assert_eq!(class.to_string().parse::<Class>().unwrap(), class);
        }
    }
}
