//! The scenario `builds`: many small builds, each timed from its request to the
//! active snapshot.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use slipway_api::events::JobEvent;
use slipway_api::types::{CreateBuildInfo, Snapshot};
use slipway_domain::LogEvent;
use tokio::time::Instant;

use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::job;
use crate::latency::Latency;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;
use crate::schedule::Schedule;

/// What is built unless another Dockerfile is given: one layer with one file,
/// different for each build, that needs no base image and no network.
pub const DOCKERFILE: &str = "\
FROM scratch
ARG SLIPWAY_LOADTEST
COPY <<FILE /loadtest
${SLIPWAY_LOADTEST}
FILE
";

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Builds in all.
    pub count: u64,
    /// Builds at once, at most; from 1.
    pub concurrency: usize,
    /// Builds begun per second, greater than 0; see [`Schedule::rate`].
    pub rate: Option<f64>,
    /// The region; the server's default if absent.
    pub region: Option<String>,
    /// Text of the Dockerfile. It has the build argument `SLIPWAY_LOADTEST`,
    /// another one for every build.
    pub dockerfile: String,
    /// Whether BuildKit's cache is left out.
    pub no_cache: bool,
    /// After so many seconds a build counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// Snapshots that the organization may hold.
    pub quota: usize,
}

/// Durations are seconds in a report.
pub(crate) fn seconds<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

/// The smallest build, of [`DOCKERFILE`].
pub(crate) fn tiny() -> CreateBuildInfo {
    CreateBuildInfo { dockerfile_content: DOCKERFILE.to_owned(), ..CreateBuildInfo::default() }
}

/// Runs the scenario. Its snapshots are deleted as soon as their builds are
/// over, also when the run is stopped.
///
/// # Errors
/// Nothing was begun: the server cannot be asked, or has no room.
pub async fn run(run: &Run, plan: Plan) -> Result<Report, Error> {
    let Plan { count, concurrency, rate, .. } = plan;
    let at_once = concurrency.min(usize::try_from(count).unwrap_or(usize::MAX));
    run.check_room(at_once, plan.quota).await?;
    let mut report = Report::new("builds", &plan, run.client().base().as_str());
    let plan = Arc::new(plan);
    let progress = Progress::new(count);
    let mut tally = Tally::default();
    let begun = Instant::now();
    let start = |n, due| one(run.clone(), plan.clone(), n, due);
    let done = |build| {
        tally.add(build);
        progress.at(tally.ended);
        progress.say(tally.line());
    };
    Schedule { count, concurrency, rate }.drive(run.stop(), start, done).await;
    report.seconds = begun.elapsed().as_secs_f64();
    report.stopped = run.stop().is_cancelled();
    progress.say("deleting what is left");
    report.left_behind = run.sweep().await;
    tally.tell(&mut report, rate);
    Ok(report)
}

/// What became of one build.
#[derive(Debug, Default)]
struct Build {
    /// From when it was due to when it was asked for.
    late: Duration,
    submit: Option<Duration>,
    claim: Option<Duration>,
    first_line: Option<Duration>,
    active: Option<Duration>,
    attempts: usize,
    failures: Vec<Failure>,
    is_abandoned: bool,
}

async fn one(run: Run, plan: Arc<Plan>, n: u64, due: Instant) -> Build {
    let mut build = Build { late: due.elapsed(), ..Build::default() };
    let wanted = CreateBuildInfo {
        dockerfile_content: plan.dockerfile.clone(),
        no_cache: plan.no_cache,
        ..CreateBuildInfo::default()
    };
    let snapshot = match run.submit(n, plan.region.as_deref(), wanted).await {
        Ok(snapshot) => snapshot,
        Err(failure) => {
            build.failures.push(failure);
            return build;
        }
    };
    build.submit = Some(due.elapsed());
    // Cancel-safe: what is dropped only reads.
    let watched = tokio::select! {
        watched = tokio::time::timeout(plan.limit, watch(&run, &snapshot, due, &mut build)) => {
            watched.unwrap_or_else(|_| {
                let message = format!("not over after {} s", plan.limit.as_secs_f64());
                Err(Failure::new("build", "too slow", message))
            })
        }
        () = run.stop().cancelled() => {
            build.is_abandoned = true;
            Ok(())
        }
    };
    build.failures.extend(watched.err());
    build.failures.extend(run.delete(&snapshot).await.err());
    build
}

/// Waits for the end of a build, and takes its times.
async fn watch(
    run: &Run,
    snapshot: &Snapshot,
    due: Instant,
    build: &mut Build,
) -> Result<(), Failure> {
    let id = job::id(snapshot)?;
    let (mut first_line, mut active) = (None, None);
    let read = job::read(run.client(), id, true, |event| {
        if is_line(event) {
            first_line.get_or_insert_with(|| due.elapsed());
        }
        if is_success(event) {
            active.get_or_insert_with(|| due.elapsed());
        }
    });
    let read = read.await;
    build.first_line = first_line;
    read?;
    let job = run.client().job(id).await.map_err(|error| Failure::api("get", &error))?;
    let claimed = job.attempts.first().and_then(|first| first.started_at);
    build.claim = claimed.map(|at| job::between(job.created_at, at));
    build.attempts = job.attempts.len();
    job::judge(run.client(), &job).await?;
    build.active = active;
    Ok(())
}

fn is_line(event: &JobEvent) -> bool {
    matches!(event, JobEvent::Log(entry) if matches!(entry.event, LogEvent::Line { .. }))
}

/// Whether this says that the snapshot is active: it becomes so together with
/// its job, and the log ends afterwards.
fn is_success(event: &JobEvent) -> bool {
    match event {
        JobEvent::Job(job) => job.state == "succeeded",
        JobEvent::Log(entry) => {
            matches!(&entry.event, LogEvent::End { state, .. } if state == "succeeded")
        }
        JobEvent::Reconnecting { .. } => false,
    }
}

/// All builds together.
#[derive(Debug, Default)]
struct Tally {
    ended: u64,
    active: u64,
    failed: u64,
    abandoned: u64,
    retried: u64,
    late: Latency,
    submit: Latency,
    claim: Latency,
    first_line: Latency,
    to_active: Latency,
    failures: Failures,
}

impl Tally {
    fn add(&mut self, build: Build) {
        self.ended += 1;
        self.late.record(build.late);
        for (times, time) in [
            (&mut self.submit, build.submit),
            (&mut self.claim, build.claim),
            (&mut self.first_line, build.first_line),
            (&mut self.to_active, build.active),
        ] {
            if let Some(time) = time {
                times.record(time);
            }
        }
        self.retried += u64::from(build.attempts > 1);
        if !build.failures.is_empty() {
            self.failed += 1;
        } else if build.is_abandoned {
            self.abandoned += 1;
        } else {
            self.active += 1;
        }
        build.failures.into_iter().for_each(|failure| self.failures.add(failure));
    }

    fn line(&self) -> String {
        let median = self.to_active.summary().map_or(0.0, |summary| summary.p50);
        let failed = self.failed;
        format!("{} active, {failed} failed, half of them within {median:.0} ms", self.active)
    }

    fn tell(self, report: &mut Report, rate: Option<f64>) {
        report.figures = vec![
            Figure::count("active", self.active),
            Figure::count("failed", self.failed),
            Figure::count("abandoned", self.abandoned),
            Figure::count("with several attempts", self.retried),
            Figure::rate("active per second", self.active, report.seconds),
        ];
        if let Some(value) = rate {
            report.figures.push(Figure { name: "asked for", value, unit: "/s" });
            report.add_latency("late start", &self.late);
        }
        report.add_latency("submit answer", &self.submit);
        report.add_latency("claim", &self.claim);
        report.add_latency("first log line", &self.first_line);
        report.add_latency("active", &self.to_active);
        report.failures = self.failures;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_active_failed_or_abandoned() {
        let second = Some(Duration::from_secs(1));
        let failure = Failure::new("delete", "unavailable", "later");
        let mut tally = Tally::default();
        tally.add(Build { submit: second, active: second, attempts: 2, ..Build::default() });
        tally.add(Build { submit: second, is_abandoned: true, ..Build::default() });
        tally.add(Build { active: second, failures: vec![failure], ..Build::default() });
        assert_eq!((tally.ended, tally.active, tally.failed, tally.abandoned), (3, 1, 1, 1));
        assert_eq!(tally.retried, 1);
        assert_eq!(tally.line(), "1 active, 1 failed, half of them within 1000 ms");
        let mut report = Report::new("builds", &(), "http://s/api");
        tally.tell(&mut report, None);
        let rows: Vec<_> =
            report.latencies.iter().map(|row| (&*row.name, row.summary.count)).collect();
        assert_eq!(rows, [("submit answer", 2), ("active", 2)]);
        assert!(!report.is_success());
    }

    #[test]
    fn the_default_dockerfile_differs_from_build_to_build() {
        assert!(DOCKERFILE.contains(&format!("ARG {}\n", crate::run::MARKER)));
    }
}
