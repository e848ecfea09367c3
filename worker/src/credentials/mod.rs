//! Registry credentials on the side of a worker: asked for, opened, used.
//!
//! Owns the worker's identities. Refuses to keep what it opens: a secret lives
//! as long as the job that needs it. Invariant: a secret leaves this process
//! towards its registry, through BuildKit or [`slipway_source`], and to nobody
//! else; no message, log line or error holds it.

mod service;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;
use slipway_bus::{Bus, topology};
use slipway_domain::credential::{
    CredentialKind, CredentialsRequest, CredentialsResponse, Recipient, SealedCredential,
};
use slipway_domain::message::VERSION;
use slipway_domain::{CredentialId, JobId, Region};
use slipway_ecr::{Ecr, Wanted};
use slipway_oci::{ImageReference, RepositoryName};
use slipway_seal::KeyRing;
use slipway_source::{Credential, CredentialError, CredentialSource};

use crate::config::Config;

pub use service::serve;

/// How long one answer of the scheduler may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often it is asked, and the pause after the first time; it grows.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(300);
/// The scheduler has not heard of the job, or of the key, yet.
const NOT_YET: u16 = 409;

/// Where the credentials of a job's images come from.
#[async_trait]
pub trait ImageCredentials: std::fmt::Debug + Send + Sync {
    /// The credentials that a job may use for its images, in their order.
    ///
    /// # Errors
    /// They cannot be had, or not be opened.
    async fn for_images(
        &self,
        job: JobId,
        images: &[ImageReference],
    ) -> Result<Vec<Option<Opened>>, CredentialError>;
}

/// What opens the registry credentials of a region.
#[derive(Debug)]
pub struct Vault {
    bus: Bus,
    region: Region,
    ring: Option<KeyRing>,
    ecr: Ecr,
}

/// A credential that was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Which one it is.
    pub id: CredentialId,
    /// What its owner calls it.
    pub name: String,
    /// The repositories of its host that it is for; empty for all.
    pub path: String,
    /// What to show to its host.
    pub credential: Credential,
}

impl Vault {
    /// Reads the worker's identities, and makes a first one if there is none.
    ///
    /// # Errors
    /// The identity file cannot be used.
    pub fn open(config: &Config, bus: &Bus, ecr: Ecr) -> Result<Self, slipway_seal::Error> {
        let ring = config.identity_file.as_deref().map(KeyRing::open).transpose()?;
        Ok(Self { bus: bus.clone(), region: config.region.clone(), ring, ecr })
    }

    /// The key to which secrets for this worker are to be sealed.
    pub fn recipient(&self) -> Option<Recipient> {
        let recipient = self.ring.as_ref()?.recipient();
        let said = recipient.inspect_err(|error| {
            let error = slipway_runtime::telemetry::chain(error);
            tracing::warn!(error, "the identities cannot be read");
        });
        said.ok()
    }

    async fn ask(
        &self,
        request: &CredentialsRequest,
    ) -> Result<CredentialsResponse, CredentialError> {
        let mut tried = 0;
        loop {
            let answer = self.bus.call(topology::CREDENTIALS, request, DEADLINE).await;
            let error: slipway_bus::services::Error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tried += 1;
            let not_yet = matches!(
                &error,
                slipway_bus::services::Error::Fault { fault, .. } if fault.code == NOT_YET
            );
            if tried == TRIES || !(not_yet || error.is_retryable()) {
                return Err(CredentialError::Unavailable(Box::new(error)));
            }
            tokio::time::sleep(PAUSE * 2_u32.pow(tried - 1)).await;
        }
    }

    async fn reveal(&self, sealed: &SealedCredential) -> Result<Opened, CredentialError> {
        let credential = match (sealed.kind, &sealed.sealed) {
            (CredentialKind::Basic, Some(secret)) => {
                let opened = self.identities().and_then(|identities| {
                    slipway_seal::open(secret, &sealed.purpose(), &identities)
                });
                let password =
                    opened.map_err(|error| CredentialError::Unavailable(Box::new(error)))?;
                by_name(&sealed.username, password)
            }
            (CredentialKind::Basic, None) => {
                let error = "the registry credential came without its secret".into();
                return Err(CredentialError::Unavailable(error));
            }
            (CredentialKind::EcrRole, _) => self.assume(sealed).await?,
        };
        let (name, path) = (sealed.name.clone(), sealed.url.path().to_owned());
        Ok(Opened { id: sealed.id, name, path, credential })
    }

    /// The password of a registry of Amazon ECR, by the role of its owner.
    async fn assume(&self, sealed: &SealedCredential) -> Result<Credential, CredentialError> {
        let Some((_, region)) = sealed.url.ecr() else {
            let message = format!("`{}` is no registry of Amazon ECR", sealed.url);
            return Err(CredentialError::Refused(message));
        };
        let wanted = Wanted {
            organization: sealed.organization.to_string(),
            role: sealed.username.clone(),
            region: region.to_owned(),
        };
        match self.ecr.login(wanted).await {
            Ok(login) => {
                Ok(Credential::Basic { username: login.username, password: login.password })
            }
            Err(error @ slipway_ecr::Error::Failed { .. }) => {
                Err(CredentialError::Unavailable(Box::new(error)))
            }
            Err(error) => Err(CredentialError::Refused(error.to_string())),
        }
    }

    fn identities(&self) -> Result<Vec<slipway_seal::Identity>, slipway_seal::Error> {
        self.ring.as_ref().ok_or(slipway_seal::Error::NoIdentity)?.identities()
    }
}

/// What a name with a secret is to a registry. The name `<token>` says, as in
/// Docker's own configuration, that the secret is a refresh token.
fn by_name(username: &str, secret: SecretString) -> Credential {
    match username {
        "<token>" => Credential::IdentityToken(secret),
        _ => Credential::Basic { username: username.to_owned(), password: secret },
    }
}

#[async_trait]
impl ImageCredentials for Vault {
    async fn for_images(
        &self,
        job: JobId,
        images: &[ImageReference],
    ) -> Result<Vec<Option<Opened>>, CredentialError> {
        if images.is_empty() {
            return Ok(vec![]);
        }
        let request = CredentialsRequest {
            version: VERSION,
            job,
            region: self.region.clone(),
            images: images.to_vec(),
        };
        let found = self.ask(&request).await?.credentials;
        if found.len() != images.len() {
            let error = "the scheduler answered for other images".into();
            return Err(CredentialError::Unavailable(error));
        }
        let mut opened = Vec::with_capacity(found.len());
        for (credential, image) in found.into_iter().zip(images) {
            // The scheduler has matched them; the secret is the organization's,
            // so that this is looked at once more.
            let credential = credential.filter(|credential| credential.url.covers(image));
            opened.push(match credential {
                Some(credential) => Some(self.reveal(&credential).await?),
                None => None,
            });
        }
        Ok(opened)
    }
}

/// The credentials of one job, for pulls.
#[derive(Debug, Clone)]
pub struct JobCredentials {
    vault: Arc<dyn ImageCredentials>,
    job: JobId,
}

impl JobCredentials {
    /// Those that `job` may use.
    #[must_use]
    pub fn new(vault: Arc<dyn ImageCredentials>, job: JobId) -> Self {
        Self { vault, job }
    }
}

#[async_trait]
impl CredentialSource for JobCredentials {
    async fn credential(
        &self,
        host: &str,
        repository: &RepositoryName,
    ) -> Result<Credential, CredentialError> {
        let image: ImageReference = format!("{host}/{repository}")
            .parse()
            .map_err(|error| CredentialError::Unavailable(Box::new(error)))?;
        let found = self.vault.for_images(self.job, &[image]).await?;
        let found = found.into_iter().flatten().next();
        Ok(found.map(|opened| opened.credential).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_named_token_is_a_refresh_token() {
        let named = |name| by_name(name, "secret".to_owned().into());
        assert!(matches!(named("<token>"), Credential::IdentityToken(_)));
        for name in ["", "token", "AWS"] {
            assert!(matches!(named(name), Credential::Basic { username, .. } if username == name));
        }
    }
}
