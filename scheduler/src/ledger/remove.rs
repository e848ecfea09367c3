//! Removal: the snapshot first, then its job if nobody else stands on it.

use jiff::Timestamp;
use slipway_bus::bucket::{Batch, Expected};
use slipway_bus::topology::keys;
use slipway_domain::SnapshotId;
use slipway_domain::job::JobRecord;
use slipway_domain::snapshot::{SnapshotEvent, SnapshotRecord};

use super::{Error, Ledger};
use crate::view::Entry;

impl Ledger {
    /// Marks a snapshot for removal, and cancels its job unless other snapshots
    /// stand on it. The rest follows.
    ///
    /// # Errors
    /// The snapshot is gone, or nothing can be written. If only the job was not
    /// cancelled, the reconciler does it.
    pub async fn remove(&self, id: SnapshotId) -> Result<(), Error> {
        self.change_snapshot(id, "a removal", |snapshot| {
            let next = snapshot.apply(snapshot.job, SnapshotEvent::Remove, Timestamp::now());
            (next != *snapshot).then_some(next)
        })
        .await?;
        let job = self.view.records().snapshot(&id).map(|entry| entry.value.job);
        let job = job.ok_or(Error::SnapshotGone { id })?;
        self.cancel_unwanted(job).await?;
        self.announce(job);
        Ok(())
    }

    /// Forgets a removed snapshot for good: its place in the record of its name, and its job,
    /// if no other snapshot stands on it. Rare enough for a batch.
    ///
    /// # Errors
    /// Nothing can be written now. A conflict is none: the next look decides.
    pub async fn forget(&self, snapshot: &SnapshotRecord, revision: u64) -> Result<(), Error> {
        let failed = |source| Error::Write { what: "a removal", source };
        let mut batch = Batch::new();
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        batch.delete(key, Expected::Revision(revision));
        self.batch_leave_name(snapshot, &mut batch).await?;
        if !self.is_shared(snapshot) {
            batch.delete(keys::job(&snapshot.job), Expected::Any);
        }
        match self.records.commit(&batch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// Forgets a job on which nothing stands. A conflict is no error: the next look
    /// decides.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn forget_job(&self, job: &Entry<JobRecord>) -> Result<(), Error> {
        match self.records.delete(&keys::job(&job.value.id), job.revision).await {
            Err(error) if !error.is_conflict() => {
                Err(Error::Write { what: "a removal", source: error })
            }
            _ => Ok(()),
        }
    }

    /// Whether another snapshot stands on the same job.
    #[must_use]
    pub fn is_shared(&self, snapshot: &SnapshotRecord) -> bool {
        let records = self.view.records();
        records.followers(snapshot.job).any(|other| other.value.id != snapshot.id)
    }
}
