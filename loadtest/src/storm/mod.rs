//! The scenario `storm`: requests as a clock gives them out, or as fast as they
//! go, each followed from the request to the active snapshot; and beside it what
//! bare JetStream takes for as many messages.
//!
//! Invariant: with a rate, every time counts from when a request was due, not
//! from when it could be made.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use slipway_bus::Bus;
use tokio::time::Instant;

use crate::builds::{seconds, tiny};
use crate::error::Error;
use crate::failures::Failures;
use crate::floor::{self, Steps};
use crate::followed::{Clock, Follower, Job};
use crate::latency::Latency;
use crate::observer::Observer;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;
use crate::schedule::Schedule;
use crate::timeline::Timeline;

/// Bytes of a job's message as the scenario makes them, for the floor.
pub const MESSAGE_BYTES: usize = 600;

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Requests in all.
    pub count: u64,
    /// Requests per second, greater than 0; see [`Schedule::rate`].
    pub rate: Option<f64>,
    /// Without a rate: jobs at once; from 1.
    pub concurrency: usize,
    /// The region; the server's default if absent.
    pub region: Option<String>,
    /// After so many seconds a job counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// Snapshots that the organization may hold.
    pub quota: usize,
    /// Whether the floor is measured, too.
    pub floor: bool,
    /// Bytes of a message of the floor.
    pub message_bytes: usize,
}

/// Runs the scenario. Its snapshots are deleted when all are over, also when the
/// run is stopped.
///
/// # Errors
/// Nothing was begun, or the floor cannot be measured.
pub async fn run(run: &Run, bus: &Bus, plan: Plan) -> Result<Report, Error> {
    run.check_room(usize::try_from(plan.count).unwrap_or(usize::MAX), plan.quota).await?;
    let mut report = Report::new("storm", &plan, run.client().base().as_str());
    let takers = slots(run, plan.region.as_deref()).await?;
    let observer = Arc::new(Observer::start(bus).await?);
    let mut tally = Tally::default();
    let floors = if plan.floor { Some(floors(run, bus, &plan, takers).await?) } else { None };
    drive(run, &observer, &plan, &mut tally, &mut report).await;
    drop(observer);
    let made = std::mem::take(&mut tally.made);
    run.delete_all(made, &mut tally.failures).await;
    report.left_behind = run.sweep().await;
    tally.tell(&mut report, &plan, floors);
    Ok(report)
}

/// Slots of the live workers of a region, all together.
async fn slots(run: &Run, region: Option<&str>) -> Result<usize, Error> {
    let workers = run.client().workers().await?;
    let here = workers.iter().filter(|worker| region.is_none_or(|region| worker.region == region));
    Ok(here.map(|worker| worker.slots as usize).sum::<usize>().clamp(1, 512))
}

/// The floor at the run's rate, and as fast as it goes.
struct Floors {
    dispatch: floor::Found,
    life: floor::Found,
    fastest: floor::Found,
}

async fn floors(run: &Run, bus: &Bus, plan: &Plan, takers: usize) -> Result<Floors, Error> {
    let progress = Progress::new(3);
    let mut measured = 0;
    let schedule = plan.schedule();
    let open = Schedule { rate: None, concurrency: plan.concurrency, ..schedule };
    let mut measure = async |name: &'static str, schedule, steps| {
        progress.say(format!("the floor: {name}"));
        let found = floor::measure(bus, schedule, steps, takers, plan.message_bytes, run.stop());
        let found = found.await;
        measured += 1;
        progress.at(measured);
        found
    };
    Ok(Floors {
        dispatch: measure("publish and take", schedule, Steps::Dispatch).await?,
        life: measure("seven steps", schedule, Steps::Life).await?,
        fastest: measure("seven steps, as fast as they go", open, Steps::Life).await?,
    })
}

async fn drive(
    run: &Run,
    observer: &Arc<Observer>,
    plan: &Plan,
    tally: &mut Tally,
    report: &mut Report,
) {
    let progress = Progress::new(plan.count);
    let shared = Arc::new(plan.clone());
    let clock = Clock::start();
    let follower =
        Follower { run: run.clone(), observer: observer.clone(), limit: plan.limit, clock };
    let start = |n, due| one(follower.clone(), shared.clone(), n, due);
    let done = |job| {
        tally.add(job);
        progress.at(tally.ended);
        progress.say(tally.line());
    };
    plan.schedule().drive(run.stop(), start, done).await;
    report.seconds = clock.begun.elapsed().as_secs_f64();
    report.stopped = run.stop().is_cancelled();
}

impl Plan {
    fn schedule(&self) -> Schedule {
        // With a rate, nothing that is slow may keep the next from its time.
        let concurrency = if self.rate.is_some() { usize::MAX } else { self.concurrency };
        Schedule { count: self.count, concurrency, rate: self.rate }
    }
}

async fn one(follower: Follower, plan: Arc<Plan>, n: u64, due: Instant) -> Job {
    let request = follower.run.submit(n, plan.region.as_deref(), tiny());
    follower.follow(due, request).await
}

/// All requests together.
#[derive(Debug, Default)]
struct Tally {
    ended: u64,
    active: u64,
    failed: u64,
    made: Vec<String>,
    late: Latency,
    submit: Latency,
    worker: Latency,
    to_active: Latency,
    over_time: [Timeline; 3],
    failures: Failures,
}

impl Tally {
    fn add(&mut self, job: Job) {
        self.ended += 1;
        self.late.record(job.late);
        let times = [job.submit, job.worker, job.active];
        let latencies = [&mut self.submit, &mut self.worker, &mut self.to_active];
        for ((time, latency), timeline) in times.into_iter().zip(latencies).zip(&mut self.over_time)
        {
            if let Some(time) = time {
                latency.record(time);
                timeline.record(job.due, time);
            }
        }
        self.active += u64::from(job.active.is_some());
        self.failed += u64::from(job.failure.is_some());
        self.made.extend(job.snapshot);
        job.failure.into_iter().for_each(|failure| self.failures.add(failure));
    }

    fn line(&self) -> String {
        let p99 = |latency: &Latency| latency.summary().map_or(0.0, |summary| summary.p99);
        let (worker, active) = (p99(&self.worker), p99(&self.to_active));
        format!("{} failed, p99 to worker {worker:.0} ms, to active {active:.0} ms", self.failed)
    }

    fn tell(self, report: &mut Report, plan: &Plan, floors: Option<Floors>) {
        report.figures = vec![
            Figure::count("active", self.active),
            Figure::count("failed", self.failed),
            Figure::rate("lifecycles", self.active, report.seconds),
        ];
        if let Some(value) = plan.rate {
            report.figures.push(Figure { name: "asked for", value, unit: "/s" });
        }
        report.add_latency("late start", &self.late);
        report.add_latency("submit answer", &self.submit);
        report.add_latency("submit to worker", &self.worker);
        report.add_latency("submit to active", &self.to_active);
        let [submit, worker, active] = &self.over_time;
        report.timeline = vec![
            submit.series("submit answer"),
            worker.series("submit to worker"),
            active.series("submit to active"),
        ];
        if let Some(floors) = floors {
            let p99 = |latency: &Latency| latency.summary().map(|summary| summary.p99);
            let ratio = p99(&self.worker).zip(p99(&floors.dispatch.taken));
            let fastest = &floors.fastest;
            let floor = Figure::rate("floor lifecycles", fastest.count, fastest.seconds);
            let own = Figure::rate("lifecycles", self.active, report.seconds);
            let share = own.value / floor.value.max(f64::MIN_POSITIVE);
            report.figures.push(floor);
            report.figures.push(Figure { name: "lifecycles of floor", value: share, unit: "x" });
            if let Some((own, floor)) = ratio {
                let value = own / floor.max(f64::MIN_POSITIVE);
                report.figures.push(Figure { name: "worker p99 of floor", value, unit: "x" });
            }
            report.add_latency("floor: publish to taken", &floors.dispatch.taken);
            report.add_latency("floor: seven steps", &floors.life.done);
            report.timeline.push(floors.dispatch.timeline.series("floor: publish to taken"));
        }
        report.failures = self.failures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failures::Failure;

    #[test]
    fn what_was_not_reached_is_not_counted() {
        let second = Some(Duration::from_secs(1));
        let mut tally = Tally::default();
        tally.add(Job { submit: second, worker: second, active: second, ..Job::default() });
        tally.add(Job { submit: second, snapshot: Some("a".into()), ..Job::default() });
        let failure = Some(Failure::new("submit", "quota_exceeded", "full"));
        tally.add(Job { failure, ..Job::default() });
        assert_eq!((tally.ended, tally.active, tally.failed), (3, 1, 1));
        assert_eq!(tally.made, ["a"]);
        let mut report = Report::new("storm", &(), "http://s/api");
        report.seconds = 2.0;
        let plan = Plan {
            count: 3,
            rate: Some(9.0),
            concurrency: 1,
            region: None,
            limit: Duration::from_secs(1),
            quota: 30,
            floor: false,
            message_bytes: 10,
        };
        tally.tell(&mut report, &plan, None);
        let counts: Vec<_> =
            report.latencies.iter().map(|row| (&*row.name, row.summary.count)).collect();
        let wanted = [
            ("late start", 3),
            ("submit answer", 2),
            ("submit to worker", 1),
            ("submit to active", 1),
        ];
        assert_eq!(counts, wanted);
        assert_eq!(report.figures[2].value, 0.5);
        assert!(!report.is_success());
    }
}
