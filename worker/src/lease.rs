//! The worker's side of a lease: claiming, renewing, noticing its loss.
//!
//! Invariant: while [`Held::lost`] has not completed, either the lease is ours
//! or it has been ours less than its time ago.

use std::time::Duration;

use slipway_bus::bucket::{Bucket, Error};
use slipway_bus::topology::keys;
use slipway_domain::lease::{ClaimDecision, Lease, decide_claim};
use slipway_domain::{Attempt, AttemptNumber, JobId, Nonce, WorkerId};
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// A lease that this worker holds, renewed until this is dropped.
#[derive(Debug)]
pub struct Held {
    /// The claim.
    pub attempt: Attempt,
    lost: CancellationToken,
    check: std::sync::Arc<Notify>,
    _renewal: DropGuard,
}

impl Held {
    /// Completes when the lease is gone.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Looks at the lease now instead of at its next renewal.
    pub fn check(&self) -> std::sync::Arc<Notify> {
        self.check.clone()
    }
}

/// Claims `number` of `job`; `None` if there is nothing to claim.
///
/// # Errors
/// The bucket cannot be read or written. The claim may then stand, which costs
/// no more than its time.
pub async fn claim(
    leases: &Bucket,
    job: JobId,
    number: AttemptNumber,
    worker: &WorkerId,
    ttl: Duration,
    tasks: &Tasks,
) -> Result<Option<Held>, Error> {
    let attempt = Attempt { number, nonce: Nonce::from_uuid(Uuid::new_v4()) };
    let lease = Lease::Held { attempt, worker: worker.clone() };
    let key = keys::job(&job);
    let mut claimed_at = Instant::now();
    // Nearly always nobody had the job before: one write, and nothing to read.
    let revision = match leases.create(&key, &lease, Some(ttl)).await {
        Ok(revision) => revision,
        Err(error) if error.is_conflict() => {
            claimed_at = Instant::now();
            match take_over(leases, &key, number, &lease, ttl).await? {
                Some(revision) => revision,
                None => return Ok(None),
            }
        }
        Err(error) => return Err(error),
    };
    let (lost, stop) = (CancellationToken::new(), CancellationToken::new());
    let check = std::sync::Arc::new(Notify::new());
    let renewal = Renewal {
        leases: leases.clone(),
        key,
        lease,
        ttl,
        revision,
        renewed_at: claimed_at,
        check: check.clone(),
    };
    let (signal, stopped) = (lost.clone(), stop.clone());
    tasks.spawn("lease", async move {
        stopped.run_until_cancelled(renewal.run()).await;
        signal.cancel();
    });
    Ok(Some(Held { attempt, lost, check, _renewal: stop.drop_guard() }))
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
    key: String,
    lease: Lease,
    ttl: Duration,
    revision: u64,
    renewed_at: Instant,
    check: std::sync::Arc<Notify>,
}

impl Renewal {
    /// Renews until the lease is lost.
    async fn run(mut self) {
        loop {
            let due = self.renewed_at + self.ttl / 3;
            // Cancel-safe: a missed notification only delays to the next renewal.
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = self.check.notified() => {}
            }
            let started = Instant::now();
            let deadline = self.renewed_at + self.ttl;
            match tokio::time::timeout_at(deadline, self.renew()).await {
                Ok(Ok(revision)) => {
                    self.revision = revision;
                    self.renewed_at = started;
                }
                Ok(Err(error)) if error.is_conflict() => {
                    tracing::warn!(lease.key = self.key, "the lease belongs to somebody else now");
                    return;
                }
                Ok(Err(error)) if Instant::now() < deadline => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(lease.key = self.key, error, "a renewal failed, trying again");
                    tokio::time::sleep(self.ttl / 10).await;
                }
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(lease.key = self.key, "the lease ran out before it was renewed");
                    return;
                }
            }
        }
    }

    async fn renew(&self) -> Result<u64, Error> {
        let ttl = Some(self.ttl);
        let error = match self.leases.update(&self.key, &self.lease, self.revision, ttl).await {
            Ok(revision) => return Ok(revision),
            Err(error) => error,
        };
        if !matches!(error, Error::Ambiguous { .. }) {
            return Err(error);
        }
        // The answer was lost: what the key says decides.
        let entry = self.leases.get(&self.key).await?;
        match entry {
            Some(entry) if entry.json::<Lease>()? == self.lease => Ok(entry.revision),
            _ => self.leases.update(&self.key, &self.lease, self.revision, ttl).await,
        }
    }
}
