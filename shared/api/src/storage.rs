//! Keys for uploads of build contexts.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/object-storage/push-access`: how to upload build contexts for an
/// hour, with any client of S3.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageAccess {
    /// Name of the key.
    pub access_key: String,
    /// What requests are signed with.
    pub secret: String,
    /// What requests show beside their signature.
    pub session_token: String,
    /// Address of the storage, with its scheme.
    pub storage_url: String,
    /// What every object's key begins with, and a slash.
    pub organization_id: String,
    /// The bucket.
    pub bucket: String,
    /// The region that requests are signed for.
    pub region: String,
}

impl std::fmt::Debug for StorageAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageAccess")
            .field("storage_url", &self.storage_url)
            .field("organization_id", &self.organization_id)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}
