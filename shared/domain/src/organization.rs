//! Organizations and their API keys, as they are stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::OrganizationId;

/// A tenant, under its id in the bucket `organizations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationRecord {
    /// Form of this record.
    pub version: u32,
    /// Its id.
    pub id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key, under [`key_hash`] of its value in the bucket `api_keys`. The
/// value itself is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// Form of this record.
    pub version: u32,
    /// Whose key it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What it may do beyond reading, for example `write:snapshots`.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
}

impl ApiKeyRecord {
    /// Whether the key works at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// What a key may do. Reading needs no permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// Create snapshots and upload contexts.
    #[serde(rename = "write:snapshots")]
    WriteSnapshots,
    /// Delete snapshots.
    #[serde(rename = "delete:snapshots")]
    DeleteSnapshots,
    /// Create and change registry credentials.
    #[serde(rename = "write:registries")]
    WriteRegistries,
    /// Delete registry credentials.
    #[serde(rename = "delete:registries")]
    DeleteRegistries,
    /// Change regions: replace their keys.
    #[serde(rename = "write:regions")]
    WriteRegions,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 5] = [
        Self::WriteSnapshots,
        Self::DeleteSnapshots,
        Self::WriteRegistries,
        Self::DeleteRegistries,
        Self::WriteRegions,
    ];

    /// Its name, as keys are given it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WriteSnapshots => "write:snapshots",
            Self::DeleteSnapshots => "delete:snapshots",
            Self::WriteRegistries => "write:registries",
            Self::DeleteRegistries => "delete:registries",
            Self::WriteRegions => "write:regions",
        }
    }
}

/// The key under which an API key is stored: the SHA-256 of its value in hex.
/// Keys are 256 random bits, so a plain hash cannot be guessed back.
#[must_use]
pub fn key_hash(value: &str) -> String {
    hex::encode(Sha256::digest(value))
}
