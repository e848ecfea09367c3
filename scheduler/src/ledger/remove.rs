//! Removal: the snapshot first, then its job if nobody else stands on it.

use jiff::Timestamp;
use slipway_bus::topology::keys;
use slipway_domain::SnapshotId;
use slipway_domain::job::JobRecord;
use slipway_domain::snapshot::{SnapshotEvent, SnapshotRecord};

use super::{Error, Ledger};
use crate::view::{Entry, name_of};

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

    /// Forgets a removed snapshot for good: its job, if no other snapshot stands on it,
    /// its place in the record of its name, and itself. It goes last: while it is there,
    /// whoever looks finishes what broke off.
    ///
    /// # Errors
    /// Nothing can be written now. A conflict is none: the next look decides.
    pub async fn forget(&self, snapshot: &SnapshotRecord, revision: u64) -> Result<(), Error> {
        let job = self.view.records().job(&snapshot.job).map(|entry| entry.revision);
        if let Some(job_revision) = job.filter(|_| !self.is_shared(snapshot))
            && !self.gone(&keys::job(&snapshot.job), job_revision).await?
        {
            return Ok(());
        }
        self.leave_name(&name_of(snapshot), snapshot.id).await?;
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        self.gone(&key, revision).await.map(|_| ())
    }

    /// Deletes a record; says whether it was as expected.
    async fn gone(&self, key: &str, revision: u64) -> Result<bool, Error> {
        match self.records.delete(key, revision).await {
            Ok(()) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(source) => Err(Error::Write { what: "a removal", source }),
        }
    }

    /// Forgets a job on which nothing stands. A conflict is no error: the next look
    /// decides.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn forget_job(&self, job: &Entry<JobRecord>) -> Result<(), Error> {
        self.gone(&keys::job(&job.value.id), job.revision).await.map(|_| ())
    }

    /// Whether another snapshot stands on the same job.
    #[must_use]
    pub fn is_shared(&self, snapshot: &SnapshotRecord) -> bool {
        let records = self.view.records();
        records.followers(snapshot.job).any(|other| other.value.id != snapshot.id)
    }
}
