//! General snapshots: those of one organization that every organization may use,
//! among them the default snapshots of the configuration.
//!
//! Owns their images' place in the registries, and that the default snapshots
//! exist. Everybody may read the repository [`GENERAL_REPOSITORY`] of any organization;
//! the image of a general snapshot is linked there. A reconciler: idempotent, and
//! what is left undone is found again. Invariant: nothing but images of general
//! snapshots is linked in such a repository.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_api::types::CreateSnapshot;
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_domain::organization::OrganizationRecord;
use slipway_domain::organization::{GENERAL_REPOSITORY, SNAPSHOTS_REPOSITORY};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{OrganizationId, Region, SnapshotId};
use slipway_oci::{Digest, Document, MediaType};
use slipway_runtime::telemetry;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::api::{ApiError, App};
use crate::config::DefaultSnapshot;
use crate::images::{MAX_DOCUMENT, repository};
use crate::submit;
use crate::view::View;

/// After this time a default snapshot that failed is made again.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How many snapshots the owner of the default ones may have.
const MANY: u32 = 10_000;

/// Who owns the default snapshots.
#[must_use]
pub fn owner() -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(0x5110_1a75_0000_8000_8000_0000_0000_0001))
}

/// Why an image is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object store cannot be used.
    #[error("cannot link the image of a general snapshot")]
    Store(#[from] slipway_blobstore::Error),
    /// Its manifest is none.
    #[error("cannot read the manifest `{digest}`")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: slipway_oci::error::Manifest,
    },
}

/// Keeps the images of general snapshots where everybody may read them.
#[derive(Debug)]
pub struct General {
    stores: BTreeMap<Region, Store>,
    view: Arc<View>,
    /// What this process linked already.
    linked: Mutex<HashSet<(SnapshotId, Digest)>>,
}

impl General {
    /// One over the regions' stores.
    #[must_use]
    pub fn new(stores: BTreeMap<Region, Store>, view: Arc<View>) -> Self {
        Self { stores, view, linked: Mutex::default() }
    }

    /// Links the image of a snapshot if it is general, and removes the link if it
    /// is not any more.
    ///
    /// # Errors
    /// The object store cannot be used; the next look does it.
    pub async fn look(&self, record: &SnapshotRecord) -> Result<(), Error> {
        let Some(image) = record.state.image() else { return Ok(()) };
        let Some(store) = self.stores.get(&record.region) else { return Ok(()) };
        let (organization, digest) = (record.organization, image.digest);
        if !record.general {
            self.lock().remove(&(record.id, digest));
            if !self.is_used_by_another(record, &digest) {
                let repository = repository(organization, GENERAL_REPOSITORY);
                store.delete(&ObjectKey::ManifestLink { repository, digest }).await?;
            }
            return Ok(());
        }
        if self.lock().contains(&(record.id, digest)) {
            return Ok(());
        }
        link(store, organization, digest).await?;
        self.lock().insert((record.id, digest));
        Ok(())
    }

    fn is_used_by_another(&self, record: &SnapshotRecord, digest: &Digest) -> bool {
        let records = self.view.records();
        let mut others = records.general().map(|entry| &entry.value);
        others.any(|other| {
            other.id != record.id
                && other.organization == record.organization
                && other.region == record.region
                && other.state.image().is_some_and(|image| image.digest == *digest)
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<(SnapshotId, Digest)>> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn look_over(&self) {
        let general: Vec<Arc<SnapshotRecord>> =
            self.view.records().general().map(|entry| entry.value.clone()).collect();
        for record in general {
            if let Err(error) = self.look(&record).await {
                let error = telemetry::chain(&error);
                tracing::warn!(snapshot.id = %record.id, error, "a general image is not linked");
            }
        }
    }
}

/// Copies the links of a manifest and of all that it needs: the manifest's last,
/// so that whoever can read it can read the rest.
async fn link(store: &Store, organization: OrganizationId, root: Digest) -> Result<(), Error> {
    let (from, to) = (
        repository(organization, SNAPSHOTS_REPOSITORY),
        repository(organization, GENERAL_REPOSITORY),
    );
    let mut manifests = vec![root];
    let mut next = 0;
    while let Some(digest) = manifests.get(next).copied() {
        next += 1;
        let bytes = store.get_bytes(&ObjectKey::Blob(digest), MAX_DOCUMENT).await?;
        let parsed = Document::parse_untyped(&bytes);
        let (_, document) = parsed.map_err(|source| Error::Manifest { digest, source })?;
        for part in document.required() {
            if is_manifest(&part.media_type) {
                manifests.push(part.digest);
                continue;
            }
            let key = |repository: &Repository| ObjectKey::BlobLink {
                repository: repository.clone(),
                digest: part.digest,
            };
            copy(store, &key(&from), &key(&to)).await?;
        }
    }
    for digest in manifests.into_iter().rev() {
        let key = |repository: &Repository| ObjectKey::ManifestLink {
            repository: repository.clone(),
            digest,
        };
        copy(store, &key(&from), &key(&to)).await?;
    }
    Ok(())
}

fn is_manifest(media_type: &MediaType) -> bool {
    matches!(
        media_type,
        MediaType::OciManifest
            | MediaType::OciIndex
            | MediaType::DockerManifest
            | MediaType::DockerIndex
    )
}

async fn copy(store: &Store, from: &ObjectKey, to: &ObjectKey) -> Result<(), Error> {
    let link = store.get_bytes(from, MAX_DOCUMENT).await?;
    Ok(store.put_bytes(to, link).await?)
}

/// Stores the organization that owns the default snapshots, if there are any.
///
/// # Errors
/// NATS cannot be written.
pub async fn ensure_owner(
    accounts: &Accounts,
    defaults: &[DefaultSnapshot],
) -> Result<(), crate::accounts::Error> {
    if defaults.is_empty() {
        return Ok(());
    }
    let mut record = OrganizationRecord::new(owner(), "slipway".to_owned(), Timestamp::now());
    record.limits.snapshots = Some(MANY);
    accounts.ensure(record).await
}

/// Looks over default and general snapshots every `interval` until shutdown.
pub async fn run(app: App, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let look = async {
        loop {
            ticks.tick().await;
            for wanted in &app.config.default_snapshots {
                if let Err(error) = look_at(&app, wanted).await {
                    let (name, error) = (&wanted.name, &error.message);
                    tracing::warn!(name, error, "a default snapshot cannot be made");
                }
            }
            app.general.look_over().await;
        }
    };
    // Every step is idempotent, so it may end anywhere.
    Box::pin(shutdown.run_until_cancelled(look)).await;
}

/// Makes a default snapshot if there is none, makes it general, and removes one
/// that failed some time ago: then the next look makes it anew.
async fn look_at(app: &App, wanted: &DefaultSnapshot) -> Result<(), ApiError> {
    let known = app.view.records().find(&owner(), &wanted.name).map(|entry| entry.value);
    let id = match known {
        Some(record) => match &record.state {
            SnapshotState::Error { .. } | SnapshotState::BuildFailed { .. } => {
                if Timestamp::now().duration_since(record.updated_at) > AGAIN {
                    app.ledger.remove(record.id).await?;
                }
                return Ok(());
            }
            SnapshotState::Removing => return Ok(()),
            _ if record.general => return Ok(()),
            _ => record.id,
        },
        None => {
            let request = CreateSnapshot {
                name: wanted.name.clone(),
                image_name: Some(wanted.image.clone()),
                cpu: wanted.cpu,
                gpu: wanted.gpu,
                memory: wanted.memory,
                disk: wanted.disk,
                region_id: wanted.region.as_ref().map(ToString::to_string),
                ..CreateSnapshot::default()
            };
            submit::submit(app, owner(), submit::new_id(), request).await?.id
        }
    };
    app.ledger.set_general(id, true).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn put(store: &Store, bytes: &str) -> Digest {
        let digest = Digest::sha256(bytes);
        store.put_bytes(&ObjectKey::Blob(digest), bytes.to_owned()).await.unwrap();
        digest
    }

    #[tokio::test]
    async fn an_image_is_linked_with_all_that_it_needs() {
        let store = Store::in_memory();
        let organization = owner();
        let from = repository(organization, SNAPSHOTS_REPOSITORY);
        let (config, layer) = (put(&store, "{}").await, put(&store, "layer").await);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":2}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{layer}","size":5}}]}}"#
        );
        let root = put(&store, &manifest).await;
        for digest in [config, layer] {
            let key = ObjectKey::BlobLink { repository: from.clone(), digest };
            store.put_bytes(&key, "link").await.unwrap();
        }
        let key = ObjectKey::ManifestLink { repository: from, digest: root };
        store.put_bytes(&key, "link").await.unwrap();
        link(&store, organization, root).await.unwrap();
        link(&store, organization, root).await.unwrap();
        let to = repository(organization, GENERAL_REPOSITORY);
        for digest in [config, layer] {
            let key = ObjectKey::BlobLink { repository: to.clone(), digest };
            assert!(store.exists(&key).await.unwrap(), "{digest}");
        }
        let key = ObjectKey::ManifestLink { repository: to, digest: root };
        assert!(store.exists(&key).await.unwrap());
    }
}
