//! The worker's side of a lease: claiming, renewing, noticing its loss.
//!
//! While NATS cannot be reached nobody can tell whether a lease is lost, so its holder
//! goes on, up to a bound. When NATS is back, a lease that ran out meanwhile is taken
//! again under the same claim, unless somebody else has claimed or closed it.
//!
//! Invariant: while [`Held::lost`] has not completed, either the lease is ours, or it
//! has been ours less than its time ago, or NATS was out of reach since.

use std::sync::Arc;
use std::time::Duration;

use slipway_bus::Bus;
use slipway_bus::bucket::{Bucket, Error};
use slipway_bus::connection::Connection;
use slipway_bus::topology::{BucketName, keys};
use slipway_domain::lease::{ClaimDecision, Lease, decide_claim};
use slipway_domain::{Attempt, AttemptNumber, JobId, Nonce, Region, WorkerId};
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Pause after a renewal that nobody answered.
const RETRY: Duration = Duration::from_millis(200);

/// How leases are held.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long one lasts without renewal.
    pub ttl: Duration,
    /// How long its holder goes on while NATS cannot be reached.
    pub patience: Duration,
}

/// Where a worker claims. Clones share it.
#[derive(Debug, Clone)]
pub struct Leases {
    bus: Bus,
    bucket: Bucket,
    worker: WorkerId,
    terms: Terms,
    tasks: Tasks,
}

/// A lease that this worker holds, renewed until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// The claim.
    pub attempt: Attempt,
    lost: CancellationToken,
    check: Arc<Notify>,
    retaken: Arc<Notify>,
    _renewal: DropGuard,
}

impl Held {
    /// Completes when the lease is gone.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Looks at the lease now instead of at its next renewal.
    pub fn check(&self) -> Arc<Notify> {
        self.check.clone()
    }

    /// Completes when the lease had run out and was taken again: the job may have
    /// been given to somebody else meanwhile.
    pub async fn retaken(&self) {
        self.retaken.notified().await;
    }
}

impl Leases {
    /// The leases of a region.
    #[must_use]
    pub fn new(bus: &Bus, region: &Region, worker: WorkerId, terms: Terms, tasks: Tasks) -> Self {
        let bucket = bus.bucket(&BucketName::Leases(region.clone()));
        Self { bus: bus.clone(), bucket, worker, terms, tasks }
    }

    /// Claims `number` of `job`; `None` if there is nothing to claim.
    ///
    /// # Errors
    /// The bucket cannot be read or written. The claim may then stand, which costs
    /// no more than its time.
    pub async fn claim(&self, job: JobId, number: AttemptNumber) -> Result<Option<Held>, Error> {
        let attempt = Attempt { number, nonce: Nonce::from_uuid(Uuid::new_v4()) };
        let lease = Lease::Held { attempt, worker: self.worker.clone() };
        let key = keys::job(&job);
        let (mut claimed_at, ttl) = (Instant::now(), self.terms.ttl);
        // Nearly always nobody had the job before: one write, and nothing to read.
        let revision = match self.bucket.create(&key, &lease, Some(ttl)).await {
            Ok(revision) => revision,
            Err(error) if error.is_conflict() => {
                claimed_at = Instant::now();
                match take_over(&self.bucket, &key, number, &lease, ttl).await? {
                    Some(revision) => revision,
                    None => return Ok(None),
                }
            }
            Err(error) => return Err(error),
        };
        let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
        let (check, retaken) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let renewal = Renewal {
            leases: self.bucket.clone(),
            connection: self.bus.connection_state(),
            key,
            lease,
            terms: self.terms,
            revision,
            renewed_at: claimed_at,
            is_cut_off: false,
            check: check.clone(),
            retaken: retaken.clone(),
        };
        let (signal, stopped) = (lost.clone(), stop.clone());
        self.tasks.spawn("lease", async move {
            stopped.run_until_cancelled(renewal.run()).await;
            signal.cancel();
        });
        Ok(Some(Held { attempt, lost, check, retaken, _renewal: stop.drop_guard() }))
    }
}

/// Writes `lease` over that of an earlier attempt; `None` if the one that is there
/// counts. Whoever wrote in between has it.
async fn take_over(
    leases: &Bucket,
    key: &str,
    number: AttemptNumber,
    lease: &Lease,
    ttl: Duration,
) -> Result<Option<u64>, Error> {
    let entry = leases.get(key).await?;
    let existing = entry.as_ref().map(|entry| entry.json::<Lease>()).transpose()?;
    if decide_claim(existing.as_ref(), number) == ClaimDecision::Discard {
        return Ok(None);
    }
    let written = match &entry {
        None => leases.create(key, lease, Some(ttl)).await,
        Some(entry) => leases.update(key, lease, entry.revision, Some(ttl)).await,
    };
    match written {
        Err(error) if error.is_conflict() => Ok(None),
        written => written.map(Some),
    }
}

struct Renewal {
    leases: Bucket,
    connection: watch::Receiver<Connection>,
    key: String,
    lease: Lease,
    terms: Terms,
    revision: u64,
    renewed_at: Instant,
    /// Whether NATS was out of reach since the last renewal.
    is_cut_off: bool,
    check: Arc<Notify>,
    retaken: Arc<Notify>,
}

/// What came of a renewal.
enum Renewed {
    /// It is ours under this revision.
    Held(u64),
    /// It had run out, and is ours again.
    Retaken(u64),
    /// It belongs to somebody else, or was closed.
    Lost,
}

impl Renewal {
    /// Renews until the lease is lost.
    async fn run(mut self) {
        loop {
            let due = self.renewed_at + self.terms.ttl / 3;
            // Cancel-safe: a missed notification only delays to the next renewal.
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.check.notified() => {}
            }
            while let Err(error) = self.keep().await {
                match error {
                    Some(reason) => {
                        tracing::warn!(lease.key = self.key, reason, "the lease is given up");
                        return;
                    }
                    None => tokio::time::sleep(RETRY).await,
                }
            }
        }
    }

    /// Renews once. What is to be tried again is an error without a reason.
    async fn keep(&mut self) -> Result<(), Option<&'static str>> {
        if !self.connection.borrow().up {
            self.cut_off("no connection to NATS");
            let give_up = self.deadline();
            let mut connection = self.connection.clone();
            let back = connection.wait_for(|connection| connection.up);
            if tokio::time::timeout_at(give_up, back).await.is_err() {
                return Err(Some("NATS was away for too long"));
            }
        }
        let started = Instant::now();
        let renewed = match tokio::time::timeout_at(self.deadline(), self.renew()).await {
            Ok(renewed) => renewed,
            Err(_) if self.is_cut_off => return Err(Some("NATS was away for too long")),
            Err(_) => return Err(Some("it ran out before it was renewed")),
        };
        match renewed {
            Ok(Renewed::Lost) => return Err(Some("it ran out, or belongs to somebody else now")),
            Ok(Renewed::Held(revision)) => self.revision = revision,
            Ok(Renewed::Retaken(revision)) => {
                tracing::info!(lease.key = self.key, "the lease had run out and is taken again");
                self.revision = revision;
                self.retaken.notify_one();
            }
            Err(error) => {
                let is_silence =
                    matches!(error, Error::Ambiguous { .. } | Error::Unavailable { .. });
                let error = telemetry::chain(&error);
                if is_silence {
                    self.cut_off(&error);
                } else {
                    tracing::warn!(lease.key = self.key, error, "a renewal failed");
                }
                return Err(None);
            }
        }
        (self.renewed_at, self.is_cut_off) = (started, false);
        Ok(())
    }

    /// Notes that NATS is out of reach; says so once.
    fn cut_off(&mut self, error: &str) {
        if !self.is_cut_off {
            self.is_cut_off = true;
            let patience = humantime_serde::re::humantime::format_duration(self.terms.patience);
            tracing::warn!(
                lease.key = self.key,
                error,
                "the lease cannot be renewed: NATS is out of reach; going on for up to {patience}"
            );
        }
    }

    /// When to give up.
    fn deadline(&self) -> Instant {
        let Terms { ttl, patience } = self.terms;
        self.renewed_at + if self.is_cut_off { ttl.max(patience) } else { ttl }
    }

    async fn renew(&self) -> Result<Renewed, Error> {
        let ttl = Some(self.terms.ttl);
        let update = self.leases.update(&self.key, &self.lease, self.revision, ttl).await;
        match update {
            Ok(revision) => return Ok(Renewed::Held(revision)),
            // What the key says decides.
            Err(error) if error.is_conflict() || matches!(error, Error::Ambiguous { .. }) => {}
            Err(error) => return Err(error),
        }
        let renewed = match self.leases.get(&self.key).await? {
            // An answer was lost.
            Some(entry) if entry.json::<Lease>()? == self.lease => {
                let again = self.leases.update(&self.key, &self.lease, entry.revision, ttl).await;
                again.map(Renewed::Held)
            }
            Some(_) => return Ok(Renewed::Lost),
            // It ran out, and not because we were late.
            None if self.is_cut_off => {
                self.leases.create(&self.key, &self.lease, ttl).await.map(Renewed::Retaken)
            }
            None => return Ok(Renewed::Lost),
        };
        match renewed {
            Err(error) if error.is_conflict() => Ok(Renewed::Lost),
            renewed => renewed,
        }
    }
}

#[cfg(test)]
mod tests;
