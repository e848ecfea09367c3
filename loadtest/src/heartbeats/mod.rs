//! The scenario `heartbeats`: the signs of life of many idle workers, and what they
//! cost: the same trickle of jobs and reads first without them, then beside them.
//!
//! The workers are records such as a worker writes, over the bus and under its
//! rules. They have no slots, so they take nobody's job, and they name the registry
//! of a real worker. Invariant: the records are gone after the run; should it be
//! killed, they expire.

mod signs;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use slipway_api::own::RegionStatus;
use slipway_api::types::ListSnapshots;
use slipway_bus::Bus;
use tokio::time::Instant;

use crate::builds::{seconds, tiny};
use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::followed::{Clock, Follower, Job};
use crate::latency::Latency;
use crate::observer::Observer;
use crate::process::{Process, Usage};
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;
use crate::schedule::Schedule;
use signs::{Fleet, Signs};

/// What the first part is called.
const QUIET: &str = "quiet";

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Workers that give signs of life; from 1.
    pub workers: usize,
    /// How often each of them does.
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    /// How long each of the two parts takes.
    #[serde(serialize_with = "seconds")]
    pub part: Duration,
    /// Jobs per second beside them, greater than 0.
    pub jobs: f64,
    /// Reads of the API per second beside them, greater than 0.
    pub reads: f64,
    /// The region; the server's default if absent.
    pub region: Option<String>,
    /// After so many seconds a job counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// Snapshots that the organization may hold.
    pub quota: usize,
    /// The scheduler's process on this machine, if its cost is to be shown.
    pub scheduler: Option<u32>,
    /// The same for nats-server.
    pub nats: Option<u32>,
}

impl Plan {
    fn count(&self, rate: f64) -> u64 {
        (rate * self.part.as_secs_f64()).ceil() as u64
    }
}

/// Runs the scenario. Workers and snapshots are deleted afterwards, also when the
/// run is stopped.
///
/// # Errors
/// Nothing was begun: the region has no worker, or a process cannot be looked at.
pub async fn run(run: &Run, bus: &Bus, plan: Plan) -> Result<Report, Error> {
    let jobs = usize::try_from(plan.count(plan.jobs)).unwrap_or(usize::MAX);
    run.check_room(jobs.saturating_mul(2), plan.quota).await?;
    let region = region(run, plan.region.as_deref()).await?;
    let before = run.client().workers().await?.len();
    let fleet = Fleet::new(bus, &region, plan.workers, plan.interval)?;
    // Before anything is made that would have to be taken away.
    let _ = (watched(plan.scheduler)?, watched(plan.nats)?);
    let observer = Arc::new(Observer::start(bus).await?);
    let mut report = Report::new("heartbeats", &plan, run.client().base().as_str());
    let mut found = Found::default();
    let clock = Clock::start();
    let follower = Follower { run: run.clone(), observer, limit: plan.limit, clock };
    found.quiet = beside(&follower, &plan, QUIET).await;
    let both = Box::pin(with_signs(&fleet, &follower, &plan, before, &mut found)).await;
    (found.signs, found.busy) = both;
    report.seconds = clock.begun.elapsed().as_secs_f64();
    report.stopped = run.stop().is_cancelled();
    drop(follower);
    report.left_behind = fleet.remove().await;
    let made = found.quiet.made.drain(..).chain(found.busy.made.drain(..)).collect();
    run.delete_all(made, &mut found.failures).await;
    report.left_behind.extend(run.sweep().await);
    found.tell(&mut report, &plan);
    Ok(report)
}

/// The region of the plan, with a worker whose registry can be named.
async fn region(run: &Run, wanted: Option<&str>) -> Result<RegionStatus, Error> {
    let regions = run.client().regions().await?;
    let is_meant = |region: &RegionStatus| match wanted {
        Some(wanted) => region.id == wanted,
        None => region.default,
    };
    let meant = regions.into_iter().find(is_meant).filter(|region| region.registry.is_some());
    meant.ok_or(Error::NoWorker)
}

/// The second part: once every worker has given its first sign.
async fn with_signs(
    fleet: &Fleet,
    follower: &Follower,
    plan: &Plan,
    before: usize,
    found: &mut Found,
) -> (Signs, Part) {
    let stop = follower.run.stop().child_token();
    let part = async {
        fleet.announced(&stop).await;
        let busy = beside(follower, plan, "with signs of life").await;
        found.seen = seen(&follower.run, plan.workers + before, &mut found.failures).await;
        stop.cancel();
        busy
    };
    tokio::join!(fleet.give_signs(&stop), part)
}

/// How many workers the server knows; that some are missing is a failure.
async fn seen(run: &Run, wanted: usize, failures: &mut Failures) -> usize {
    match run.client().workers().await {
        Ok(workers) => {
            if workers.len() < wanted && !run.stop().is_cancelled() {
                let message = format!("{} of {wanted}", workers.len());
                failures.add(Failure::new("signs", "workers are missing", message));
            }
            workers.len()
        }
        Err(error) => {
            failures.add(Failure::api("workers", &error));
            0
        }
    }
}

/// What is found out beside one part.
#[derive(Debug, Default)]
struct Part {
    active: Latency,
    worker: Latency,
    answer: Latency,
    made: Vec<String>,
    failures: Vec<Failure>,
    scheduler: Option<Usage>,
    nats: Option<Usage>,
}

impl Part {
    fn job(&mut self, job: Job) {
        job.active.into_iter().for_each(|time| self.active.record(time));
        job.worker.into_iter().for_each(|time| self.worker.record(time));
        self.made.extend(job.snapshot);
        self.failures.extend(job.failure);
    }

    /// What a process took; that it is gone is a failure of the part.
    fn usage(&mut self, process: Result<Option<Process>, Error>) -> Option<Usage> {
        let usage = process.and_then(|process| process.map(|it| it.usage()).transpose());
        usage.unwrap_or_else(|error| {
            self.failures.push(Failure::new("process", "gone", error.to_string()));
            None
        })
    }
}

/// Jobs and reads for the length of a part.
async fn beside(follower: &Follower, plan: &Plan, name: &'static str) -> Part {
    let (scheduler, nats) = (watched(plan.scheduler), watched(plan.nats));
    let mut part = Part::default();
    let mut answers = vec![];
    tokio::join!(jobs(follower, plan, name, &mut part), reads(&follower.run, plan, &mut answers));
    for answer in answers {
        match answer {
            Ok(time) => part.answer.record(time),
            Err(failure) => part.failures.push(failure),
        }
    }
    part.scheduler = part.usage(scheduler);
    part.nats = part.usage(nats);
    part
}

fn watched(pid: Option<u32>) -> Result<Option<Process>, Error> {
    pid.map(|pid| Process::watch(Path::new("/proc"), pid)).transpose()
}

async fn jobs(follower: &Follower, plan: &Plan, name: &'static str, part: &mut Part) {
    let count = plan.count(plan.jobs);
    let progress = Progress::new(count);
    progress.say(name);
    // Numbers that the other part does not use.
    let first = if name == QUIET { 0 } else { count };
    let start = |n, due| one(follower.clone(), plan.region.clone(), first + n, due);
    let mut ended = 0;
    let done = |job| {
        ended += 1;
        part.job(job);
        progress.at(ended);
    };
    let schedule = Schedule { count, concurrency: usize::MAX, rate: Some(plan.jobs) };
    schedule.drive(follower.run.stop(), start, done).await;
}

async fn reads(run: &Run, plan: &Plan, answers: &mut Vec<Result<Duration, Failure>>) {
    let (count, rate) = (plan.count(plan.reads), Some(plan.reads));
    let schedule = Schedule { count, concurrency: usize::MAX, rate };
    let start = |_, due| read(run.clone(), due);
    schedule.drive(run.stop(), start, |answer| answers.push(answer)).await;
}

async fn one(follower: Follower, region: Option<String>, n: u64, due: Instant) -> Job {
    let request = follower.run.submit(n, region.as_deref(), tiny());
    follower.follow(due, request).await
}

async fn read(run: Run, due: Instant) -> Result<Duration, Failure> {
    let query = ListSnapshots { limit: Some(1), ..ListSnapshots::default() };
    let answer = run.client().list_snapshots(&query).await;
    answer.map(|_| due.elapsed()).map_err(|error| Failure::api("list", &error))
}

/// Everything that was found out.
#[derive(Debug, Default)]
struct Found {
    quiet: Part,
    busy: Part,
    signs: Signs,
    seen: usize,
    failures: Failures,
}

impl Found {
    fn tell(self, report: &mut Report, plan: &Plan) {
        let Self { quiet, busy, signs, seen, mut failures } = self;
        report.figures = vec![
            Figure::count("workers", plan.workers as u64),
            Figure::count("workers seen", seen as u64),
            Figure::rate("signs of life", signs.count, signs.seconds),
        ];
        let cores = |name, usage: Option<Usage>| {
            usage.map(|usage| Figure { name, value: usage.cores, unit: " cores" })
        };
        let memory = |name, usage: Option<Usage>| {
            usage.map(|usage| Figure { name, value: usage.mebibytes, unit: " MiB" })
        };
        report.figures.extend(
            [
                cores("scheduler, quiet", quiet.scheduler),
                cores("scheduler, with signs", busy.scheduler),
                memory("memory, quiet", quiet.scheduler),
                memory("memory, with signs", busy.scheduler),
                cores("nats, quiet", quiet.nats),
                cores("nats, with signs", busy.nats),
            ]
            .into_iter()
            .flatten(),
        );
        report.add_latency("sign of life stored", &signs.stored);
        for (name, part) in [("quiet", &quiet), ("with signs", &busy)] {
            report.add_latency(format!("{name}: API answer"), &part.answer);
            report.add_latency(format!("{name}: submit to worker"), &part.worker);
            report.add_latency(format!("{name}: submit to active"), &part.active);
        }
        let of_parts = quiet.failures.into_iter().chain(busy.failures);
        of_parts.chain(signs.failures).for_each(|failure| failures.add(failure));
        report.failures = failures;
    }
}
