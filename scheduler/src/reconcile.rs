//! The reconciler: looks over every open job, at intervals, for what no event
//! will tell.
//!
//! Takes no input and is idempotent. It repairs: effects that a crash swallowed,
//! leases that ended while nobody watched, and messages that the queue lost.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::{AttemptNumber, JobId};
use tokio_util::sync::CancellationToken;

use crate::settle::{self, Settler};
use crate::watch::{self, Loss};

/// A job that did not move for this long is looked at.
const QUIET: SignedDuration = SignedDuration::from_secs(15);

/// Looks over everything every `interval` until shutdown.
pub async fn run(settler: Arc<Settler>, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: an interval loses nothing when dropped.
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if shutdown.run_until_cancelled(look_over(&settler)).await.is_none() {
            return;
        }
    }
}

async fn look_over(settler: &Settler) {
    let Settler { bus, view, ledger, .. } = settler;
    let now = Timestamp::now();
    let quiet: Vec<Arc<JobRecord>> = {
        let records = view.records();
        let jobs = records.open_jobs().map(|job| job.value.clone());
        jobs.filter(|job| is_quiet(job, now)).collect()
    };
    for job in quiet {
        match &job.state {
            JobState::Running { attempt, worker } => {
                let held = matches!(
                    view.fleet().lease(&job.id),
                    Some(Lease::Held { attempt: holder, .. }) if holder == attempt
                );
                if !held {
                    let (attempt, worker) = (*attempt, worker.clone());
                    let loss = Loss { job: job.id, attempt, worker };
                    watch::lease_lost(bus, ledger, view, &loss).await;
                }
            }
            JobState::Queued { attempt, not_before } => {
                let due = not_before.is_none_or(|time| is_past(time, now));
                if due {
                    requeue(settler, &job, *attempt).await;
                }
            }
            JobState::Succeeded { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled
            | JobState::Dead { .. } => ledger.announce(job.id),
        }
    }
    let removing: Vec<JobId> = view.records().removing().map(|entry| entry.value.job).collect();
    removing.into_iter().for_each(|job| ledger.announce(job));
}

fn is_quiet(job: &JobRecord, now: Timestamp) -> bool {
    // A record from the future is one from before the clock was set back.
    is_past(job.updated_at, now) || job.updated_at > now + QUIET
}

/// Whether `time` is so long ago that whatever it set off has happened.
fn is_past(time: Timestamp, now: Timestamp) -> bool {
    now.duration_since(time) > QUIET
}

/// A queued job is either in its queue, or claimed by a worker whose first event
/// is on its way. If it is neither, the queue lost it.
async fn requeue(settler: &Settler, job: &JobRecord, waiting: AttemptNumber) {
    let claimed = matches!(
        settler.view.fleet().lease(&job.id),
        Some(Lease::Held { attempt, .. }) if attempt.number == waiting
    );
    if claimed {
        return;
    }
    let held = settler.bus.jobs().holds(&job.region, job.class, job.kind, job.id).await;
    let outcome = match held {
        Ok(true) => return,
        Ok(false) => {
            tracing::warn!(job.id = %job.id, "the queue lost a waiting job, sending it again");
            settler.dispatch_again(job).await
        }
        Err(error) => Err(settle::Error::Dispatch(error)),
    };
    if let Err(error) = outcome {
        let error = slipway_runtime::telemetry::chain(&error);
        tracing::warn!(job.id = %job.id, error, "a waiting job could not be looked after");
    }
}
