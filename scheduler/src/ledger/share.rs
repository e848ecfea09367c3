//! Identical work is done once: a request joins the job that does it already.
//!
//! One record for each identity ([`WorkRecord`]) names the job and the snapshots
//! that stand on it. Every step is a compare-and-set of that record, so that of
//! any number of requests, over any number of schedulers, one makes the job.
//! Invariants: who has joined is in the record before its snapshot is stored; a
//! job is cancelled, and its image unlinked, only after the record said that
//! nobody else wants it, and from then on nobody joins it.

use slipway_bus::bucket;
use slipway_bus::topology::keys;
use slipway_domain::identity::{WorkIdentity, WorkRecord};
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{JobId, SnapshotId};
use slipway_runtime::telemetry;
use tokio::sync::OwnedMutexGuard;

use super::{Error, Ledger};

/// What a request joined.
pub(super) struct Joined {
    /// The job that does the work.
    pub(super) job: JobId,
    /// Its record, unless it is being made right now.
    pub(super) record: Option<JobRecord>,
}

impl Ledger {
    /// One after another: requests of one identity within this process. Between
    /// processes the record settles it, and this only spares tries.
    pub(super) async fn turn(&self, identity: &WorkIdentity) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            turns.retain(|_, turn| std::sync::Arc::strong_count(turn) > 1);
            turns.entry(identity.clone()).or_default().clone()
        };
        turn.lock_owned().await
    }

    /// Joins the job that does the work of `job` already, or makes `job` the one
    /// that others join; then nothing is returned.
    pub(super) async fn join(
        &self,
        identity: &WorkIdentity,
        snapshot: &SnapshotRecord,
        job: &JobRecord,
    ) -> Result<Option<Joined>, Error> {
        let key = keys::work(&snapshot.organization, identity);
        let own = WorkRecord::new(job.id, snapshot.id);
        loop {
            match self.records.create(&key, &own, None).await {
                Ok(_) => return Ok(None),
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
            let Some((record, revision)) = self.read::<WorkRecord>(&key).await? else { continue };
            let joined = self.joinable(&record, snapshot).await?;
            let next = match &joined {
                Some(_) => record.joined(snapshot.id),
                None => Some(own.clone()),
            };
            // So many share it that this one works for itself.
            let Some(next) = next else { return Ok(None) };
            match self.records.update(&key, &next, revision, None).await {
                Ok(_) => return Ok(joined),
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// The job of a record if it can be joined: it is under way, or it succeeded
    /// and its image is still there. A failure is nobody else's.
    async fn joinable(
        &self,
        record: &WorkRecord,
        snapshot: &SnapshotRecord,
    ) -> Result<Option<Joined>, Error> {
        let id = record.job;
        // What is known here may be older than the job's end.
        self.reload_job(id).await?;
        let job = self.view.records().job(&id).map(|entry| (*entry.value).clone());
        let can = match job.as_ref().map(|job| &job.state) {
            // Its maker is between two writes, or died there: then the
            // reconciler makes the job for the snapshot that waits for it.
            None | Some(JobState::Queued { .. } | JobState::Running { .. }) => true,
            Some(JobState::Succeeded { image, .. }) => {
                let held = self.images.holds(snapshot, &image.digest).await;
                // Without an answer it does its own work, which is right in any case.
                held.unwrap_or_else(|error| {
                    let error = telemetry::chain(&error);
                    tracing::warn!(snapshot.id = %snapshot.id, error, "an image was not found");
                    false
                })
            }
            Some(JobState::Failed { .. } | JobState::Cancelled | JobState::Dead { .. }) => false,
        };
        Ok(can.then_some(Joined { job: id, record: job }))
    }

    /// Has every snapshot that stands on a job reflect the job's record, those
    /// included that other schedulers have just stored. Who joins later looks at
    /// the job after its snapshot is stored.
    ///
    /// # Errors
    /// Nothing can be read or written now.
    pub async fn tell_all(&self, id: JobId) -> Result<(), Error> {
        let job = self.view.records().job(&id).map(|entry| entry.value);
        if let (Some(job), Some(key)) = (job, self.work_of(id)) {
            let work = self.read::<WorkRecord>(&key).await?.map(|(record, _)| record);
            for sharer in work.filter(|work| work.job == id).into_iter().flat_map(|w| w.sharers) {
                if self.view.records().snapshot(&sharer).is_none() {
                    self.reload_snapshot(job.organization, sharer).await?;
                }
            }
        }
        self.follow(id).await
    }

    /// Takes a snapshot off the work that it shares. Returns whether others stay.
    ///
    /// # Errors
    /// Nothing can be read or written now.
    pub async fn leave(&self, snapshot: &SnapshotRecord) -> Result<bool, Error> {
        let Some(key) = self.work_of(snapshot.job) else { return Ok(false) };
        self.leave_work(&key, snapshot.id, snapshot.job).await
    }

    /// Takes a snapshot off a record, if it stands there. Returns whether others
    /// stay with whom it shared `job`; a repeat says the same.
    pub(super) async fn leave_work(
        &self,
        key: &str,
        id: SnapshotId,
        job: JobId,
    ) -> Result<bool, Error> {
        loop {
            let Some((record, revision)) = self.read::<WorkRecord>(key).await? else {
                return Ok(false);
            };
            let next = record.left(id);
            if next == record {
                return Ok(record.job == job && !record.sharers.is_empty());
            }
            let written = if next.sharers.is_empty() {
                self.records.delete(key, revision).await
            } else {
                self.records.update(key, &next, revision, None).await.map(|_| ())
            };
            match written {
                Ok(()) => return Ok(!next.sharers.is_empty()),
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Closes a job to those who would join it, unless somebody wants it still.
    /// Returns whether it is closed.
    ///
    /// # Errors
    /// Nothing can be read or written now.
    pub async fn close_work(&self, id: JobId) -> Result<bool, Error> {
        let Some(key) = self.work_of(id) else { return Ok(true) };
        loop {
            let Some((record, revision)) = self.read::<WorkRecord>(&key).await? else {
                return Ok(true);
            };
            if record.job != id {
                return Ok(true);
            }
            if self.is_wanted(&record).await? {
                return Ok(false);
            }
            match self.records.delete(&key, revision).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Whether a sharer wants the job, or may in a moment.
    async fn is_wanted(&self, record: &WorkRecord) -> Result<bool, Error> {
        let job = self.view.records().job(&record.job).map(|entry| entry.value.organization);
        let Some(organization) = job else { return Ok(true) };
        for id in &record.sharers {
            let known = self.view.records().snapshot(id).is_some();
            if !known && !self.reload_snapshot(organization, *id).await? {
                // It joined, and its snapshot is on its way.
                return Ok(true);
            }
            let records = self.view.records();
            let wants = records.snapshot(id).is_some_and(|entry| {
                entry.value.job == record.job && entry.value.state != SnapshotState::Removing
            });
            if wants {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn work_of(&self, job: JobId) -> Option<String> {
        let records = self.view.records();
        let job = &records.job(&job)?.value;
        job.identity.as_ref().map(|identity| keys::work(&job.organization, identity))
    }
}

fn failed(source: bucket::Error) -> Error {
    Error::Write { what: "who shares a job", source }
}
