//! Where every object lies: one enum, with a path and a content type for each
//! kind.
//!
//! Owns the layout of the object store. `blobs/` is one pool for all
//! organizations; that bytes are in it grants nothing. What an organization
//! may read is what lies under its `repos/<organization>/`.
//!
//! Invariant: `ObjectKey::parse` inverts `Display`, and every segment of a path
//! is made of a UUID, hex digits, or a type whose grammar has no `.` or `/` of
//! its own, so a path cannot leave its folder.

use std::fmt;
use std::str::FromStr;

use object_store::path::Path;
use slipway_oci::{Digest, RepositoryName, Tag};
use uuid::Uuid;

/// The text was not a key, a repository or a context hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub struct MalformedKey {
    /// What was expected, with its article.
    pub wanted: &'static str,
    /// The text.
    pub text: String,
}

/// A repository of an organization; displays as `<organization>/<name>`,
/// which is also its name for OCI clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    /// Whose it is.
    pub organization: Uuid,
    /// Its name within the organization.
    pub name: RepositoryName,
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organization.as_hyphenated(), self.name)
    }
}

impl FromStr for Repository {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let parts = || {
            let (organization, name) = text.split_once('/')?;
            Some(Self { organization: parse_uuid(organization)?, name: name.parse().ok()? })
        };
        parts().ok_or_else(|| malformed("a repository `<organization>/<name>`", text))
    }
}

/// What a client calls a build context: hex digits of a hash it computed by a
/// way of its own (32 to 128 of them). A claim, never proof of content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContextHash(String);

impl ContextHash {
    /// The hex digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest that a hash of 64 digits claims. Slipway's own client uses
    /// SHA-256, so that the claim can be verified on upload.
    #[must_use]
    pub fn as_sha256(&self) -> Option<Digest> {
        Digest::from_sha256_hex(&self.0).ok()
    }
}

impl fmt::Display for ContextHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContextHash {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_hex && (32..=128).contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(malformed("a context hash of 32 to 128 lowercase hex digits", text))
        }
    }
}

/// An object's place. Displays as its path below the store's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKey {
    /// Bytes of a blob or manifest, immutable:
    /// `blobs/<algorithm>/<2 hex>/<hex>`.
    Blob(Digest),
    /// Says that a sweep found nobody who has a blob, and when, in seconds since
    /// 1970: `condemned/<digest>`.
    Condemned(Digest),
    /// Says that a repository has a blob: `repos/<repository>/_blobs/<digest>`.
    BlobLink {
        /// The repository.
        repository: Repository,
        /// The blob.
        digest: Digest,
    },
    /// Says that a repository has a manifest:
    /// `repos/<repository>/_manifests/<digest>`.
    ManifestLink {
        /// The repository.
        repository: Repository,
        /// The manifest.
        digest: Digest,
    },
    /// Names the manifest that a tag stands for now:
    /// `repos/<repository>/_tags/<tag>`.
    TagLink {
        /// The repository.
        repository: Repository,
        /// The tag.
        tag: Tag,
    },
    /// Says that a manifest of a repository names another as its subject:
    /// `repos/<repository>/_referrers/<subject>/<digest>`.
    Referrer {
        /// The repository.
        repository: Repository,
        /// What is referred to; it need not exist.
        subject: Digest,
        /// The manifest that refers.
        digest: Digest,
    },
    /// Bytes of an upload whose digest is not known yet: `uploads/<id>`.
    Upload(Uuid),
    /// One part of an upload that clients send in parts:
    /// `uploads/<id>/<number>`.
    UploadPart {
        /// The upload.
        upload: Uuid,
        /// Which part, as its client counts.
        number: u16,
    },
    /// A build context as its client packed it:
    /// `<organization>/<hash>/context.tar`.
    Context {
        /// Whose it is.
        organization: Uuid,
        /// What the client calls it.
        hash: ContextHash,
    },
    /// The whole log of an ended job: `logs/<job>.jsonl.zst`.
    JobLog(Uuid),
    /// Build cache of an organization: `cache/<organization>/<name>`.
    Cache {
        /// Whose it is.
        organization: Uuid,
        /// Which cache.
        name: RepositoryName,
    },
}

impl ObjectKey {
    /// The type under which object stores that keep one store the object.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Blob(_)
            | Self::Condemned(_)
            | Self::Upload(_)
            | Self::UploadPart { .. }
            | Self::Cache { .. } => "application/octet-stream",
            Self::BlobLink { .. }
            | Self::ManifestLink { .. }
            | Self::TagLink { .. }
            | Self::Referrer { .. } => "application/json",
            Self::Context { .. } => "application/x-tar",
            Self::JobLog(_) => "application/zstd",
        }
    }

    /// Reads a path that [`ObjectKey`] displayed.
    ///
    /// # Errors
    /// If the path is that of no key.
    pub fn parse(path: &str) -> Result<Self, MalformedKey> {
        parse(path).ok_or_else(|| malformed("the path of an object", path))
    }

    pub(crate) fn path(&self) -> Path {
        Path::parse(self.to_string()).expect("segments of a key have no forbidden characters")
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => {
                let hex = digest.hex();
                write!(f, "blobs/{}/{}/{hex}", digest.algorithm(), &hex[..2])
            }
            Self::Condemned(digest) => write!(f, "condemned/{digest}"),
            Self::BlobLink { repository, digest } => {
                write!(f, "repos/{repository}/_blobs/{digest}")
            }
            Self::ManifestLink { repository, digest } => {
                write!(f, "repos/{repository}/_manifests/{digest}")
            }
            Self::TagLink { repository, tag } => write!(f, "repos/{repository}/_tags/{tag}"),
            Self::Referrer { repository, subject, digest } => {
                write!(f, "repos/{repository}/_referrers/{subject}/{digest}")
            }
            Self::Upload(id) => write!(f, "uploads/{}", id.as_hyphenated()),
            Self::UploadPart { upload, number } => {
                write!(f, "uploads/{}/{number}", upload.as_hyphenated())
            }
            Self::Context { organization, hash } => {
                write!(f, "{}/{hash}/context.tar", organization.as_hyphenated())
            }
            Self::JobLog(job) => write!(f, "logs/{}.jsonl.zst", job.as_hyphenated()),
            Self::Cache { organization, name } => {
                write!(f, "cache/{}/{name}", organization.as_hyphenated())
            }
        }
    }
}

fn parse(path: &str) -> Option<ObjectKey> {
    let (top, rest) = path.split_once('/')?;
    let key = match top {
        "blobs" => {
            let [algorithm, _, hex] = segments(rest)?;
            ObjectKey::Blob(format!("{algorithm}:{hex}").parse().ok()?)
        }
        "condemned" => ObjectKey::Condemned(rest.parse().ok()?),
        "repos" => parse_link(rest)?,
        "uploads" => match rest.split_once('/') {
            None => ObjectKey::Upload(parse_uuid(rest)?),
            Some((upload, number)) => {
                ObjectKey::UploadPart { upload: parse_uuid(upload)?, number: number.parse().ok()? }
            }
        },
        "logs" => ObjectKey::JobLog(parse_uuid(rest.strip_suffix(".jsonl.zst")?)?),
        "cache" => {
            let Repository { organization, name } = rest.parse().ok()?;
            ObjectKey::Cache { organization, name }
        }
        organization => {
            let [hash, _] = segments(rest)?;
            let organization = parse_uuid(organization)?;
            ObjectKey::Context { organization, hash: hash.parse().ok()? }
        }
    };
    // What is left out above (the two digits of a blob, the file name of a
    // context) is checked by displaying the key again.
    (key.to_string() == path).then_some(key)
}

fn parse_link(rest: &str) -> Option<ObjectKey> {
    let (folder, name) = rest.rsplit_once('/')?;
    let (repository, kind) = folder.rsplit_once('/')?;
    if let Some(repository) = repository.strip_suffix("/_referrers") {
        let (repository, subject) = (repository.parse().ok()?, kind.parse().ok()?);
        return Some(ObjectKey::Referrer { repository, subject, digest: name.parse().ok()? });
    }
    let repository = repository.parse().ok()?;
    match kind {
        "_blobs" => Some(ObjectKey::BlobLink { repository, digest: name.parse().ok()? }),
        "_manifests" => Some(ObjectKey::ManifestLink { repository, digest: name.parse().ok()? }),
        "_tags" => Some(ObjectKey::TagLink { repository, tag: name.parse().ok()? }),
        _ => None,
    }
}

fn segments<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split('/').collect::<Vec<_>>().try_into().ok()
}

/// Only the hyphenated lowercase form, so that one organization has one name.
fn parse_uuid(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    (uuid.as_hyphenated().to_string() == text).then_some(uuid)
}

fn malformed(wanted: &'static str, text: &str) -> MalformedKey {
    MalformedKey { wanted, text: text.to_owned() }
}

/// A folder that can be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// Everything.
    All,
    /// All blobs.
    Blobs,
    /// What sweeps have condemned.
    Condemned,
    /// All links of all organizations.
    Links,
    /// All links of an organization.
    Organization(Uuid),
    /// The links of a repository and of those whose names go on below it.
    Repository(Repository),
    /// The blobs that a repository has.
    BlobLinks(Repository),
    /// The manifests that a repository has.
    ManifestLinks(Repository),
    /// The tags of a repository.
    Tags(Repository),
    /// The manifests of a repository that refer to a subject.
    Referrers(Repository, Digest),
    /// Unfinished uploads.
    Uploads,
    /// The parts of an upload.
    UploadParts(Uuid),
    /// The contexts of an organization.
    Contexts(Uuid),
    /// All archived logs.
    Logs,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Blobs => f.write_str("blobs"),
            Self::Condemned => f.write_str("condemned"),
            Self::Links => f.write_str("repos"),
            Self::Organization(organization) => write!(f, "repos/{}", organization.as_hyphenated()),
            Self::Repository(repository) => write!(f, "repos/{repository}"),
            Self::BlobLinks(repository) => write!(f, "repos/{repository}/_blobs"),
            Self::ManifestLinks(repository) => write!(f, "repos/{repository}/_manifests"),
            Self::Tags(repository) => write!(f, "repos/{repository}/_tags"),
            Self::Referrers(repository, subject) => {
                write!(f, "repos/{repository}/_referrers/{subject}")
            }
            Self::Uploads => f.write_str("uploads"),
            Self::UploadParts(upload) => write!(f, "uploads/{}", upload.as_hyphenated()),
            Self::Contexts(organization) => write!(f, "{}", organization.as_hyphenated()),
            Self::Logs => f.write_str("logs"),
        }
    }
}

impl Prefix {
    pub(crate) fn path(&self) -> Path {
        Path::parse(self.to_string()).expect("segments of a prefix have no forbidden characters")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::{
        Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;

    fn names() -> impl Strategy<Value = RepositoryName> {
        "[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,3}"
            .prop_map(|text| text.parse().unwrap())
    }

    fn repositories() -> impl Strategy<Value = Repository> {
        (any::<u128>(), names())
            .prop_map(|(id, name)| Repository { organization: Uuid::from_u128(id), name })
    }

    fn digests() -> impl Strategy<Value = Digest> {
        prop_oneof![
            any::<[u8; 32]>().prop_map(Digest::Sha256),
            (any::<[u8; 32]>(), any::<[u8; 32]>())
                .prop_map(|(a, b)| { Digest::Sha512([a, b].concat().try_into().unwrap()) }),
        ]
    }

    fn keys() -> impl Strategy<Value = ObjectKey> {
        let uuids = || any::<u128>().prop_map(Uuid::from_u128);
        prop_oneof![
            digests().prop_map(ObjectKey::Blob),
            digests().prop_map(ObjectKey::Condemned),
            (repositories(), digests())
                .prop_map(|(repository, digest)| ObjectKey::BlobLink { repository, digest }),
            (repositories(), digests())
                .prop_map(|(repository, digest)| ObjectKey::ManifestLink { repository, digest }),
            (repositories(), "[A-Za-z0-9_][A-Za-z0-9._-]{0,20}").prop_map(|(repository, tag)| {
                ObjectKey::TagLink { repository, tag: tag.parse().unwrap() }
            }),
            (repositories(), digests(), digests()).prop_map(|(repository, subject, digest)| {
                ObjectKey::Referrer { repository, subject, digest }
            }),
            uuids().prop_map(ObjectKey::Upload),
            (uuids(), any::<u16>())
                .prop_map(|(upload, number)| ObjectKey::UploadPart { upload, number }),
            (uuids(), "[0-9a-f]{32}|[0-9a-f]{64}").prop_map(|(organization, hash)| {
                ObjectKey::Context { organization, hash: hash.parse().unwrap() }
            }),
            uuids().prop_map(ObjectKey::JobLog),
            (uuids(), names())
                .prop_map(|(organization, name)| ObjectKey::Cache { organization, name }),
        ]
    }

    #[test]
    fn the_layout_is_that_of_the_design() {
        let organization = Uuid::from_u128(7);
        let org = "00000000-0000-0000-0000-000000000007";
        let repository: Repository = format!("{org}/snapshots").parse().unwrap();
        let digest = Digest::sha256("");
        let hex = digest.hex();
        let cases = [
            (ObjectKey::Blob(digest), format!("blobs/sha256/e3/{hex}")),
            (
                ObjectKey::BlobLink { repository: repository.clone(), digest },
                format!("repos/{org}/snapshots/_blobs/sha256:{hex}"),
            ),
            (
                ObjectKey::Referrer { repository: repository.clone(), subject: digest, digest },
                format!("repos/{org}/snapshots/_referrers/sha256:{hex}/sha256:{hex}"),
            ),
            (
                ObjectKey::TagLink { repository, tag: "v1".parse().unwrap() },
                format!("repos/{org}/snapshots/_tags/v1"),
            ),
            (
                ObjectKey::Context { organization, hash: hex.parse().unwrap() },
                format!("{org}/{hex}/context.tar"),
            ),
            (ObjectKey::JobLog(organization), format!("logs/{org}.jsonl.zst")),
        ];
        for (key, path) in cases {
            assert_eq!(key.to_string(), path);
        }
    }

    #[test]
    fn only_the_canonical_form_of_an_organization_is_taken() {
        let lower = "00000000-0000-0000-0000-00000000000a";
        assert!(format!("{lower}/a").parse::<Repository>().is_ok());
        let simple = lower.replace('-', "");
        for text in [lower.to_uppercase(), simple, format!("{{{lower}}}"), "..".into()] {
            assert!(format!("{text}/a").parse::<Repository>().is_err(), "{text}");
        }
        for rest in ["", "/", "..", "a/../b", "_blobs", "A"] {
            assert!(format!("{lower}/{rest}").parse::<Repository>().is_err(), "{rest}");
        }
    }

    #[test]
    fn foreign_paths_are_no_keys() {
        let hex = Digest::sha256("").hex();
        let wrong = [
            String::new(),
            "blobs".into(),
            format!("blobs/sha256/00/{hex}"),
            format!("blobs/sha256/e3/{hex}#1"),
            "uploads/../x".into(),
            "repos/x/_blobs/y".into(),
            format!("{}/{hex}/other.tar", Uuid::nil()),
        ];
        for path in wrong {
            assert!(ObjectKey::parse(&path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn parse_inverts_display_and_the_path_stays_as_it_is(key in keys()) {
            let path = key.path();
            prop_assert_eq!(path.as_ref(), key.to_string());
            prop_assert!(path.parts().all(|part| !["", ".", ".."].contains(&part.as_ref())));
            prop_assert_eq!(ObjectKey::parse(path.as_ref()), Ok(key));
        }

        #[test]
        fn no_other_text_is_a_key(
            top in prop_oneof![Just("blobs"), Just("repos"), Just("logs"), Just("cache"), Just("")],
            rest in "[a-f0-9./_-]{0,40}"
        ) {
            let path = format!("{top}/{rest}");
            if let Ok(key) = ObjectKey::parse(&path) {
                prop_assert_eq!(key.to_string(), path);
            }
        }
    }
}
