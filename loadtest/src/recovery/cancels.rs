//! Cancelled jobs, whose processes are looked for on this machine.

use std::path::PathBuf;
use std::time::Duration;

use slipway_api::types::CreateBuildInfo;
use tokio::time::Instant;

use super::{Plan, tell, until};
use crate::failures::Failure;
use crate::latency::Latency;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::Run;

/// Between two looks for a process.
const GLANCE: Duration = Duration::from_millis(2);
/// Milliseconds.
const TARGET: f64 = 2_000.0;

/// Cancels as many jobs as planned, and adds the times to the report.
pub(super) async fn run(plan: &Plan, run: &Run, report: &mut Report) {
    let (mut answers, mut ends) = (Latency::default(), Latency::default());
    let progress = Progress::new(plan.cancels);
    progress.say("cancelling jobs");
    for n in 0..plan.cancels {
        if run.stop().is_cancelled() {
            break;
        }
        match cancel(plan, run, n).await {
            Ok((answer, end)) => {
                answers.record(answer);
                ends.record(end);
            }
            Err(failure) => report.failures.add(failure),
        }
        progress.at(n + 1);
    }
    report.add_latency("cancel answer", &answers);
    report.add_latency("cancel to process gone", &ends);
    if let Some(summary) = ends.summary() {
        tell(report, "cancel to gone p99", summary.p99, TARGET);
    }
}

/// Builds something without an end, and cancels it when its process runs.
async fn cancel(plan: &Plan, run: &Run, n: u64) -> Result<(Duration, Duration), Failure> {
    let marker = format!("slipway-loadtest-{:032x}", rand::random::<u128>());
    let steps = format!("FROM {}\nRUN while true; do : {marker}; sleep 0.1; done\n", plan.image);
    let build = CreateBuildInfo { dockerfile_content: steps, ..CreateBuildInfo::default() };
    let snapshot = run.submit(n + 1_000_000, None, build).await?;
    let ended = async {
        until(run, &snapshot, plan.limit, "start", |job| (job.state == "running").then_some(()))
            .await?;
        let process = process(&marker, plan.limit).await?;
        let asked = Instant::now();
        let job = snapshot.job_id.as_deref().unwrap_or_default();
        let cancelled = run.client().cancel_job(job).await;
        cancelled.map_err(|error| Failure::api("cancel", &error))?;
        let answer = asked.elapsed();
        while process.exists() {
            if asked.elapsed() > plan.limit {
                return Err(Failure::new("cancel", "too slow", format!("job {job}")));
            }
            tokio::time::sleep(GLANCE).await;
        }
        Ok((answer, asked.elapsed()))
    };
    let ended = ended.await;
    run.delete_id(&snapshot.id).await?;
    ended
}

/// The place in `/proc` of the process whose command line holds the marker.
async fn process(marker: &str, limit: Duration) -> Result<PathBuf, Failure> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut places = processes.map(|entry| entry.path());
        let found = places.find(|place| {
            let line = std::fs::read(place.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(marker)
        });
        if let Some(found) = found {
            return Ok(found);
        }
        tokio::time::sleep(GLANCE * 10).await;
    }
    Err(Failure::new("start", "no process", "is BuildKit on this machine?"))
}
