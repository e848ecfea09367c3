//! Removing for good: snapshots, and jobs whose work was done again by later ones.

use slipway_blobstore::{ObjectKey, Store};
use slipway_domain::JobId;
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::snapshot::SnapshotRecord;

use super::{Error, Settler};
use crate::images;
use crate::view::Entry;

/// Largest link in bytes.
const LINK_SIZE: u64 = 64 << 10;

impl Settler {
    /// Removes a snapshot for good: its manifest link unless another snapshot
    /// has the same image, its log, its records. Blobs are left to the sweep of
    /// the object store, since others may share them.
    pub(super) async fn remove(
        &self,
        record: &JobRecord,
        snapshot: &Entry<SnapshotRecord>,
    ) -> Result<(), Error> {
        let others_stay = self.ledger.leave(&snapshot.value).await.map_err(Error::Ledger)?;
        if let JobState::Succeeded { image, .. } = &record.state
            && let Some(store) = self.stores.get(&record.region)
            && !others_stay
            && !self.shared(&snapshot.value, &image.digest)
        {
            let link = images::link(&snapshot.value, &image.digest);
            self.unlink(store, &link, &snapshot.value, &image.digest)
                .await
                .map_err(Error::Unlink)?;
        }
        if !self.ledger.is_shared(&snapshot.value) {
            self.logs.delete(record).await.map_err(Error::Log)?;
        }
        let forgotten = self.ledger.forget(&snapshot.value, snapshot.revision).await;
        forgotten.map_err(Error::Ledger)?;
        tracing::info!(snapshot.id = %snapshot.value.id, job.id = %record.id, "snapshot removed");
        Ok(())
    }

    /// Whether a job is of the past: its snapshot got its image from a later one, and
    /// no other stands on it, as far as is known here.
    pub(super) fn is_past(&self, id: JobId) -> bool {
        let records = self.view.records();
        records.job(&id).is_some_and(|job| {
            let snapshot = records.snapshot(&job.value.snapshot);
            job.value.state.is_over()
                && snapshot.is_some_and(|snapshot| snapshot.value.job != id)
                && records.followers(id).next().is_none()
        })
    }

    /// Forgets a job of the past and its log, unless somebody has joined it.
    pub(super) async fn forget_past(&self, id: JobId) -> Result<(), Error> {
        if !self.is_past(id) || !self.ledger.close_work(id).await.map_err(Error::Ledger)? {
            return Ok(());
        }
        let Some(job) = self.view.records().job(&id) else { return Ok(()) };
        self.logs.delete(&job.value).await.map_err(Error::Log)?;
        self.ledger.forget_job(&job).await.map_err(Error::Ledger)?;
        tracing::info!(job.id = %id, "a job of the past is forgotten");
        Ok(())
    }

    /// Deletes a manifest's link, unless a snapshot with the same image came into
    /// being meanwhile.
    async fn unlink(
        &self,
        store: &Store,
        link: &ObjectKey,
        snapshot: &SnapshotRecord,
        digest: &slipway_oci::Digest,
    ) -> Result<(), slipway_blobstore::Error> {
        let bytes = match store.get_bytes(link, LINK_SIZE).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        store.delete(link).await?;
        if self.shared(snapshot, digest) {
            store.put_bytes(link, bytes).await?;
        }
        Ok(())
    }

    /// Whether another snapshot of the organization stands on the same image, or
    /// may in a moment: a build that runs may have pushed it already. Then the
    /// link stays, for the sweep of the object store.
    fn shared(&self, snapshot: &SnapshotRecord, digest: &slipway_oci::Digest) -> bool {
        let records = self.view.records();
        let is_other = |other: &SnapshotRecord| {
            other.id != snapshot.id
                && other.organization == snapshot.organization
                && other.region == snapshot.region
        };
        records.waiting().any(|other| is_other(&other.value))
            || records.of_image(digest).any(|other| is_other(&other.value))
    }
}
