//! The scenario `flood`: one organization submits very much at once, and another
//! one little at a steady rate. How long does the other wait for a worker, alone,
//! behind a quarter of the flood, and behind all of it?
//!
//! Invariant: every time counts from when a request was due, and counts for a flood
//! only while some of it still waited.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use slipway_bus::Bus;

use crate::builds::{seconds, tiny};
use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::followed::{Clock, Follower, Job};
use crate::latency::Latency;
use crate::observer::Observer;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;
use crate::schedule::Schedule;
use crate::tenants::Tenants;
use crate::timeline::Timeline;

/// What the rows of the phases are called.
const PHASES: [&str; 3] = [
    "alone: submit to worker",
    "behind a quarter: submit to worker",
    "behind all: submit to worker",
];
/// Requests of the flood that are made at the same time.
const AT_ONCE: usize = 32;

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Snapshots that the one asks for at once; from 4.
    pub flood: u64,
    /// Snapshots that the other one asks for in each phase.
    pub count: u64,
    /// How many of these per second, greater than 0.
    pub rate: f64,
    /// The region; the server's default if absent.
    pub region: Option<String>,
    /// After so many seconds a job counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
}

/// Runs the scenario with a key that may operate the server. Its snapshots are
/// deleted and its API keys revoked at the end, also when the run is stopped; its
/// organizations stay for the next run.
///
/// # Errors
/// Nothing was begun: the organizations cannot be made.
pub async fn run(run: &Run, bus: &Bus, plan: Plan) -> Result<Report, Error> {
    let mut report = Report::new("flood", &plan, run.client().base().as_str());
    let observer = Arc::new(Observer::start(bus).await?);
    let tenants = Tenants::make(run, 2, plan.flood + 3 * plan.count).await?;
    let [one, other] = &tenants.runs[..] else { unreachable!("two were made") };
    let clock = Clock::start();
    let follower = Follower { run: other.clone(), observer, limit: plan.limit, clock };
    let (mut failures, mut phases) = (Failures::default(), vec![]);
    for (name, flood) in PHASES.into_iter().zip([0, plan.flood / 4, plan.flood]) {
        if run.stop().is_cancelled() {
            break;
        }
        let mut phase = Phase { name, ..Phase::default() };
        // Names of an earlier phase may still be on their way out.
        let names = phases.len() as u64 * plan.flood;
        let made = raise(one, &plan, names..names + flood, &mut failures).await;
        let first = phases.len() as u64 * plan.count;
        drive(&follower, &plan, first, &mut phase, &mut failures).await;
        match waiting(one, &plan).await {
            Ok(left) => phase.left = left,
            Err(error) => failures.add(Failure::api("jobs", &error)),
        }
        one.delete_all(made, &mut failures).await;
        phases.push(phase);
    }
    report.seconds = clock.begun.elapsed().as_secs_f64();
    report.stopped = run.stop().is_cancelled();
    for tenant in &tenants.runs {
        report.left_behind.extend(tenant.sweep().await);
    }
    tenants.revoke(&mut report.left_behind).await;
    tell(&phases, failures, &mut report);
    Ok(report)
}

/// One phase: how long the other organization waited behind so much.
#[derive(Debug, Default)]
struct Phase {
    name: &'static str,
    /// Of the flood, what still waited at the end.
    left: u64,
    active: u64,
    worker: Latency,
    over_time: Timeline,
}

impl Phase {
    fn add(&mut self, job: Job, failures: &mut Failures) {
        self.active += u64::from(job.active.is_some());
        if let Some(time) = job.worker {
            self.worker.record(time);
            self.over_time.record(job.due, time);
        }
        job.failure.into_iter().for_each(|failure| failures.add(failure));
    }
}

/// Asks for the flood; returns the ids of what was made.
async fn raise(run: &Run, plan: &Plan, names: Range<u64>, failures: &mut Failures) -> Vec<String> {
    let count = names.end - names.start;
    let progress = Progress::new(count);
    progress.say("the flood");
    let mut made = vec![];
    let start = |n, _| {
        let (run, region) = (run.clone(), plan.region.clone());
        let name = names.start + n;
        async move { run.submit(name, region.as_deref(), tiny()).await }
    };
    let done = |asked: Result<slipway_api::types::Snapshot, _>| {
        match asked {
            Ok(snapshot) => made.push(snapshot.id),
            Err(failure) => failures.add(failure),
        }
        progress.at(made.len() as u64);
    };
    Schedule { count, concurrency: AT_ONCE, rate: None }.drive(run.stop(), start, done).await;
    made
}

/// Asks for the trickle, and waits until all of it is over.
async fn drive(
    follower: &Follower,
    plan: &Plan,
    first: u64,
    phase: &mut Phase,
    failures: &mut Failures,
) {
    let progress = Progress::new(plan.count);
    let mut ended = 0;
    let start = |n, due| {
        let (follower, region) = (follower.clone(), plan.region.clone());
        async move {
            let asked = follower.run.submit(first + n, region.as_deref(), tiny());
            follower.follow(due, asked).await
        }
    };
    let done = |job| {
        phase.add(job, failures);
        ended += 1;
        progress.at(ended);
        let p99 = phase.worker.summary().map_or(0.0, |summary| summary.p99);
        progress.say(format!("{}: p99 {p99:.0} ms", phase.name));
    };
    let schedule = Schedule { count: plan.count, concurrency: usize::MAX, rate: Some(plan.rate) };
    schedule.drive(follower.run.stop(), start, done).await;
}

/// Jobs of an organization that wait.
async fn waiting(run: &Run, plan: &Plan) -> Result<u64, slipway_api::client::Error> {
    let mut query = slipway_api::own::ListJobs {
        state: Some("queued".to_owned()),
        region: plan.region.clone(),
        limit: Some(1000),
        after: None,
    };
    let mut count = 0;
    loop {
        let page = run.client().jobs(&query).await?;
        count += page.items.len() as u64;
        match page.next {
            Some(next) => query.after = Some(next),
            None => return Ok(count),
        }
    }
}

fn tell(phases: &[Phase], failures: Failures, report: &mut Report) {
    let active = phases.iter().map(|phase| phase.active).sum();
    report.figures = vec![Figure::count("active", active)];
    for phase in phases {
        report.add_latency(phase.name, &phase.worker);
        report.timeline.push(phase.over_time.series(phase.name));
    }
    let p99 = |phase: &Phase| phase.worker.summary().map(|summary| summary.p99);
    if let [_, less, more] = phases {
        report.figures.push(Figure::count("left of a quarter", less.left));
        report.figures.push(Figure::count("left of all", more.left));
        if let Some((less, more)) = p99(less).zip(p99(more)) {
            let value = more / less.max(f64::MIN_POSITIVE);
            report.figures.push(Figure { name: "p99, all of a quarter", value, unit: "x" });
        }
    }
    report.failures = failures;
}
