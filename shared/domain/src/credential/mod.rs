//! Registry credentials: what is stored, what travels, and which one is for
//! which image.
//!
//! Invariant: the secret of a credential is nowhere but in [`Sealed`], which only
//! the workers of a region can open, and only for the host that it was given for.

mod message;
mod url;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_oci::ImageReference;

pub use message::{
    CredentialsRequest, CredentialsResponse, Tested, VaultAnswer, VaultRequest, VaultVerb,
};
pub use url::{RegistryUrl, UrlError};

use crate::ids::{CredentialId, OrganizationId};
use crate::region::Region;

/// Credentials that an organization may have.
pub const MAX_PER_ORGANIZATION: usize = 100;

/// A credential of an organization, under its id in the bucket
/// `registry_credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryCredentialRecord {
    /// Form of this record.
    pub version: u32,
    /// Its id.
    pub id: CredentialId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// The registry, or a part of it.
    pub url: RegistryUrl,
    /// User name; the ARN of the role for [`CredentialKind::EcrRole`].
    pub username: String,
    /// A remark of Daytona's contract; may be empty.
    pub project: String,
    /// How the secret is come by.
    pub kind: CredentialKind,
    /// The secret, for each region that had a key when it was sealed.
    pub sealed: BTreeMap<Region, Sealed>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its owner last changed it.
    pub updated_at: Timestamp,
}

impl RegistryCredentialRecord {
    /// What its secret is sealed for: this credential of this organization, and
    /// this host. A record that is changed to another host does not open.
    #[must_use]
    pub fn purpose(&self) -> String {
        purpose(self.organization, self.id, &self.url)
    }

    /// What workers of `region` get; nothing if the secret is not sealed to them.
    #[must_use]
    pub fn for_region(&self, region: &Region) -> Option<SealedCredential> {
        let sealed = match self.kind {
            CredentialKind::Basic => Some(self.sealed.get(region)?.clone()),
            CredentialKind::EcrRole => None,
        };
        Some(SealedCredential {
            id: self.id,
            organization: self.organization,
            name: self.name.clone(),
            url: self.url.clone(),
            username: self.username.clone(),
            kind: self.kind,
            sealed,
        })
    }
}

fn purpose(organization: OrganizationId, id: CredentialId, url: &RegistryUrl) -> String {
    format!("registry-credential/{organization}/{id}/{}", url.host())
}

/// How the secret of a credential is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// It is the sealed password or token.
    Basic,
    /// There is none: workers assume a role of Amazon's IAM.
    EcrRole,
}

impl CredentialKind {
    /// The kind that address, user name and password mean: a role without a
    /// password at a registry of ECR, or a password.
    #[must_use]
    pub fn of(url: &RegistryUrl, username: &str, has_password: bool) -> Option<Self> {
        match (has_password, is_role_arn(username) && url.ecr().is_some()) {
            (true, _) => Some(Self::Basic),
            (false, true) => Some(Self::EcrRole),
            (false, false) => None,
        }
    }
}

/// `arn:<partition>:iam::<account>:role/<path and name>`.
fn is_role_arn(text: &str) -> bool {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    next() == "arn"
        && next().starts_with("aws")
        && next() == "iam"
        && next().is_empty()
        && is_account(next())
        && next().strip_prefix("role/").is_some_and(|name| {
            !name.is_empty() && name.bytes().all(|c| c.is_ascii_graphic() && c != b'"')
        })
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit())
}

/// A credential on its way to a worker: nothing in it can be read but by the
/// workers of the region that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedCredential {
    /// Its id.
    pub id: CredentialId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub url: RegistryUrl,
    /// User name, or the ARN of a role.
    pub username: String,
    /// How the secret is come by.
    pub kind: CredentialKind,
    /// The secret; none for a role.
    pub sealed: Option<Sealed>,
}

impl SealedCredential {
    /// What its secret has to be sealed for.
    #[must_use]
    pub fn purpose(&self) -> String {
        purpose(self.organization, self.id, &self.url)
    }
}

/// The credential for an image among `credentials`: that of the longest URL which
/// the image lies under; of two with the same URL, the newer one.
#[must_use]
pub fn matching<'a>(
    credentials: impl IntoIterator<Item = &'a RegistryCredentialRecord>,
    image: &ImageReference,
) -> Option<&'a RegistryCredentialRecord> {
    let fitting = credentials.into_iter().filter(|credential| credential.url.covers(image));
    fitting.max_by_key(|credential| (credential.url.depth(), credential.id))
}

/// A sealed secret, as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Whose identities open it.
    pub recipients: BTreeSet<Recipient>,
    /// An age file, in base64.
    pub ciphertext: String,
}

/// A public key of age, `age1…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Recipient(String);

impl Recipient {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text was not a public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an age recipient")]
pub struct RecipientError(String);

impl FromStr for Recipient {
    type Err = RecipientError;

    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let is_bech32 = |rest: &str| {
            rest.len() == 58 && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        match text.strip_prefix("age1") {
            Some(rest) if is_bech32(rest) => Ok(Self(text.to_owned())),
            _ => Err(RecipientError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Recipient {
    type Error = RecipientError;

    fn try_from(text: String) -> Result<Self, RecipientError> {
        text.parse()
    }
}

impl From<Recipient> for String {
    fn from(recipient: Recipient) -> Self {
        recipient.0
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The public keys of a region's workers, remembered so that secrets can be
/// sealed while no worker is there. Under `region.<region>` in the bucket
/// `registry_credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionKeysRecord {
    /// Form of this record.
    pub version: u32,
    /// The region.
    pub region: Region,
    /// Secrets are sealed to all of these.
    pub recipients: BTreeSet<Recipient>,
    /// Keys that were replaced: they never come back, whoever announces them.
    pub retired: BTreeSet<Recipient>,
    /// When this last changed.
    pub updated_at: Timestamp,
}

impl RegionKeysRecord {
    /// A region without keys.
    #[must_use]
    pub fn new(region: Region, now: Timestamp) -> Self {
        let none = BTreeSet::new;
        Self { version: 1, region, recipients: none(), retired: none(), updated_at: now }
    }

    /// With a key that a worker announced; `None` if that changes nothing.
    #[must_use]
    pub fn with(&self, recipient: &Recipient, now: Timestamp) -> Option<Self> {
        if self.recipients.contains(recipient) || self.retired.contains(recipient) {
            return None;
        }
        let mut next = Self { updated_at: now, ..self.clone() };
        next.recipients.insert(recipient.clone());
        Some(next)
    }

    /// With `new` in the place of `old`.
    #[must_use]
    pub fn rotated(&self, old: &BTreeSet<Recipient>, new: Recipient, now: Timestamp) -> Self {
        let mut next = Self { updated_at: now, ..self.clone() };
        next.recipients.retain(|recipient| !old.contains(recipient));
        next.recipients.insert(new);
        next.retired.extend(old.iter().cloned());
        next
    }
}

#[cfg(test)]
mod tests;
