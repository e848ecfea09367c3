//! Key pairs: an identity opens, its recipient is what others seal to.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use slipway_domain::credential::Recipient;

use crate::Error;

pub(crate) fn parsed(recipient: &Recipient) -> Result<age::x25519::Recipient, Error> {
    recipient.as_str().parse().map_err(|_| Error::Recipient(recipient.to_string()))
}

/// A private key. It is shown by nothing.
#[derive(Clone)]
pub struct Identity(age::x25519::Identity);

impl Identity {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(age::x25519::Identity::generate())
    }

    /// Its public key.
    ///
    /// # Panics
    /// Never: what age prints is a recipient.
    #[must_use]
    pub fn recipient(&self) -> Recipient {
        self.0.to_public().to_string().parse().expect("age prints recipients")
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }

    pub(crate) fn text(&self) -> SecretString {
        SecretString::from(self.0.to_string().expose_secret().to_owned())
    }

    pub(crate) fn key(&self) -> &dyn age::Identity {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.recipient())
    }
}
