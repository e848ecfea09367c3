//! Images in the regions' object stores, as far as the scheduler looks at them.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use slipway_blobstore::{Error, ObjectKey, Repository, Store};
use slipway_domain::organization::SNAPSHOTS_REPOSITORY;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{OrganizationId, Region};
use slipway_oci::{Descriptor, Digest, Document};

/// Largest manifest in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;
/// Blobs that are looked up at once.
const LOOK_UPS: usize = 16;

/// The object stores by region.
#[derive(Debug, Clone, Default)]
pub struct Images(BTreeMap<Region, Store>);

impl Images {
    /// Looks at images in `stores`.
    #[must_use]
    pub const fn new(stores: BTreeMap<Region, Store>) -> Self {
        Self(stores)
    }

    /// Whether the snapshot's organization has the whole image in the snapshot's
    /// region: the manifest, and everything that it needs, linked and with its
    /// bytes.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn holds(&self, snapshot: &SnapshotRecord, digest: &Digest) -> Result<bool, Error> {
        let Some(store) = self.0.get(&snapshot.region) else { return Ok(false) };
        let repository = repository(snapshot.organization, SNAPSHOTS_REPOSITORY);
        if !store.exists(&link(snapshot, digest)).await? {
            return Ok(false);
        }
        let bytes = match store.get_bytes(&ObjectKey::Blob(*digest), MAX_DOCUMENT).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok((_, document)) = Document::parse_untyped(&bytes) else { return Ok(false) };
        let needed: Vec<_> = document.required().cloned().collect();
        let look_up = |blob: Descriptor| {
            let link = ObjectKey::BlobLink { repository: repository.clone(), digest: blob.digest };
            async move {
                let is_linked = store.exists(&link).await?;
                Ok::<_, Error>(is_linked && store.exists(&ObjectKey::Blob(blob.digest)).await?)
            }
        };
        let found = stream::iter(needed).map(look_up).buffer_unordered(LOOK_UPS);
        found.try_all(|found| async move { found }).await
    }
}

/// Where the manifest of a snapshot's image is linked.
#[must_use]
pub fn link(snapshot: &SnapshotRecord, digest: &Digest) -> ObjectKey {
    let repository = repository(snapshot.organization, SNAPSHOTS_REPOSITORY);
    ObjectKey::ManifestLink { repository, digest: *digest }
}

/// One of an organization's repositories that Slipway itself fills.
#[must_use]
pub fn repository(organization: OrganizationId, name: &'static str) -> Repository {
    let name = name.parse().expect("a constant that is a repository name");
    Repository { organization: *organization.as_uuid(), name }
}

/// Whether `reference` names the image of a snapshot, whatever the region's registry
/// is called and whether it can be asked now.
#[must_use]
pub fn is_of(reference: &str, snapshot: &SnapshotRecord) -> bool {
    let Some(image) = snapshot.state.image() else { return false };
    let path = reference.split_once('/').map_or(reference, |(_, path)| path);
    let in_own = path.strip_prefix(&snapshot.organization.to_string());
    in_own
        .is_some_and(|rest| rest.starts_with('/') && rest.ends_with(&format!("@{}", image.digest)))
}
