//! Settling: doing what a job's record asks for.
//!
//! Owns the effects. They follow from the stored record
//! ([`slipway_domain::job::JobRecord::owed`]), so this is at once what a
//! transition triggers and what repairs a crash. Invariant: every effect may be
//! repeated without harm.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bus, bucket};
use slipway_domain::job::{Effect, JobEvent, JobRecord, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::message::ControlMessage;
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{AttemptNumber, JobId, Region};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::present;
use crate::ledger::{self, Ledger};
use crate::logs::{self, Logs};
use crate::view::{Entry, View};

/// Jobs settled at the same time.
const CONCURRENT: usize = 64;
/// Pause before settling again what failed.
const RETRY: Duration = Duration::from_secs(2);
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
    /// Logs of jobs.
    pub logs: Arc<Logs>,
    /// Object stores by region.
    pub stores: BTreeMap<Region, Store>,
    /// How long an attempt may take.
    pub time_limit: Duration,
}

/// What is left to do for a job.
enum Left {
    Nothing,
    LookAgain(Duration),
}

impl Settler {
    /// Settles every job announced on `work`, until shutdown.
    pub async fn run(
        self: Arc<Self>,
        mut work: mpsc::UnboundedReceiver<JobId>,
        shutdown: CancellationToken,
    ) {
        let mut running = FuturesUnordered::new();
        let mut timers = FuturesUnordered::new();
        let mut busy: HashSet<JobId> = HashSet::new();
        let mut again: HashSet<JobId> = HashSet::new();
        loop {
            // Cancel-safe: receivers and streams lose nothing when dropped.
            let ready = tokio::select! {
                () = shutdown.cancelled() => return,
                Some(job) = work.recv(), if running.len() < CONCURRENT => job,
                Some(job) = timers.next() => job,
                Some((job, left)) = running.next() => {
                    busy.remove(&job);
                    if let Left::LookAgain(pause) = left {
                        timers.push(async move {
                            tokio::time::sleep(pause).await;
                            job
                        });
                    }
                    if !again.remove(&job) {
                        continue;
                    }
                    job
                }
            };
            if busy.insert(ready) {
                let settler = self.clone();
                running.push(async move { (ready, settler.settle(ready).await) });
            } else {
                again.insert(ready);
            }
        }
    }

    async fn settle(&self, job: JobId) -> Left {
        match self.try_settle(job).await {
            Ok(left) => left,
            Err(error) => {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(job.id = %job, error, "settling a job failed, trying again");
                Left::LookAgain(RETRY)
            }
        }
    }

    async fn try_settle(&self, id: JobId) -> Result<Left, Error> {
        let Some(job) = self.view.records().job(&id).cloned() else { return Ok(Left::Nothing) };
        let record = &*job.value;
        let snapshot = self.view.records().snapshot(&record.snapshot).cloned();
        for effect in record.owed() {
            match effect {
                Effect::Dispatch => {
                    if let Left::LookAgain(pause) = self.dispatch(record, snapshot.as_ref()).await?
                    {
                        return Ok(Left::LookAgain(pause));
                    }
                }
                Effect::StopAttempt { attempt } => self.stop(record, attempt).await?,
                Effect::SealLog => self.seal(record, snapshot.as_ref()).await?,
            }
        }
        if let Some(snapshot) = snapshot
            && snapshot.value.state == SnapshotState::Removing
            && record.state.is_over()
        {
            self.remove(record, &snapshot).await?;
        }
        Ok(Left::Nothing)
    }

    async fn dispatch(
        &self,
        record: &JobRecord,
        snapshot: Option<&Entry<SnapshotRecord>>,
    ) -> Result<Left, Error> {
        let JobState::Queued { attempt, not_before } = &record.state else {
            return Ok(Left::Nothing);
        };
        if let Some(wait) = not_before.and_then(|time| remaining(time, Timestamp::now())) {
            return Ok(Left::LookAgain(wait));
        }
        let Some(snapshot) = snapshot else { return Ok(Left::Nothing) };
        let limit = self.time_limit.as_secs();
        let Some(message) = record.message(&snapshot.value.source, limit) else {
            return Ok(Left::Nothing);
        };
        let queue = self.bus.jobs();
        if Timestamp::now().duration_since(record.updated_at) > REMEMBERED {
            // The queue no longer knows by itself that it has had the message; the
            // reconciler sends one that is really lost.
            return Ok(Left::Nothing);
        }
        let published =
            queue.publish(&record.region, record.class, record.kind, record.id, *attempt, &message);
        published.await.map_err(Error::Dispatch)?;
        let reason: Option<String> = {
            let fleet = self.view.fleet();
            let served = fleet.serves(&record.region, record.class);
            if served { None } else { present::waiting(record, &fleet) }
        };
        if let Some(reason) = reason {
            self.logs.note_waiting(record, &reason).await.map_err(Error::Log)?;
        }
        Ok(Left::Nothing)
    }

    /// Puts a waiting job on its queue once more, because the queue lost it.
    ///
    /// # Errors
    /// [`Error::Dispatch`].
    pub async fn dispatch_again(&self, record: &JobRecord) -> Result<(), Error> {
        let snapshot = self.view.records().snapshot(&record.snapshot).cloned();
        let Some(snapshot) = snapshot else { return Ok(()) };
        let limit = self.time_limit.as_secs();
        let Some(message) = record.message(&snapshot.value.source, limit) else { return Ok(()) };
        let queue = self.bus.jobs();
        let published =
            queue.publish_again(&record.region, record.class, record.kind, record.id, &message);
        published.await.map_err(Error::Dispatch)
    }

    /// Takes a cancelled job from the queue and from whoever holds it.
    async fn stop(&self, record: &JobRecord, attempt: AttemptNumber) -> Result<(), Error> {
        let (region, job) = (&record.region, record.id);
        self.close_lease(region, job, attempt).await?;
        self.bus.jobs().purge(region, job).await.map_err(Error::Dispatch)?;
        if let Some(worker) = record.attempts.last().and_then(|last| last.worker.as_ref()) {
            // Only faster than the lease, which the worker looks at anyway.
            let word = ControlMessage::CheckLease { job };
            let told = self.bus.control().publish(region, worker, "lease", &word).await;
            if let Err(error) = told {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::debug!(job.id = %job, error, "the worker was not told");
            }
        }
        Ok(())
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

    async fn seal(
        &self,
        record: &JobRecord,
        snapshot: Option<&Entry<SnapshotRecord>>,
    ) -> Result<(), Error> {
        if snapshot.is_none_or(|entry| entry.value.state == SnapshotState::Removing) {
            // Nobody will ask for it, but those who read it now see its end.
            return self.logs.end(record).await.map_err(Error::Log);
        }
        self.logs.seal(record).await.map_err(Error::Log)?;
        let moved = self.ledger.move_job(record.id, JobEvent::LogArchived).await;
        moved.map_err(Error::Ledger)?;
        self.logs.purge(record.id, &record.region).await.map_err(Error::Log)
    }

    /// Removes a snapshot for good: its manifest link unless another snapshot
    /// has the same image, its log, its records. Blobs are left to the sweep of
    /// the object store, since others may share them.
    async fn remove(
        &self,
        record: &JobRecord,
        snapshot: &Entry<SnapshotRecord>,
    ) -> Result<(), Error> {
        if let JobState::Succeeded { image, .. } = &record.state
            && let Some(store) = self.stores.get(&record.region)
            && !self.shared(&snapshot.value, &image.digest)
            && let Ok(name) = "snapshots".parse()
        {
            let organization = *record.organization.as_uuid();
            let repository = Repository { organization, name };
            let link = ObjectKey::ManifestLink { repository, digest: image.digest };
            store.delete(&link).await.map_err(Error::Unlink)?;
        }
        self.logs.delete(record).await.map_err(Error::Log)?;
        let forgotten = self.ledger.forget(&snapshot.value, snapshot.revision).await;
        forgotten.map_err(Error::Ledger)?;
        tracing::info!(snapshot.id = %record.snapshot, job.id = %record.id, "snapshot removed");
        Ok(())
    }

    /// Whether another snapshot of the organization stands on the same image, or
    /// may in a moment: a build that runs may have pushed it already. Then the
    /// link stays, for the sweep of the object store.
    fn shared(&self, snapshot: &SnapshotRecord, digest: &slipway_oci::Digest) -> bool {
        let records = self.view.records();
        let mut others = records
            .of(&snapshot.organization)
            .filter(|other| other.value.id != snapshot.id && other.value.region == snapshot.region);
        others.any(|other| match &other.value.state {
            SnapshotState::Active { image } => image.digest == *digest,
            SnapshotState::Pending | SnapshotState::Building => true,
            SnapshotState::BuildFailed { .. }
            | SnapshotState::Error { .. }
            | SnapshotState::Removing => false,
        })
    }
}

/// How long until `time`; `None` if it has come.
fn remaining(time: Timestamp, now: Timestamp) -> Option<Duration> {
    Duration::try_from(time.duration_since(now)).ok().filter(|wait| !wait.is_zero())
}
