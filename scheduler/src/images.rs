//! Images in the regions' object stores, as far as the scheduler looks at them.

use std::collections::BTreeMap;

use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_domain::Region;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_oci::Digest;
use slipway_runtime::telemetry;

/// The object stores by region.
#[derive(Debug, Clone, Default)]
pub struct Images(BTreeMap<Region, Store>);

impl Images {
    /// Looks at images in `stores`.
    #[must_use]
    pub const fn new(stores: BTreeMap<Region, Store>) -> Self {
        Self(stores)
    }

    /// Whether the snapshot's organization has the image in the snapshot's region.
    /// If the store does not answer it is as good as gone.
    pub async fn holds(&self, snapshot: &SnapshotRecord, digest: &Digest) -> bool {
        let Some(store) = self.0.get(&snapshot.region) else { return false };
        let Some(link) = link(snapshot, digest) else { return false };
        let held = store.exists(&link).await;
        held.unwrap_or_else(|error| {
            let error = telemetry::chain(&error);
            tracing::warn!(snapshot.id = %snapshot.id, error, "an image could not be looked for");
            false
        })
    }
}

/// Where the manifest of a snapshot's image is linked.
#[must_use]
pub fn link(snapshot: &SnapshotRecord, digest: &Digest) -> Option<ObjectKey> {
    let organization = *snapshot.organization.as_uuid();
    let name = "snapshots".parse().ok()?;
    Some(ObjectKey::ManifestLink { repository: Repository { organization, name }, digest: *digest })
}
