//! The reconciler: looks over every open job, at intervals, for what no event
//! will tell.
//!
//! Takes no input and is idempotent. It repairs: effects that a crash swallowed,
//! snapshots that did not hear of their job's move, names that did not move, leases
//! that ended while nobody watched, messages that the queue lost, and what is left of
//! creations that broke off.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::message::EventMessage;
use slipway_domain::{AttemptNumber, JobId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ledger::GRACE;
use crate::settle::{self, Settler};
use crate::view::Debris;
use crate::watch::{self, Loss};

/// A job that did not move for this long is looked at.
const QUIET: SignedDuration = SignedDuration::from_secs(15);

/// Looks over everything every `interval` until shutdown.
pub async fn run(settler: Arc<Settler>, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut alone = Alone::default();
    loop {
        // Cancel-safe: an interval loses nothing when dropped.
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if shutdown.run_until_cancelled(look_over(&settler, &mut alone)).await.is_none() {
            return;
        }
    }
}

/// Records that stand alone, with when they were first seen so: a wait by the
/// process's own clock, which no other clock upsets.
#[derive(Debug, Default)]
struct Alone(HashMap<Debris, Instant>);

impl Alone {
    /// Takes in what stands alone now; returns what has done so for too long.
    fn see(&mut self, debris: Vec<Debris>, now: Instant) -> Vec<Debris> {
        let here: HashSet<&Debris> = debris.iter().collect();
        self.0.retain(|known, _| here.contains(known));
        let old = debris.into_iter().filter(|debris| {
            let first = *self.0.entry(debris.clone()).or_insert(now);
            now.duration_since(first) >= GRACE
        });
        old.collect()
    }
}

async fn look_over(settler: &Settler, alone: &mut Alone) {
    let Settler { bus, view, ledger, .. } = settler;
    let debris = view.records().debris();
    for debris in alone.see(debris, Instant::now()) {
        if let Err(error) = ledger.clear(&debris).await {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(error, "what was left behind could not be cleared");
        }
    }
    let unsettled = view.records().unsettled_names();
    for name in unsettled {
        if let Err(error) = ledger.settle_name(&name).await {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(error, "a name could not be settled");
        }
    }
    let owing: Vec<JobId> = view.records().owing().collect();
    owing.into_iter().for_each(|job| ledger.announce(job));
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
/// is on its way. If it is neither, its claim is over, or the queue lost it.
async fn requeue(settler: &Settler, job: &JobRecord, waiting: AttemptNumber) {
    let claimed = matches!(
        settler.view.fleet().lease(&job.id),
        Some(Lease::Held { attempt, .. }) if attempt.number == waiting
    );
    if claimed {
        return;
    }
    if let Err(error) = look_after(settler, job, waiting).await {
        let error = slipway_runtime::telemetry::chain(&error);
        tracing::warn!(job.id = %job.id, error, "a waiting job could not be looked after");
    }
}

async fn look_after(
    settler: &Settler,
    job: &JobRecord,
    waiting: AttemptNumber,
) -> Result<(), settle::Error> {
    let Settler { bus, view, ledger, .. } = settler;
    let held = bus.jobs().holds(&job.region, job.class, job.kind, job.id).await;
    if held.map_err(settle::Error::Dispatch)? {
        return Ok(());
    }
    // What a claim reported before its lease ended counts, read by anybody or not:
    // the work is not done twice.
    let last = bus.events().last_of::<EventMessage>(&job.region, job.id).await;
    if let Some(last) = last.map_err(settle::Error::Events)?
        && last.attempt.number == waiting
    {
        let loss = Loss { job: job.id, attempt: last.attempt, worker: last.worker };
        watch::lease_lost(bus, ledger, view, &loss).await;
        return Ok(());
    }
    tracing::warn!(job.id = %job.id, "the queue lost a waiting job, sending it again");
    settler.dispatch_again(job).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::message::{VERSION, WorkerEvent};
    use slipway_domain::{Attempt, Nonce};

    use super::*;
    use crate::ledger::Naming;
    use crate::ledger::tests::{image, new, replica, start};
    use crate::settle::tests::settler;

    /// A job that waits, of which the records heard nothing else, and what a worker
    /// reported of its first attempt.
    async fn reported(events: Vec<WorkerEvent>) -> JobRecord {
        let (_server, bus) = start().await;
        let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
        let settler = settler(&bus, &only, &folder);
        let (snapshot, job) = new("a");
        only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
        let nonce = Nonce::from_uuid(uuid::Uuid::from_u128(7));
        let attempt = Attempt { number: AttemptNumber::FIRST, nonce };
        let worker: slipway_domain::WorkerId = "w1".parse().unwrap();
        for event in events {
            let (version, at, id) = (VERSION, Timestamp::now(), event.name());
            let message =
                EventMessage { version, job: job.id, attempt, worker: worker.clone(), at, event };
            bus.events().publish(&job.region, &worker, job.id, &message, id).await.unwrap();
        }
        requeue(&settler, &job, AttemptNumber::FIRST).await;
        let held = bus.jobs().holds(&job.region, job.class, job.kind, job.id).await.unwrap();
        let record = only.view.records().job(&job.id).unwrap().value;
        let again = matches!(&record.state, JobState::Queued { attempt, .. }
            if *attempt == AttemptNumber::FIRST);
        assert_eq!(held, again, "only the very attempt is sent again");
        (*record).clone()
    }

    #[tokio::test]
    async fn a_report_that_nobody_has_read_spares_a_second_build() {
        let done = vec![WorkerEvent::Started, WorkerEvent::Published(image())];
        assert_eq!(reported(done).await.state.name(), "succeeded");
        // One that began and whose lease is gone is the attempt that was lost.
        let lost = reported(vec![WorkerEvent::Started]).await;
        assert_eq!(lost.state.name(), "queued");
        assert_eq!(lost.current_attempt(), AttemptNumber::new(2));
        let silent = reported(vec![]).await;
        assert_eq!(silent.current_attempt(), AttemptNumber::FIRST);
    }

    #[test]
    fn only_what_stands_alone_all_the_time_is_cleared() {
        let mut alone = Alone::default();
        let job = |n| Debris::Job(JobId::from_uuid(uuid::Uuid::from_u128(n)));
        let start = Instant::now();
        assert_eq!(alone.see(vec![job(1), job(2)], start), []);
        assert_eq!(alone.see(vec![job(2)], start + GRACE / 2), []);
        assert_eq!(alone.see(vec![job(1), job(2)], start + GRACE), [job(2)]);
        assert_eq!(alone.see(vec![job(1)], start + GRACE * 3 / 2), []);
        assert_eq!(alone.see(vec![job(1)], start + GRACE * 2), [job(1)]);
    }
}
