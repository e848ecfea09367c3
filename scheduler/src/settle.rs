//! Settling: doing what a job's record asks for.
//!
//! Owns the effects. They follow from the stored record
//! ([`slipway_domain::job::JobRecord::owed`]), so this is at once what a
//! transition triggers and what repairs a crash. Invariant: every effect may be
//! repeated without harm.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bus, bucket};
use slipway_domain::job::{Effect, JobEvent, JobRecord, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::message::{ControlMessage, EventMessage};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{AttemptNumber, JobId, Region, WorkerId};
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::{Semaphore, mpsc};

use crate::api::present;
use crate::ledger::{self, Ledger};
use crate::logs::{self, Logs};
use crate::view::{Entry, View};

/// Jobs settled at the same time.
const CONCURRENT: usize = 64;
/// Jobs of one region closed at the same time.
const CLOSING: usize = 8;
/// Largest link in bytes.
const LINK_SIZE: u64 = 64 << 10;
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
    /// Its log, and its removal.
    Closing,
    LookAgain(Duration),
}

impl Settler {
    /// Settles every job announced on `work`, until shutdown.
    ///
    /// Two lanes: what makes a job go on or stop takes a moment and comes first;
    /// what closes a job moves its log, and a region whose store or stream is
    /// slow holds up only itself.
    pub async fn run(self: Arc<Self>, mut work: mpsc::UnboundedReceiver<JobId>, tasks: Tasks) {
        let mut lane = Lane::default();
        let mut timers = FuturesUnordered::new();
        let mut waiting: HashSet<JobId> = HashSet::new();
        let (closed, mut closings) = mpsc::unbounded_channel::<(JobId, Left)>();
        let mut closing: HashSet<JobId> = HashSet::new();
        let limits = self.closing_limits();
        loop {
            // Cancel-safe: receivers and streams lose nothing when dropped.
            let (job, left) = tokio::select! {
                () = tasks.shutdown().cancelled() => return,
                Some(job) = work.recv() => (job, None),
                Some(job) = timers.next() => {
                    waiting.remove(&job);
                    (job, None)
                }
                Some((job, left)) = lane.running.next() => (job, Some(left)),
                Some((job, left)) = closings.recv() => {
                    closing.remove(&job);
                    (job, Some(left))
                }
            };
            match left {
                None => lane.add(job),
                Some(Left::Nothing) => lane.done(job),
                Some(Left::LookAgain(pause)) => {
                    lane.done(job);
                    if waiting.insert(job) {
                        timers.push(async move {
                            tokio::time::sleep(pause).await;
                            job
                        });
                    }
                }
                Some(Left::Closing) => {
                    lane.done(job);
                    if closing.insert(job) {
                        let (settler, closed) = (self.clone(), closed.clone());
                        let limit = self.limit_of(&limits, job);
                        tasks.spawn("close", async move {
                            let _slot = limit.acquire().await;
                            let left = retry_later(job, settler.close(job).await);
                            // The receiver is gone only when the process stops.
                            let _stopping = closed.send((job, left));
                        });
                    }
                }
            }
            lane.start(&self);
        }
    }

    /// How many jobs of a region may be closed at the same time.
    fn closing_limits(&self) -> HashMap<Region, Arc<Semaphore>> {
        let regions = self.stores.keys().cloned();
        regions.map(|region| (region, Arc::new(Semaphore::new(CLOSING)))).collect()
    }

    fn limit_of(&self, limits: &HashMap<Region, Arc<Semaphore>>, job: JobId) -> Arc<Semaphore> {
        let region = self.view.records().job(&job).map(|entry| entry.value.region.clone());
        let limit = region.and_then(|region| limits.get(&region).cloned());
        limit.unwrap_or_else(|| Arc::new(Semaphore::new(1)))
    }

    /// Does what cannot wait: sends a job that is due, stops one that is cancelled.
    async fn settle(&self, id: JobId) -> Result<Left, Error> {
        let Some(job) = self.view.records().job(&id).cloned() else { return Ok(Left::Nothing) };
        let record = &*job.value;
        let mut left = Left::Nothing;
        for effect in record.owed() {
            match effect {
                Effect::Dispatch => {
                    let snapshot = self.view.records().snapshot(&record.snapshot).cloned();
                    left = self.dispatch(record, snapshot.as_ref()).await?;
                }
                Effect::StopAttempt { attempt } => self.stop(record, attempt).await?,
                Effect::SealLog => left = Left::Closing,
            }
        }
        let removing = self.view.records().snapshot(&record.snapshot).is_some_and(is_removing);
        if removing && record.state.is_over() {
            left = Left::Closing;
        }
        Ok(left)
    }

    /// Closes a job that is over: its log, and its snapshot if that is to go.
    async fn close(&self, id: JobId) -> Result<Left, Error> {
        let Some(job) = self.view.records().job(&id).cloned() else { return Ok(Left::Nothing) };
        let record = &*job.value;
        let snapshot = self.view.records().snapshot(&record.snapshot).cloned();
        if record.owed().contains(&Effect::SealLog) {
            self.seal(record, snapshot.as_ref()).await?;
        }
        if let Some(snapshot) = snapshot.filter(is_removing) {
            self.remove(record, &snapshot).await?;
        }
        Ok(Left::Nothing)
    }

    /// Stops a worker that has begun what the records do not want it to do: an
    /// attempt that is over, or one that another claim holds. Its report would be
    /// refused anyway; this spares the work.
    pub async fn stop_unless_running(&self, started: &EventMessage) {
        let job = self.view.records().job(&started.job).map(|entry| entry.value.clone());
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
            self.unlink(store, &link, &snapshot.value, &image.digest)
                .await
                .map_err(Error::Unlink)?;
        }
        self.logs.delete(record).await.map_err(Error::Log)?;
        let forgotten = self.ledger.forget(&snapshot.value, snapshot.revision).await;
        forgotten.map_err(Error::Ledger)?;
        tracing::info!(snapshot.id = %record.snapshot, job.id = %record.id, "snapshot removed");
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
        let mut others = records
            .of(&snapshot.organization)
            .filter(|other| other.value.id != snapshot.id && other.value.region == snapshot.region);
        others.any(|other| match &other.value.state {
            SnapshotState::Active { image } => image.digest == *digest,
            SnapshotState::Pending | SnapshotState::Building | SnapshotState::Pulling => true,
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

fn is_removing(snapshot: &Entry<SnapshotRecord>) -> bool {
    snapshot.value.state == SnapshotState::Removing
}

/// What failed is tried again after a pause.
fn retry_later(job: JobId, outcome: Result<Left, Error>) -> Left {
    outcome.unwrap_or_else(|error| {
        let error = telemetry::chain(&error);
        tracing::warn!(job.id = %job, error, "settling a job failed, trying again");
        Left::LookAgain(RETRY)
    })
}

/// Jobs that are being settled, each once at a time.
#[derive(Default)]
struct Lane {
    running: FuturesUnordered<BoxFuture<'static, (JobId, Left)>>,
    busy: HashSet<JobId>,
    again: HashSet<JobId>,
    queue: VecDeque<JobId>,
}

impl Lane {
    /// Has a job settled, once more if it is being settled now.
    fn add(&mut self, job: JobId) {
        if self.busy.insert(job) {
            self.queue.push_back(job);
        } else {
            self.again.insert(job);
        }
    }

    fn done(&mut self, job: JobId) {
        self.busy.remove(&job);
        if self.again.remove(&job) {
            self.add(job);
        }
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self, settler: &Arc<Settler>) {
        while self.running.len() < CONCURRENT {
            let Some(job) = self.queue.pop_front() else { return };
            let settler = settler.clone();
            let settle = async move { (job, retry_later(job, settler.settle(job).await)) };
            self.running.push(settle.boxed());
        }
    }
}
