//! What is left of a creation that broke off between two of its writes.
//!
//! A name whose snapshot never came is given up; a snapshot whose job never came
//! gets it, since its owner may have been told nothing and sees it in the list;
//! a job whose snapshot never came is dropped, since nobody knows of it. The
//! leader has the last word on what is missing. Invariant: only what stood alone
//! for [`GRACE`] is touched, and a creation that takes half as long checks
//! whether its name is still its own.

use std::time::Duration;

use slipway_bus::bucket;
use slipway_bus::topology::keys;
use slipway_domain::job::{JobRecord, LogState, NewJob};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{JobId, SnapshotId};

use super::{Error, Ledger};
use crate::view::{Debris, Value};

/// How long a record may stand alone before it counts as left behind.
pub const GRACE: Duration = Duration::from_secs(30);

impl Ledger {
    /// Finishes or sweeps one thing that was left behind.
    ///
    /// # Errors
    /// Nothing can be read or written now.
    pub async fn clear(&self, debris: &Debris) -> Result<(), Error> {
        match debris {
            Debris::Name(snapshot, name) => {
                if self.reload_snapshot(name.0, *snapshot).await? {
                    return Ok(());
                }
                tracing::warn!(snapshot.id = %snapshot, "a name without its snapshot is given up");
                self.leave_name(name, *snapshot).await
            }
            Debris::Snapshot(id) => self.complete(*id).await,
            Debris::Job(id) => self.drop_job(*id).await,
        }
    }

    /// Gives a snapshot the job that it waits for, or forgets it if it is to go.
    async fn complete(&self, id: SnapshotId) -> Result<(), Error> {
        let known = self.view.records().snapshot(&id);
        let Some(entry) = known else { return Ok(()) };
        let snapshot = &*entry.value;
        if self.reload_job(snapshot.job).await? {
            return Ok(());
        }
        if snapshot.state == SnapshotState::Removing {
            return self.forget(snapshot, entry.revision).await;
        }
        tracing::warn!(snapshot.id = %id, job.id = %snapshot.job, "a snapshot lacks its job: making it");
        let job = job_of(snapshot);
        match self.records.create(&keys::job(&job.id), &job, None).await {
            Ok(revision) => {
                self.view.change_records(|records| records.put(Value::Job(job), revision));
                self.announce(snapshot.job);
                Ok(())
            }
            other => ignore_conflict(other.map(|_| ())),
        }
    }

    async fn drop_job(&self, id: JobId) -> Result<(), Error> {
        let known = self.view.records().job(&id);
        let Some(entry) = known else { return Ok(()) };
        let job = &*entry.value;
        if self.reload_snapshot(job.organization, job.snapshot).await? {
            let records = self.view.records();
            let is_wanted = records.followers(id).next().is_some();
            // The image of the snapshot was made again: this job is of the past.
            let is_past = job.state.is_over() && job.log == LogState::Archived;
            if is_wanted || !is_past {
                return Ok(());
            }
        }
        tracing::warn!(job.id = %id, "a job without a snapshot is dropped");
        ignore_conflict(self.records.delete(&keys::job(&id), entry.revision).await)
    }
}

/// The job that a snapshot was stored with.
fn job_of(snapshot: &SnapshotRecord) -> JobRecord {
    let new = NewJob {
        id: snapshot.job,
        organization: snapshot.organization,
        snapshot: snapshot.id,
        region: snapshot.region.clone(),
        class: snapshot.class,
        kind: snapshot.source.kind(),
        trace: None,
    };
    JobRecord::new(new, snapshot.created_at)
}

/// Somebody else was quicker: the next look decides.
fn ignore_conflict(written: Result<(), bucket::Error>) -> Result<(), Error> {
    match written {
        Err(error) if error.is_conflict() => Ok(()),
        written => written.map_err(|source| Error::Write { what: "what was left behind", source }),
    }
}
