//! Credentials of source registries, as values.
//!
//! Invariant: a secret is never displayed, not even by a registry that repeats
//! it in an error message.

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use slipway_oci::RepositoryName;

/// What a registry is shown.
#[derive(Clone, Default)]
pub enum Credential {
    /// Nothing.
    #[default]
    Anonymous,
    /// Name and password, or name and personal access token.
    Basic {
        /// The name.
        username: String,
        /// The password.
        password: SecretString,
    },
    /// A refresh token: exchanged for access tokens by the OAuth2 form of the
    /// token dance.
    IdentityToken(SecretString),
    /// An access token that the registry takes as it is.
    Bearer(SecretString),
}

impl Credential {
    /// Whether there is nothing to show.
    #[must_use]
    pub const fn is_anonymous(&self) -> bool {
        matches!(self, Self::Anonymous)
    }

    /// The value of a `Basic` authorization header; none if this is no name
    /// and password.
    pub(crate) fn basic(&self) -> Option<SecretString> {
        let Self::Basic { username, password } = self else { return None };
        let pair = format!("{username}:{}", password.expose_secret());
        Some(BASE64_STANDARD.encode(pair).into())
    }

    /// Tells credentials apart without holding them.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let (kind, name, secret) = match self {
            Self::Anonymous => ("anonymous", "", None),
            Self::Basic { username, password } => ("basic", username.as_str(), Some(password)),
            Self::IdentityToken(token) => ("identity", "", Some(token)),
            Self::Bearer(token) => ("bearer", "", Some(token)),
        };
        let mut hasher = Sha256::new();
        for part in [kind, name, secret.map_or("", |secret| secret.expose_secret())] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// `text` without the secret in it, plain or as it is sent.
    pub(crate) fn redact(&self, text: &str) -> String {
        let secret = match self {
            Self::Anonymous => return text.to_owned(),
            Self::Basic { password, .. } => password,
            Self::IdentityToken(token) | Self::Bearer(token) => token,
        };
        let sent = self.basic();
        let forms = [Some(secret), sent.as_ref()].into_iter().flatten();
        forms
            .map(|form| form.expose_secret())
            .filter(|form| !form.is_empty())
            .fold(text.to_owned(), |text, form| text.replace(form, "***"))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(***)",
            Self::IdentityToken(_) => "IdentityToken(***)",
            Self::Bearer(_) => "Bearer(***)",
        })
    }
}

/// Credentials could not be had. Display is for the user and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// They are refused, and will be: a role that may not be assumed, say.
    #[error("{0}")]
    Refused(String),
    /// Whoever gives them cannot be reached now.
    #[error("credentials for the registry cannot be had now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Where credentials come from.
#[async_trait]
pub trait CredentialSource: Send + Sync {
    /// The credential for `repository` of the registry `host` (`docker.io` for
    /// Docker Hub, otherwise `host[:port]` in lowercase).
    ///
    /// # Errors
    /// See [`CredentialError`]. That there is none is [`Credential::Anonymous`].
    async fn credential(
        &self,
        host: &str,
        repository: &RepositoryName,
    ) -> Result<Credential, CredentialError>;
}

/// No credentials for any registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCredentials;

#[async_trait]
impl CredentialSource for NoCredentials {
    async fn credential(&self, _: &str, _: &RepositoryName) -> Result<Credential, CredentialError> {
        Ok(Credential::Anonymous)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.into(), password: password.to_owned().into() }
    }

    #[test]
    fn a_secret_is_not_shown_even_if_the_registry_repeats_it() {
        let credential = basic("me", "hunter2");
        assert_eq!(format!("{credential:?}"), "Basic(***)");
        let sent = BASE64_STANDARD.encode("me:hunter2");
        let text = format!("you sent hunter2 as Basic {sent}");
        assert_eq!(credential.redact(&text), "you sent *** as Basic ***");
        assert_eq!(basic("me", "").redact("hello"), "hello");
        assert_eq!(Credential::Bearer("t0k".to_owned().into()).redact("t0k!"), "***!");
    }

    #[test]
    fn credentials_that_differ_have_other_fingerprints() {
        let all = [
            Credential::Anonymous,
            basic("a", "bc"),
            basic("ab", "c"),
            Credential::IdentityToken("bc".to_owned().into()),
            Credential::Bearer("bc".to_owned().into()),
        ];
        let prints: std::collections::BTreeSet<_> =
            all.iter().map(Credential::fingerprint).collect();
        assert_eq!(prints.len(), all.len());
        assert_eq!(basic("a", "b").fingerprint(), basic("a", "b").fingerprint());
    }
}
