//! How AWS is reached and as whom: what stands in the worker's file, and the
//! same, checked.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

pub use slipway_aws::Identity;

/// The table `ecr` of the worker's TOML file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Id of the access key with which roles are assumed.
    pub access_key_id: String,
    /// File with its secret.
    pub secret_access_key_file: PathBuf,
    /// What session names begin with: `<prefix>-<organization>-pull`. Default:
    /// `daytona`.
    pub session_prefix: Option<String>,
    /// STS, where it is not that of the registry's AWS region.
    pub sts_endpoint: Option<Url>,
    /// ECR, where it is not that of the registry's AWS region.
    pub ecr_endpoint: Option<Url>,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// With which roles are assumed; without one, none can be.
    pub identity: Option<Identity>,
    /// What session names begin with.
    pub session_prefix: String,
    /// STS, where it is not that of the registry's AWS region.
    pub sts_endpoint: Option<Url>,
    /// ECR, where it is not that of the registry's AWS region.
    pub ecr_endpoint: Option<Url>,
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] slipway_aws::SecretError),
    /// Session names would not be ones.
    #[error("`session_prefix` is `{0}`: up to 20 letters, digits and any of `_=,.@-` are allowed")]
    SessionPrefix(String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] slipway_aws::TlsError),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            identity: None,
            session_prefix: "daytona".to_owned(),
            sts_endpoint: None,
            ecr_endpoint: None,
        }
    }
}

impl TryFrom<File> for Config {
    type Error = Error;

    fn try_from(file: File) -> Result<Self, Error> {
        let identity = Identity::from_file(file.access_key_id, file.secret_access_key_file)?;
        let default = Self::default();
        let session_prefix = file.session_prefix.unwrap_or(default.session_prefix);
        // A session name has 64 characters at most, and 42 of them are taken.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
        if !(1..=20).contains(&session_prefix.len()) || !session_prefix.chars().all(is_allowed) {
            return Err(Error::SessionPrefix(session_prefix));
        }
        let (sts_endpoint, ecr_endpoint) = (file.sts_endpoint, file.ecr_endpoint);
        Ok(Self { identity: Some(identity), session_prefix, sts_endpoint, ecr_endpoint })
    }
}
