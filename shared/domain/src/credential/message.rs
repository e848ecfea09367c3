//! What scheduler and workers say to each other about credentials. Nothing in
//! these messages can be read without a region's identity.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use slipway_oci::ImageReference;

use super::{Recipient, Sealed, SealedCredential};
use crate::ids::JobId;
use crate::region::Region;

/// Request of the NATS service `slipway.credentials`: the credentials that a job
/// needs for these images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsRequest {
    /// Form of the message.
    pub version: u32,
    /// The job, which has to be under way in the region.
    pub job: JobId,
    /// Where the worker is.
    pub region: Region,
    /// Images as the job names them.
    pub images: Vec<ImageReference>,
}

/// Answer of the NATS service `slipway.credentials`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsResponse {
    /// For each image of the request, in its order: its credential, if the
    /// organization has one for it.
    pub credentials: Vec<Option<SealedCredential>>,
}

/// Request of the NATS service of one worker, `slipway.vault.<region>.<worker>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRequest {
    /// Form of the message.
    pub version: u32,
    /// What to do.
    pub verb: VaultVerb,
}

/// What a worker can do with its identities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum VaultVerb {
    /// Try a credential at its registry.
    Test {
        /// The credential.
        credential: SealedCredential,
    },
    /// Seal a secret to other keys.
    Reseal {
        /// The secret.
        sealed: Sealed,
        /// What it was sealed for.
        purpose: String,
        /// Who shall open it.
        recipients: BTreeSet<Recipient>,
    },
    /// Make a new identity. The others stay.
    NewIdentity,
    /// Forget the identities of these keys.
    Forget {
        /// Public keys that are not used any more.
        retired: BTreeSet<Recipient>,
    },
}

/// Answer of a worker's service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum VaultAnswer {
    /// To [`VaultVerb::Test`].
    Tested(Tested),
    /// To [`VaultVerb::Reseal`].
    Resealed {
        /// The same secret for others.
        sealed: Sealed,
    },
    /// To [`VaultVerb::NewIdentity`].
    Identity {
        /// The new key.
        new: Recipient,
        /// The keys that it replaces.
        old: BTreeSet<Recipient>,
    },
    /// To [`VaultVerb::Forget`].
    Forgotten,
}

/// What came of trying a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// Whether the registry takes it.
    pub works: bool,
    /// For people; holds no secret.
    pub message: String,
}
