//! The reconciler: looks over every open job, at intervals, for what no event
//! will tell.
//!
//! Takes no input and is idempotent. It repairs: effects that a crash swallowed,
//! leases that ended while nobody watched, and messages that the queue lost.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_domain::JobId;
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::lease::Lease;
use tokio_util::sync::CancellationToken;

use crate::settle::{self, Settler};
use crate::watch;

/// A job that did not move for this long is looked at.
const QUIET: Duration = Duration::from_secs(15);

/// Looks over everything every `interval` until shutdown.
pub async fn run(settler: Arc<Settler>, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Cancel-safe: an interval loses nothing when dropped.
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => look_over(&settler).await,
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
            JobState::Running { attempt, .. } => {
                let held = matches!(
                    view.fleet().lease(&job.id),
                    Some(Lease::Held { attempt: holder, .. }) if holder == attempt
                );
                if !held {
                    watch::lease_lost(bus, ledger, view, job.id, *attempt).await;
                }
            }
            JobState::Queued { .. } => requeue(settler, &job).await,
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
    now.duration_since(job.updated_at) > QUIET.try_into().unwrap_or_default()
}

/// A queued job is either in its queue, or claimed by a worker whose first event
/// is on its way. If it is neither, the queue lost it.
async fn requeue(settler: &Settler, job: &JobRecord) {
    if settler.view.fleet().lease(&job.id).is_some() {
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
