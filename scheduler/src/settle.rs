//! Settling: doing what a job's record asks for.
//!
//! Owns the effects. They follow from the stored record
//! ([`slipway_domain::job::JobRecord::owed`]), so this is at once what a
//! transition triggers and what repairs a crash. Invariant: every effect may be
//! repeated without harm.

mod lane;
mod removal;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_blobstore::Store;
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bus, bucket};
use slipway_domain::job::{Effect, JobEvent, JobRecord, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::message::{ControlMessage, EventMessage, JobMessage};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{AttemptNumber, JobId, Region, WorkerId};
use slipway_runtime::telemetry;
use tracing::Instrument as _;

use crate::api::present;
use crate::calm::Calm;
use crate::ledger::{self, Ledger};
use crate::logs::{self, Logs};
use crate::metrics::Metrics;
use crate::queue::{Queue, Turn};
use crate::trace;
use crate::view::{Entry, View};

/// For less than this the queue recognises a message that it has had.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(9);
/// How long a closed lease stays, which only spares work: a claim under it would
/// be refused by the records anyway.
const CLOSED_LEASE_TTL: Duration = Duration::from_secs(3600);

/// Why a job could not be settled now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The job was not put on its queue.
    #[error("cannot dispatch the job")]
    Dispatch(#[source] slipway_bus::jobs::Error),
    /// What was reported of it is not known.
    #[error("cannot look up what was reported of the job")]
    Events(#[source] slipway_bus::events::Error),
    /// Its lease was not closed.
    #[error("cannot close the lease")]
    Lease(#[source] bucket::Error),
    /// Its log was not archived or deleted.
    #[error("cannot settle the log")]
    Log(#[source] logs::Error),
    /// Its image was not unlinked.
    #[error("cannot unlink the image")]
    Unlink(#[source] slipway_blobstore::Error),
    /// Its record was not moved.
    #[error("cannot move the record")]
    Ledger(#[source] ledger::Error),
}

/// Settles jobs. Share it in an `Arc`.
#[derive(Debug)]
pub struct Settler {
    /// The bus.
    pub bus: Bus,
    /// What is known.
    pub view: Arc<View>,
    /// What changes it.
    pub ledger: Arc<Ledger>,
    /// When which job is sent.
    pub queue: Arc<Queue>,
    /// Logs of jobs.
    pub logs: Arc<Logs>,
    /// Object stores by region.
    pub stores: BTreeMap<Region, Store>,
    /// How long an attempt may take.
    pub time_limit: Duration,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the end of a lease means anything.
    pub calm: Calm,
}

/// What is left to do for a job.
pub(crate) enum Left {
    Nothing,
    /// Its log, and its removal.
    Closing,
    LookAgain(Duration),
}

impl Settler {
    /// Does what cannot wait: sends a job that is due, stops one that is cancelled.
    async fn settle(&self, id: JobId) -> Result<Left, Error> {
        self.ledger.follow(id).await.map_err(Error::Ledger)?;
        self.ledger.cancel_unwanted(id).await.map_err(Error::Ledger)?;
        let Some(job) = self.view.records().job(&id) else { return Ok(Left::Nothing) };
        let record = &*job.value;
        let mut left = Left::Nothing;
        for effect in record.owed() {
            match effect {
                Effect::Dispatch => left = self.dispatch(record).await?,
                Effect::StopAttempt { attempt } => self.stop(record, attempt).await?,
                Effect::SealLog => left = Left::Closing,
            }
        }
        if self.removable(record).next().is_some() || self.is_past(id) {
            left = Left::Closing;
        }
        Ok(left)
    }

    /// The snapshots of a job that can go now: it is over, or goes on for others.
    fn removable(&self, job: &JobRecord) -> impl Iterator<Item = Entry<SnapshotRecord>> + use<> {
        let records = self.view.records();
        let followers: Vec<_> = records.followers(job.id).collect();
        let is_free = job.state.is_over() || !followers.iter().all(is_removing);
        followers.into_iter().filter(move |snapshot| is_free && is_removing(snapshot))
    }

    /// Closes a job that is over: its log, its snapshots if they are to go, and itself
    /// if it is of the past.
    async fn close(&self, id: JobId) -> Result<Left, Error> {
        let Some(job) = self.view.records().job(&id) else { return Ok(Left::Nothing) };
        let record = &*job.value;
        if record.owed().contains(&Effect::SealLog) {
            // The job may have ended since it was settled, and whoever reads the
            // end of its log looks at its snapshots next.
            self.ledger.tell_all(id).await.map_err(Error::Ledger)?;
            self.seal(record).await?;
        }
        for snapshot in self.removable(record) {
            self.remove(record, &snapshot).await?;
        }
        self.forget_past(id).await?;
        Ok(Left::Nothing)
    }

    /// What a job does, from any snapshot that stands on it.
    fn spec(&self, job: &JobRecord) -> Option<Arc<SnapshotRecord>> {
        let records = self.view.records();
        let first = records.snapshot(&job.snapshot).filter(|entry| entry.value.job == job.id);
        first.or_else(|| records.followers(job.id).next()).map(|entry| entry.value)
    }

    /// Stops a worker that has begun what the records do not want it to do: an
    /// attempt that is over, or one that another claim holds. Its report would be
    /// refused anyway; this spares the work.
    pub async fn stop_unless_running(&self, started: &EventMessage) {
        let job = self.view.records().job(&started.job).map(|entry| entry.value);
        let wanted = job.as_ref().is_some_and(|job| {
            matches!(&job.state, JobState::Running { attempt, .. } if *attempt == started.attempt)
                || matches!(&job.state, JobState::Succeeded { attempt, .. } if *attempt == started.attempt)
        });
        let region = job.map(|job| job.region.clone());
        let (false, Some(region)) = (wanted, region) else { return };
        let (id, number) = (started.job, started.attempt.number);
        tracing::warn!(job.id = %id, worker.id = %started.worker, attempt = %number, "stopping a stale attempt");
        if let Err(error) = self.close_lease(&region, id, number).await {
            tracing::warn!(job.id = %id, error = telemetry::chain(&error), "a lease was not closed");
        }
        self.notify(&region, &started.worker, id).await;
    }

    pub(crate) async fn dispatch(&self, record: &JobRecord) -> Result<Left, Error> {
        let JobState::Queued { attempt, .. } = &record.state else {
            return Ok(Left::Nothing);
        };
        if let Some(wait) = record.pause_left(Timestamp::now(), self.ledger.retry()) {
            return Ok(Left::LookAgain(wait.unsigned_abs()));
        }
        let turn = self.queue.admit(record);
        if turn == Turn::Now {
            self.send(record, *attempt).await?;
        }
        let is_served = self.view.fleet().serves(&record.region, record.class);
        if !is_served || turn == (Turn::Later { is_long: true }) {
            self.note_waiting(record).await?;
        }
        Ok(Left::Nothing)
    }

    /// Puts the waiting attempt on its queue; once more changes nothing.
    async fn send(&self, record: &JobRecord, attempt: AttemptNumber) -> Result<(), Error> {
        let Some(message) = self.message(record) else { return Ok(()) };
        let (queue, JobRecord { region, class, kind, id, .. }) = (self.bus.jobs(), record);
        let is_old = Timestamp::now().duration_since(record.updated_at) > REMEMBERED;
        // The queue may no longer know by itself that it has had the message.
        if is_old && queue.holds(region, *class, *kind, *id).await.map_err(Error::Dispatch)? {
            return Ok(());
        }
        let published = queue.publish(region, *class, *kind, *id, attempt, &message);
        published.instrument(trace::dispatch(record)).await.map_err(Error::Dispatch)
    }

    /// Says in the job's log why it waits.
    async fn note_waiting(&self, record: &JobRecord) -> Result<(), Error> {
        let place = self.queue.place(record);
        let reason = present::waiting(record, &self.view.fleet(), place);
        let Some(reason) = reason else { return Ok(()) };
        self.logs.note_waiting(record, &reason).await.map_err(Error::Log)
    }

    /// The attempt of a job that waits and has no message in the queue, nor a claim.
    ///
    /// # Errors
    /// NATS does not tell.
    pub async fn without_message(&self, id: JobId) -> Result<Option<AttemptNumber>, Error> {
        // Another replica may have made or moved it a moment ago.
        self.ledger.refresh(id).await.map_err(Error::Ledger)?;
        let Some(job) = self.view.records().job(&id).map(|entry| entry.value) else {
            return Ok(None);
        };
        let JobState::Queued { attempt, .. } = job.state else { return Ok(None) };
        if job.pause_left(Timestamp::now(), self.ledger.retry()).is_some() {
            // It was not sent yet.
            return Ok(None);
        }
        if self.queue.admitted_for(&job).is_none() {
            // Nor was this; if another scheduler did, that one will look after it.
            return Ok(None);
        }
        let held = self.bus.jobs().holds(&job.region, job.class, job.kind, id).await;
        if held.map_err(Error::Dispatch)? {
            return Ok(None);
        }
        // After the queue: a message leaves it only when its claim stands.
        let leases = self.bus.bucket(&BucketName::Leases(job.region.clone()));
        let lease = leases.get(&keys::job(&id)).await.map_err(Error::Lease)?;
        let lease = lease.and_then(|entry| entry.json::<Lease>().ok());
        let is_claimed = matches!(
            lease,
            Some(Lease::Held { attempt: claim, .. }) if claim.number >= attempt
        );
        Ok(Some(attempt).filter(|_| !is_claimed))
    }

    /// Puts a waiting job on its queue once more, because the queue lost it.
    ///
    /// # Errors
    /// [`Error::Dispatch`].
    pub async fn dispatch_again(&self, record: &JobRecord) -> Result<(), Error> {
        let Some(message) = self.message(record) else { return Ok(()) };
        let queue = self.bus.jobs();
        let published =
            queue.publish_again(&record.region, record.class, record.kind, record.id, &message);
        published.instrument(trace::dispatch(record)).await.map_err(Error::Dispatch)
    }

    /// What wakes a worker for the waiting attempt.
    fn message(&self, record: &JobRecord) -> Option<JobMessage> {
        let snapshot = self.spec(record)?;
        let message = record.message(&snapshot.source, self.time_limit.as_secs())?;
        let images = message.spec.images();
        let fleet = self.view.fleet();
        let hosts = images.iter().map(|image| image.domain());
        let own = hosts.filter(|host| fleet.is_registry(&record.region, host));
        let registries = own.map(str::to_owned).collect();
        Some(JobMessage { registries, ..message })
    }

    /// Takes a cancelled job from the queue and from whoever holds it.
    async fn stop(&self, record: &JobRecord, attempt: AttemptNumber) -> Result<(), Error> {
        let (region, job) = (&record.region, record.id);
        self.close_lease(region, job, attempt).await?;
        self.bus.jobs().purge(region, job).await.map_err(Error::Dispatch)?;
        if let Some(worker) = record.attempts.last().and_then(|last| last.worker.as_ref()) {
            self.notify(region, worker, job).await;
        }
        Ok(())
    }

    /// Has a worker look at its lease now: only faster than by itself.
    async fn notify(&self, region: &Region, worker: &WorkerId, job: JobId) {
        let word = ControlMessage::CheckLease { job };
        if let Err(error) = self.bus.control().publish(region, worker, "lease", &word).await {
            tracing::debug!(job.id = %job, error = telemetry::chain(&error), "the worker was not told");
        }
    }

    async fn close_lease(
        &self,
        region: &Region,
        job: JobId,
        attempt: AttemptNumber,
    ) -> Result<(), Error> {
        let leases = self.bus.bucket(&BucketName::Leases(region.clone()));
        let (key, closed) = (keys::job(&job), Lease::Closed { attempt });
        let ttl = Some(CLOSED_LEASE_TTL);
        loop {
            let entry = leases.get(&key).await.map_err(Error::Lease)?;
            let written = match entry {
                None => leases.create(&key, &closed, ttl).await,
                Some(entry) => match entry.json::<Lease>() {
                    Ok(Lease::Held { attempt: held, .. }) if held.number > attempt => return Ok(()),
                    Ok(Lease::Closed { attempt: by }) if by >= attempt => return Ok(()),
                    _ => leases.update(&key, &closed, entry.revision, ttl).await,
                },
            };
            match written {
                Ok(_) => return Ok(()),
                // The holder renewed it in between.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(Error::Lease(error)),
            }
        }
    }

    async fn seal(&self, record: &JobRecord) -> Result<(), Error> {
        let is_unread = self.view.records().followers(record.id).all(|one| is_removing(&one));
        if is_unread {
            // Nobody will ask for it, but those who read it now see its end.
            return self.logs.end(record).await.map_err(Error::Log);
        }
        let last = self.logs.seal(record).await.map_err(Error::Log)?;
        let moved = self.ledger.move_job(record.id, JobEvent::LogArchived).await;
        moved.map_err(Error::Ledger)?;
        self.logs.purge(record.id, &record.region, last).await.map_err(Error::Log)
    }
}

fn is_removing(snapshot: &Entry<SnapshotRecord>) -> bool {
    snapshot.value.state == SnapshotState::Removing
}
