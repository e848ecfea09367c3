//! What one solve shall do, in our own words.
//!
//! Owns the description of a solve and the check that it can be expressed.
//! Refuses what would change the meaning of a neighbouring field on the wire
//! (a comma in a repository, a path out of the Dockerfile's folder) and every
//! exporter setting that is not listed: an unknown compression can crash a
//! BuildKit for all of its users.

use std::collections::BTreeMap;

use secrecy::{SecretSlice, SecretString};
use slipway_oci::{Algorithm, Digest, ImageReference, Platform};

/// Largest Dockerfile, in bytes; it travels inside the request.
const MAX_DOCKERFILE: usize = 4 << 20;

/// One solve of a Dockerfile.
#[derive(Clone, Debug)]
pub struct SolveRequest {
    /// Text of the Dockerfile. It is never part of the build context, and its
    /// `# syntax=` line never loads another frontend.
    pub dockerfile: Vec<u8>,
    /// Relative path by which messages call the Dockerfile.
    pub dockerfile_name: String,
    /// Archives united, in this order, into the build context: a later one
    /// replaces what an earlier one holds at the same path. None at all means
    /// an empty context.
    pub contexts: Vec<ContextSource>,
    /// Values of `ARG`s by name.
    pub build_args: BTreeMap<String, String>,
    /// Stage to build; the last one if `None`.
    pub target: Option<String>,
    /// Runs every instruction again, whatever the cache holds.
    pub no_cache: bool,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// Platform to build for.
    pub platform: Platform,
    /// What happens with the result.
    pub export: Export,
    /// Values for `RUN --mount=type=secret`, by id. They are no part of the
    /// cache key: a changed value alone runs nothing again.
    pub secrets: BTreeMap<String, SecretSlice<u8>>,
    /// Who we are to the registries that are pulled from and pushed to.
    pub credentials: RegistryCredentials,
    /// Control group under which `RUN` processes are placed. It is part of the
    /// cache key: solves that shall share results must name the same one.
    pub cgroup_parent: Option<String>,
    /// Which images may be built upon; the last rule that matches decides, and
    /// what none matches is allowed. BuildKit shares what it fetched between all
    /// its users, so an image that is not for everybody has to be denied here:
    /// credentials are not asked for when its digest is known.
    pub image_rules: Vec<ImageRule>,
    /// Where images are fetched instead of where the Dockerfile says. The rules
    /// above hold for the new place, too.
    pub mirrored: Vec<Mirrored>,
}

/// An image that a mirror serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    /// The image as the Dockerfile names it.
    pub image: ImageReference,
    /// `host[:port]` of the mirror, which has it under the same path.
    pub mirror: String,
}

/// Allows or denies images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRule {
    /// Whether what matches may be used.
    pub is_allowed: bool,
    /// Regular expression (RE2) over `<host>/<path>[:<tag>][@<digest>]`, which
    /// has to match from the beginning.
    pub pattern: String,
}

/// A tar archive (plain, gzip, bzip2 or xz) that BuildKit fetches and unpacks.
///
/// Entries keep their modes, owners and times: who packs decides what `docker
/// build` decides otherwise (that everything is root's). Bytes that are no such
/// archive are not refused by BuildKit; they become the file `context.tar`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextSource {
    /// Where BuildKit fetches the archive, `http://…` or `https://…`. Messages
    /// never show it, so it may carry a secret.
    pub url: String,
    /// Of the archive, SHA-256. An archive that BuildKit has seen is not
    /// fetched again, whatever its address.
    pub digest: Digest,
    /// Patterns in the language of `.dockerignore`, one each, without comments;
    /// what they match is left out. Empty if the archive was filtered already.
    pub excludes: Vec<String>,
}

/// What happens with the result of a solve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Export {
    /// Build and keep nothing but the cache.
    #[default]
    None,
    /// Push the image to a registry without a tag, with OCI media types, and
    /// leave nothing in BuildKit's own image store.
    PushByDigest {
        /// `host[:port]/path`, without tag and digest.
        repository: String,
        /// Whether plain HTTP and unknown certificates will do.
        insecure: bool,
        /// Of the layers that this solve makes.
        compression: Compression,
    },
}

/// Compression of layers. The list is closed: `estargz`, for one, makes some
/// builds of BuildKit panic, which ends every solve of every user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Understood by every puller.
    #[default]
    Gzip,
    /// Smaller and faster; needs a puller of 2021 or later.
    Zstd,
    /// Plain tar.
    Uncompressed,
}

/// Credentials by registry host (`host[:port]`; `docker.io` for Docker Hub).
#[derive(Clone, Debug, Default)]
pub struct RegistryCredentials {
    by_host: BTreeMap<String, Credential>,
}

/// A user and its password or token.
#[derive(Clone, Debug)]
pub struct Credential {
    /// User name.
    pub username: String,
    /// Password or token; never shown by `Debug`.
    pub secret: SecretString,
}

/// A [`SolveRequest`] that cannot be expressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` of the solve request is invalid: {reason}")]
pub struct InvalidRequest {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl SolveRequest {
    /// A build of `dockerfile` for `linux/amd64` with an empty context that
    /// exports nothing; the other fields are public.
    pub fn new(dockerfile: impl Into<Vec<u8>>) -> Self {
        Self {
            dockerfile: dockerfile.into(),
            dockerfile_name: "Dockerfile".to_owned(),
            contexts: Vec::new(),
            build_args: BTreeMap::new(),
            target: None,
            no_cache: false,
            labels: BTreeMap::new(),
            platform: Platform::linux_amd64(),
            export: Export::None,
            secrets: BTreeMap::new(),
            credentials: RegistryCredentials::default(),
            cgroup_parent: None,
            image_rules: Vec::new(),
            mirrored: Vec::new(),
        }
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first field that cannot be expressed.
    pub fn validate(&self) -> Result<(), InvalidRequest> {
        let fail = |field, reason: &str| Err(InvalidRequest::new(field, reason));
        if self.dockerfile.len() > MAX_DOCKERFILE {
            return fail("dockerfile", "longer than 4 MiB");
        }
        if !is_relative_path(&self.dockerfile_name) {
            return fail("dockerfile_name", "not a relative path without `..`");
        }
        for context in &self.contexts {
            context.validate()?;
        }
        if self.build_args.keys().any(|name| name.is_empty() || name.contains('=')) {
            return fail("build_args", "a name is empty or holds `=`");
        }
        if self.labels.keys().any(String::is_empty) {
            return fail("labels", "a name is empty");
        }
        if self.mirrored.iter().any(|mirrored| !is_host(&mirrored.mirror)) {
            return fail("mirrored", "a mirror is not of the form `host[:port]`");
        }
        match &self.export {
            Export::PushByDigest { repository, .. } if !is_repository(repository) => {
                fail("export", "repository is not of the form `host[:port]/path`")
            }
            Export::PushByDigest { .. } | Export::None => Ok(()),
        }
    }
}

impl ContextSource {
    fn validate(&self) -> Result<(), InvalidRequest> {
        let fail = |reason: &str| Err(InvalidRequest::new("contexts", reason));
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return fail("a url is neither http nor https");
        }
        if self.digest.algorithm() != Algorithm::Sha256 {
            return fail("a digest is not SHA-256");
        }
        Ok(())
    }
}

impl Compression {
    /// The exporter's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Uncompressed => "uncompressed",
        }
    }
}

impl RegistryCredentials {
    /// Sets the credential for `host`, replacing an earlier one.
    pub fn insert(&mut self, host: &str, credential: Credential) {
        self.by_host.insert(canonical_host(host).to_owned(), credential);
    }

    pub(crate) fn get(&self, host: &str) -> Option<&Credential> {
        self.by_host.get(canonical_host(host))
    }
}

impl InvalidRequest {
    pub(crate) fn new(field: &'static str, reason: impl Into<String>) -> Self {
        Self { field, reason: reason.into() }
    }
}

/// BuildKit asks for Docker Hub by the name of its API host.
fn canonical_host(host: &str) -> &str {
    match host {
        "registry-1.docker.io" | "index.docker.io" | "https://index.docker.io/v1/" => "docker.io",
        other => other,
    }
}

fn is_relative_path(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn is_host(host: &str) -> bool {
    let host_char =
        |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
    !host.is_empty() && host.bytes().all(host_char)
}

fn is_repository(repository: &str) -> bool {
    let Some((host, path)) = repository.split_once('/') else { return false };
    let path_char = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
    is_host(host) && path.split('/').all(|part| !part.is_empty()) && path.bytes().all(path_char)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn field_of(change: impl FnOnce(&mut SolveRequest)) -> &'static str {
        let mut request = SolveRequest::new("FROM scratch");
        change(&mut request);
        request.validate().unwrap_err().field
    }

    fn push_to(repository: &str) -> Export {
        Export::PushByDigest {
            repository: repository.into(),
            insecure: true,
            compression: Compression::default(),
        }
    }

    #[test]
    fn sound_requests_are_accepted() {
        let mut request = SolveRequest::new("FROM scratch");
        request.dockerfile_name = "docker/prod.Dockerfile".into();
        request.export = push_to("127.0.0.1:5101/acme/snapshots");
        request.contexts.push(ContextSource {
            url: "http://127.0.0.1:1/c".into(),
            digest: Digest::sha256("archive"),
            excludes: vec![],
        });
        request.validate().unwrap();
    }

    #[test]
    fn each_field_that_cannot_be_expressed_is_named() {
        assert_eq!(field_of(|r| r.dockerfile = vec![b'#'; MAX_DOCKERFILE + 1]), "dockerfile");
        for name in ["", "/etc/passwd", "../Dockerfile", "a//b", "a\nb"] {
            assert_eq!(field_of(|r| r.dockerfile_name = name.into()), "dockerfile_name");
        }
        let mirror = |mirror: &str| Mirrored {
            image: "docker.io/library/x:1".parse().unwrap(),
            mirror: mirror.into(),
        };
        for host in ["", "h/path", "$1", "https://h"] {
            assert_eq!(field_of(|r| r.mirrored = vec![mirror(host)]), "mirrored");
        }
        for repository in ["a", "h/a,h/b", "h/a:tag", "h/a@sha256:0", "h/", "h/A"] {
            assert_eq!(field_of(|r| r.export = push_to(repository)), "export");
        }
        let context = |url: &str, algorithm| ContextSource {
            url: url.into(),
            digest: Digest::of(algorithm, ""),
            excludes: vec![],
        };
        let local = context("file:///etc", Algorithm::Sha256);
        assert_eq!(field_of(|r| r.contexts = vec![local]), "contexts");
        let sha512 = context("http://h/", Algorithm::Sha512);
        assert_eq!(field_of(|r| r.contexts = vec![sha512]), "contexts");
        assert_eq!(
            field_of(|r| drop(r.build_args.insert("a=b".into(), String::new()))),
            "build_args"
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut request = SolveRequest::new("FROM scratch");
        request.secrets.insert("token".into(), b"hunter2".to_vec().into());
        let secret = SecretString::from("swordfish");
        request.credentials.insert("docker.io", Credential { username: "u".into(), secret });
        let shown = format!("{request:?}");
        assert!(!shown.contains("swordfish") && !shown.contains("hunter2"), "{shown}");
        assert!(!shown.contains("104, 117"), "{shown}");
        assert!(request.credentials.get("registry-1.docker.io").is_some());
    }
}
