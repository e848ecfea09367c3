//! The scenario `recovery`: how long a job stands still when the worker that runs it
//! is killed, and how long a process runs on whose job was cancelled.
//!
//! Runs a system of its own, since it kills what it measures. Invariant: a kill is
//! counted from before the signal to the moment at which the scheduler recorded the
//! next attempt's start, a cancel from before the request to the process's end.

mod cancels;
mod kills;

use std::time::Duration;

use serde::Serialize;
use slipway_api::own::Job;
use slipway_api::types::Snapshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::builds::seconds;
use crate::error::Error;
use crate::failures::Failure;
use crate::own::Own;
use crate::report::{Figure, Report};
use crate::run::Run;

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Workers killed.
    pub kills: u64,
    /// Jobs cancelled; none without BuildKit.
    pub cancels: u64,
    /// BuildKit for the jobs that are cancelled; on this machine, so that the end of
    /// their processes can be seen.
    pub buildkit: Option<String>,
    /// Image with a shell, for these.
    pub image: String,
    /// After so many seconds what is waited for counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// The system.
    #[serde(flatten)]
    pub own: Own,
}

/// Runs the scenario. Its processes end with it.
///
/// # Errors
/// The processes cannot be started.
pub async fn run(plan: &Plan, stop: &CancellationToken) -> Result<Report, Error> {
    let nats = plan.own.nats().await?;
    let scheduler = plan.own.scheduler(&nats, "scheduler").await?;
    let client = scheduler.client()?;
    let run = Run::new(client.clone(), stop.clone());
    let mut report = Report::new("recovery", plan, &scheduler.url());
    let begun = Instant::now();
    kills::Kills::new(plan, &nats, &run).run(&mut report).await?;
    if let Some(buildkit) = &plan.buildkit {
        let settings = format!("buildkit = {buildkit:?}\nslots = 2\n");
        let _worker = plan.own.worker((&nats, &client), "buildkit", &settings).await?;
        cancels::run(plan, &run, &mut report).await;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    report.stopped = stop.is_cancelled();
    Ok(report)
}

/// Looks at the job of a snapshot until it is as it should be.
async fn until<T>(
    run: &Run,
    snapshot: &Snapshot,
    limit: Duration,
    what: &'static str,
    wanted: impl Fn(&Job) -> Option<T>,
) -> Result<T, Failure> {
    let id = snapshot.job_id.as_deref().unwrap_or_default();
    let looking = async {
        loop {
            let job = run.client().job(id).await.map_err(|error| Failure::api("job", &error))?;
            if let Some(found) = wanted(&job) {
                return Ok(found);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // Cancel-safe: what is dropped only looks.
    tokio::select! {
        found = tokio::time::timeout(limit, looking) => match found {
            Ok(found) => found,
            Err(_) => Err(Failure::new(what, "too slow", format!("job {id}"))),
        },
        () = run.stop().cancelled() => Err(Failure::new(what, "stopped", "the run was stopped")),
    }
}

/// A figure and its target, both in milliseconds at the 99th percentile.
fn tell(report: &mut Report, name: &'static str, p99: f64, target: f64) {
    report.figures.push(Figure { name, value: p99, unit: " ms" });
    report.figures.push(Figure { name: "  its target", value: target, unit: " ms" });
}
