//! References to images: `[domain/]path[:tag][@digest]`.
//!
//! Owns the grammar and the defaults that Docker users rely on (`debian` is
//! `docker.io/library/debian`), as the distribution project's `reference`
//! package has them. Refuses to invent a tag: whether one is required is the
//! caller's rule.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Digest, RepositoryName, Tag, digest, name};

const HUB: &str = "docker.io";
const HUB_LEGACY: &str = "index.docker.io";
const HUB_OFFICIAL: &str = "library/";

/// The text was not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing at all.
    #[error("image reference is empty")]
    Empty,
    /// 64 hex digits, which clients read as the id of a local image.
    #[error("`{0}` is an image id, not a reference")]
    Identifier(String),
    /// What stands before the first slash is no host.
    #[error("`{0}` is not a registry host")]
    Domain(String),
    /// The path is no repository name, or the tag no tag.
    #[error("image reference is malformed")]
    Name(#[source] name::Error),
    /// What follows `@` is no digest.
    #[error("image reference has a malformed digest")]
    Digest(#[source] digest::Error),
}

/// A reference with its defaults filled in; displays in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageReference {
    domain: String,
    path: RepositoryName,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// Host and optional port of the registry, as written; `docker.io` for
    /// Docker Hub.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    #[must_use]
    pub const fn path(&self) -> &RepositoryName {
        &self.path
    }

    /// The tag, if one was written.
    #[must_use]
    pub const fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written; it prevails over the tag.
    #[must_use]
    pub const fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same image pinned to `digest`; the tag stays as a remark.
    #[must_use]
    pub fn with_digest(self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self }
    }

    /// The short form that Docker shows, without Docker Hub's defaults.
    #[must_use]
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(short) = full.strip_prefix("docker.io/") else { return full };
        match self.path.as_str().strip_prefix(HUB_OFFICIAL) {
            Some(official) if !official.contains('/') => short[HUB_OFFICIAL.len()..].to_owned(),
            _ => short.to_owned(),
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ImageReference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Err(Error::Empty);
        }
        if Digest::from_sha256_hex(text).is_ok() {
            return Err(Error::Identifier(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        if !is_domain(domain) {
            return Err(Error::Domain(domain.to_owned()));
        }
        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(Error::Digest)?)),
            None => (remainder, None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag.parse().map_err(Error::Name)?)),
            None => (name, None),
        };
        let official = domain == HUB && !path.is_empty() && !path.contains('/');
        let path = if official { format!("{HUB_OFFICIAL}{path}") } else { path.to_owned() };
        let path = path.parse().map_err(Error::Name)?;
        Ok(Self { domain: domain.to_owned(), path, tag, digest })
    }
}

/// Parts the registry's host from the rest. A first segment is a host only if
/// it could not be the name of a Docker Hub account.
fn split_domain(text: &str) -> (&str, &str) {
    let Some((first, rest)) = text.split_once('/') else { return (HUB, text) };
    if first == HUB_LEGACY {
        return (HUB, rest);
    }
    let is_host = first == "localhost"
        || first.contains(['.', ':'])
        || first.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_host { (first, rest) } else { (HUB, text) }
}

/// `host[:port]`, where the host is a name, an IPv4 address, or an IPv6
/// address in brackets without a zone.
fn is_domain(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_fits = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        });
    port_fits && (is_ipv6(host) || host.split('.').all(is_label))
}

fn is_ipv6(host: &str) -> bool {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|address| {
        !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
    })
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Serialize for ImageReference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ImageReference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
