//! What a path asks for.
//!
//! Owns the endpoints of the distribution specification. Names may hold
//! slashes and any of the specification's own words, so a path is read from
//! its end.

use axum::http::{Method, StatusCode};
use slipway_blobstore::Repository;
use slipway_oci::{Digest, Tag};
use uuid::Uuid;

use crate::error::Error;

/// A request's object; `name` is still unchecked text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint<'a> {
    Blob { name: &'a str, digest: &'a str },
    Uploads { name: &'a str },
    Upload { name: &'a str, id: &'a str },
    Manifest { name: &'a str, reference: &'a str },
    Tags { name: &'a str },
    Referrers { name: &'a str, subject: &'a str },
}

impl<'a> Endpoint<'a> {
    /// Reads the part of a path below `/v2/`.
    pub(crate) fn parse(path: &'a str) -> Result<Self, Error> {
        if let Some(name) = path.strip_suffix("/blobs/uploads/") {
            return Ok(Self::Uploads { name });
        }
        let unknown = || Error::Unsupported(StatusCode::NOT_FOUND);
        let (folder, last) = path.rsplit_once('/').ok_or_else(unknown)?;
        if let Some(name) = folder.strip_suffix("/blobs/uploads") {
            return Ok(Self::Upload { name, id: last });
        }
        let (name, kind) = folder.rsplit_once('/').ok_or_else(unknown)?;
        match (kind, last) {
            ("blobs", "uploads") => Ok(Self::Uploads { name }),
            ("blobs", digest) => Ok(Self::Blob { name, digest }),
            ("manifests", reference) => Ok(Self::Manifest { name, reference }),
            ("tags", "list") => Ok(Self::Tags { name }),
            ("referrers", subject) => Ok(Self::Referrers { name, subject }),
            _ => Err(unknown()),
        }
    }

    pub(crate) const fn name(&self) -> &'a str {
        match self {
            Self::Blob { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. }
            | Self::Manifest { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => name,
        }
    }

    /// The kind of endpoint, for metrics and traces.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Blob { .. } => "blob",
            Self::Uploads { .. } | Self::Upload { .. } => "upload",
            Self::Manifest { .. } => "manifest",
            Self::Tags { .. } => "tags",
            Self::Referrers { .. } => "referrers",
        }
    }

    /// Whether a request with `method` writes, or asks about a write.
    pub(crate) fn writes(&self, method: &Method) -> bool {
        matches!(self, Self::Uploads { .. } | Self::Upload { .. })
            || !matches!(*method, Method::GET | Method::HEAD)
    }
}

/// The repository of a request; a name that no repository can have is unknown
/// to a reader and wrong from a writer.
pub(crate) fn repository(name: &str, writes: bool) -> Result<Repository, Error> {
    name.parse().map_err(|_| if writes { Error::NameInvalid } else { Error::NameUnknown })
}

pub(crate) fn digest(text: &str) -> Result<Digest, Error> {
    text.parse().map_err(Error::DigestMalformed)
}

pub(crate) fn upload_id(text: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(text).map_err(|_| Error::UploadUnknown)
}

/// What stands after `/manifests/`: how a manifest is named in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// By its digest.
    Digest(Digest),
    /// By a tag.
    Tag(Tag),
}

impl Reference {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        // No manifest can be known under what is not even a tag.
        text.parse().map(Self::Tag).map_err(|_| Error::ManifestUnknown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn paths_are_read_from_their_end() {
        let cases = [
            ("o/a/blobs/sha256:x", Endpoint::Blob { name: "o/a", digest: "sha256:x" }),
            ("o/a/blobs/uploads/", Endpoint::Uploads { name: "o/a" }),
            ("o/a/blobs/uploads", Endpoint::Uploads { name: "o/a" }),
            ("o/a/blobs/uploads/1", Endpoint::Upload { name: "o/a", id: "1" }),
            ("o/a/manifests/v1", Endpoint::Manifest { name: "o/a", reference: "v1" }),
            ("o/a/tags/list", Endpoint::Tags { name: "o/a" }),
            ("o/blobs/blobs/x", Endpoint::Blob { name: "o/blobs", digest: "x" }),
            ("o/manifests/blobs/uploads/1", Endpoint::Upload { name: "o/manifests", id: "1" }),
            ("o/a/referrers/x", Endpoint::Referrers { name: "o/a", subject: "x" }),
            ("o/tags/list/tags/list", Endpoint::Tags { name: "o/tags/list" }),
        ];
        for (path, endpoint) in cases {
            assert_eq!(Endpoint::parse(path).unwrap(), endpoint, "{path}");
        }
        for path in ["", "o", "o/a", "o/a/tags/x", "_catalog", "blobs/x"] {
            assert!(Endpoint::parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn references_are_digests_or_tags() {
        let digest = Digest::sha256("");
        assert_eq!(Reference::parse(&digest.to_string()).unwrap(), Reference::Digest(digest));
        assert!(matches!(Reference::parse("v1").unwrap(), Reference::Tag(_)));
        assert!(matches!(Reference::parse("sha256:x"), Err(Error::DigestMalformed(_))));
        assert!(matches!(Reference::parse(".."), Err(Error::ManifestUnknown)));
    }
}
