//! Identifiers: newtypes over UUIDs, all listed here, and names of processes.
//!
//! Every identifier displays as lowercase letters, digits and hyphens, so that
//! it can be a token of a NATS subject and a segment of an object key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text was not an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} id")]
pub struct Error {
    /// What kind of identifier was wanted, for example `snapshot`.
    pub kind: &'static str,
    /// The offending text.
    pub text: String,
}

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID; new ones are version 7, so that they sort by age.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                match Uuid::try_parse(text) {
                    Ok(uuid) => Ok(Self(uuid)),
                    Err(_) => Err(Error { kind: $kind, text: text.to_owned() }),
                }
            }
        }
    )*};
}

uuid_ids! {
    /// A tenant: owns snapshots, API keys, credentials and quotas.
    OrganizationId = "organization";
    /// A named sandbox template of an organization.
    SnapshotId = "snapshot";
    /// One unit of work sent to a region.
    JobId = "job";
    /// A registry credential of an organization.
    CredentialId = "registry credential";
}

/// The name of a worker process: 1 to 63 lowercase letters, digits and hyphens.
///
/// Chosen by whoever runs the worker and unique among live workers; it is a
/// token of NATS subjects, so it cannot hold dots, spaces or wildcards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkerId(String);

impl WorkerId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for WorkerId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_slug(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error { kind: "worker", text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for WorkerId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<WorkerId> for String {
    fn from(id: WorkerId) -> Self {
        id.0
    }
}

/// Lowercase letters, digits and inner hyphens, 1 to 63 characters: the rule
/// for every name that becomes a token of a NATS subject (a DNS label,
/// RFC 1123 section 2.1).
pub(crate) fn is_slug(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uuid_ids_round_trip_as_text_and_json() {
        let text = "018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f";
        let id: SnapshotId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
        assert_eq!("nope".parse::<JobId>().unwrap_err().to_string(), "`nope` is not a job id");
    }

    #[test]
    fn worker_names_that_would_break_a_subject_are_refused() {
        for bad in ["", "a.b", "a b", "A", "a*", ">", "-a", "a-", &"x".repeat(64)] {
            assert!(bad.parse::<WorkerId>().is_err(), "{bad:?}");
        }
        assert!("us-1".parse::<WorkerId>().is_ok());
    }
}
