//! Why an image cannot be had from its registry, told apart by whose doing it
//! is. Display is for the user: what happened, and what to do about it.

use std::time::Duration;

use slipway_oci::{Digest, MediaType, Mismatch, Platform};

use crate::credential::CredentialError;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A pull failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference has no tag and no digest.
    #[error("`{0}` has neither a tag nor a digest")]
    NoTag(String),
    /// Credentials could not be had.
    #[error(transparent)]
    Credential(CredentialError),
    /// The registry does not have it.
    #[error("`{what}` was not found in the registry `{host}`")]
    NotFound {
        /// The registry.
        host: String,
        /// Repository and tag or digest.
        what: String,
    },
    /// The registry does not let the credentials, or nobody, read it.
    #[error(
        "the registry `{host}` does not allow {} to read `{repository}`{}",
        if *anonymous { "anonymous clients" } else { "these credentials" },
        said(reason)
    )]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// Whether there were no credentials.
        anonymous: bool,
        /// What the registry said.
        reason: Option<String>,
    },
    /// The token server's answer, or its address, is of no use.
    #[error("the token server that `{host}` names cannot be used: {problem}")]
    Token {
        /// The registry.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The registry wants fewer requests.
    #[error("the registry `{host}` is limiting requests{}", again(retry_after))]
    RateLimited {
        /// The registry.
        host: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The registry answers with an error of its own.
    #[error("the registry `{host}` failed with status {status}{}", said(reason))]
    Failed {
        /// The registry.
        host: String,
        /// HTTP status.
        status: u16,
        /// When to come again.
        retry_after: Option<Duration>,
        /// What the registry said.
        reason: Option<String>,
    },
    /// The registry cannot be reached, or the connection broke.
    #[error("the registry `{host}` cannot be reached")]
    Unreachable {
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The registry refuses a request that should be right.
    #[error("the registry `{host}` refused the request with status {status}{}", said(reason))]
    Refused {
        /// The registry.
        host: String,
        /// HTTP status.
        status: u16,
        /// What the registry said.
        reason: Option<String>,
    },
    /// A redirect that is not followed.
    #[error("the registry `{host}` redirects {fault}")]
    Redirect {
        /// The registry.
        host: String,
        /// What is wrong with it.
        fault: RedirectFault,
    },
    /// HTML where an image should be.
    #[error("`{0}` answered with a web page: it is no registry, or a login page stands before it")]
    WebPage(String),
    /// Success that carries an error.
    #[error("the registry `{host}` answered with an error instead of content: {reason}")]
    ErrorBody {
        /// The registry.
        host: String,
        /// What the registry said.
        reason: String,
    },
    /// Manifest, index or config is too large to be one.
    #[error("`{what}` is larger than {limit} bytes, the limit for manifests and configs")]
    DocumentTooLarge {
        /// The document.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Manifest or index cannot be read.
    #[error("the manifest of `{what}` cannot be used")]
    Manifest {
        /// The document.
        what: String,
        /// Why.
        #[source]
        source: slipway_oci::error::Manifest,
    },
    /// The bytes are not those that were promised.
    #[error("the registry `{host}` sent wrong content for `{digest}`")]
    Content {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: Box<Digest>,
        /// What is wrong.
        #[source]
        source: Mismatch,
    },
    /// A length that is not that of the descriptor, found before any byte.
    #[error(
        "the registry `{host}` offers {actual} bytes for `{digest}`, \
         but the manifest says {expected}"
    )]
    Length {
        /// The registry.
        host: String,
        /// What was asked for.
        digest: Box<Digest>,
        /// What the manifest says.
        expected: u64,
        /// What the registry offers.
        actual: u64,
    },
    /// A part of a blob came that was not asked for.
    #[error("the registry `{host}` sent another part of `{digest}` than was asked for")]
    Range {
        /// The registry.
        host: String,
        /// The blob.
        digest: Box<Digest>,
    },
    /// It is no image.
    #[error("`{what}` is an artifact of type `{media_type}`, not an image")]
    Artifact {
        /// The reference or digest.
        what: String,
        /// The artifact's type.
        media_type: MediaType,
    },
    /// It is not made for the platform.
    #[error("the image is not made for {wanted}: it is for {}", join(offered))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
    /// An index within an index.
    #[error("`{0}` is an index where an image should be: name the image by its own digest")]
    NestedIndex(Box<Digest>),
    /// A layer that must be fetched from elsewhere.
    #[error("layer `{0}` is not kept in the registry (a foreign layer), so it cannot be pulled")]
    ForeignLayer(Box<Digest>),
    /// A layer that is no file system.
    #[error("layer `{digest}` is of type `{media_type}`, which cannot be unpacked")]
    LayerType {
        /// The layer.
        digest: Box<Digest>,
        /// Its type.
        media_type: MediaType,
    },
    /// Manifest and config contradict each other or themselves.
    #[error("the image is inconsistent: {0}")]
    Inconsistent(String),
    /// The image config cannot be read.
    #[error("the image config `{digest}` cannot be used")]
    ImageConfig {
        /// The config.
        digest: Box<Digest>,
        /// Why.
        #[source]
        source: slipway_oci::error::ImageConfig,
    },
}

/// What is wrong with a redirect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RedirectFault {
    /// It leads back.
    #[error("in a circle")]
    Loop,
    /// It leads on and on.
    #[error("too often")]
    TooMany,
    /// It leads from HTTPS to plain HTTP.
    #[error("to an address without TLS")]
    Downgrade,
    /// It leads nowhere.
    #[error("to an address that cannot be read")]
    Malformed,
}

/// Whose doing an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The image does not exist.
    Missing,
    /// The credentials do not suffice.
    Rights,
    /// The image is of a kind that is not supported.
    Unsupported,
    /// The image is too large in some way.
    TooLarge,
    /// The registry does not send what it promises.
    Registry,
    /// Registry, network or token server fail; another time it may work.
    Unavailable,
}

impl Error {
    /// Whose doing it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::NotFound { .. } | Self::NoTag(_) => Fault::Missing,
            Self::Unauthorized { .. } | Self::Credential(CredentialError::Refused(_)) => {
                Fault::Rights
            }
            Self::Manifest { .. }
            | Self::Artifact { .. }
            | Self::Platform { .. }
            | Self::NestedIndex(_)
            | Self::ForeignLayer(_)
            | Self::LayerType { .. } => Fault::Unsupported,
            Self::DocumentTooLarge { .. } => Fault::TooLarge,
            Self::Token { .. }
            | Self::Refused { .. }
            | Self::Redirect { .. }
            | Self::WebPage(_)
            | Self::ErrorBody { .. }
            | Self::Content { .. }
            | Self::Length { .. }
            | Self::Range { .. }
            | Self::Inconsistent(_)
            | Self::ImageConfig { .. } => Fault::Registry,
            Self::Credential(CredentialError::Unavailable(_))
            | Self::RateLimited { .. }
            | Self::Failed { .. }
            | Self::Unreachable { .. } => Fault::Unavailable,
        }
    }

    /// Whether the same call may succeed later without anyone's doing.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self.fault(), Fault::Unavailable)
    }

    /// When to come again, if the registry said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failed { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// Whether another place that has the image may still serve it.
    pub(crate) const fn is_of_the_place(&self) -> bool {
        !matches!(
            self,
            Self::Platform { .. }
                | Self::Artifact { .. }
                | Self::ForeignLayer(_)
                | Self::LayerType { .. }
                | Self::NestedIndex(_)
                | Self::NoTag(_)
        )
    }
}

fn said(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn again(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(time) => format!("; it asks to come again in {} s", time.as_secs()),
        None => String::new(),
    }
}

fn join(platforms: &[Platform]) -> String {
    match platforms {
        [] => "no platform that it names".to_owned(),
        _ => platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
