//! Moves of jobs: the job's record first, then the snapshots that stand on it.
//!
//! Invariant: a job's record alone decides. That its snapshots hear of it is owed
//! until each of them reflects the record, and whoever finds it otherwise writes
//! the same.

use futures::future::try_join_all;
use jiff::Timestamp;
use slipway_domain::job::{JobEvent, JobRecord};
use slipway_domain::snapshot::SnapshotState;
use slipway_domain::{JobId, SnapshotId};

use super::{Error, Ledger, Moved};
use crate::trace;
use crate::view::Entry;

impl Ledger {
    /// Applies an event to a job, and tells its snapshots.
    ///
    /// # Errors
    /// Nothing can be written now. The job may have moved all the same: apply the
    /// event again.
    pub async fn move_job(&self, id: JobId, event: JobEvent) -> Result<Moved, Error> {
        let moved = self.apply(id, event).await?;
        if matches!(moved, Moved::Applied) {
            self.follow(id).await?;
        }
        Ok(moved)
    }

    /// Applies an event to a job; its snapshots are told later.
    pub(crate) async fn apply(&self, id: JobId, event: JobEvent) -> Result<Moved, Error> {
        let mut is_fresh = false;
        loop {
            let Some(job) = self.job(id).await? else { return Ok(Moved::Unknown) };
            let transition = match job.value.apply(event.clone(), Timestamp::now(), &self.retry) {
                Ok(transition) => transition,
                Err(refused) if is_fresh => return Ok(Moved::Refused(refused)),
                // What is known here may be older than the event.
                Err(_) => {
                    is_fresh = true;
                    self.reload_job(id).await?;
                    continue;
                }
            };
            if transition.next != *job.value {
                match self.store_job(transition.next.clone(), job.revision).await {
                    Ok(()) => {
                        self.metrics.moved(&job.value, &transition.next);
                        trace::moved(&job.value, &transition.next);
                    }
                    Err(error) if error.is_conflict() => {
                        self.reload_job(id).await?;
                        continue;
                    }
                    Err(source) => return Err(Error::Write { what: "a job", source }),
                }
            }
            if !transition.effects.is_empty() {
                self.announce(id);
            }
            return Ok(Moved::Applied);
        }
    }

    /// Has every snapshot that stands on a job reflect the job's record, and names
    /// move to those that became active.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn follow(&self, id: JobId) -> Result<(), Error> {
        let Some(job) = self.view.records().job(&id) else { return Ok(()) };
        self.know_snapshot(&job.value).await?;
        let behind: Vec<SnapshotId> = {
            let records = self.view.records();
            let followers = records.followers(id).map(|entry| entry.value);
            followers
                .filter(|snapshot| snapshot.follow(&job.value).is_some())
                .map(|s| s.id)
                .collect()
        };
        let tell =
            |id| self.change_snapshot(id, "a snapshot", |snapshot| snapshot.follow(&job.value));
        try_join_all(behind.into_iter().map(tell)).await?;
        self.settle_names_of(id).await
    }

    /// Cancels a job whose snapshots are all to go.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn cancel_unwanted(&self, id: JobId) -> Result<(), Error> {
        let unwanted = {
            let records = self.view.records();
            let open = records.job(&id).is_some_and(|job| !job.value.state.is_over());
            let mut followers = records.followers(id).peekable();
            // Without any, their creation may be under way elsewhere.
            open && followers.peek().is_some()
                && followers.all(|entry| entry.value.state == SnapshotState::Removing)
        };
        // From here on nobody joins it.
        if unwanted && self.close_work(id).await? {
            self.apply(id, JobEvent::Cancel).await?;
        }
        Ok(())
    }

    /// A job, asked for if it is not known: another replica may have made it a
    /// moment ago.
    async fn job(&self, id: JobId) -> Result<Option<Entry<JobRecord>>, Error> {
        let known = self.view.records().job(&id);
        if known.is_none() && self.reload_job(id).await? {
            return Ok(self.view.records().job(&id));
        }
        Ok(known)
    }

    /// Asks for the snapshot that a job was made for, if none is known to stand on
    /// it: its creation may have happened elsewhere, a moment ago.
    async fn know_snapshot(&self, job: &JobRecord) -> Result<(), Error> {
        let known = self.view.records().followers(job.id).next().is_some();
        if !known {
            self.reload_snapshot(job.organization, job.snapshot).await?;
        }
        Ok(())
    }
}
