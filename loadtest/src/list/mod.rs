//! The scenario `list`: a scheduler with very many snapshots, how long it takes to
//! start, how large it is, and how fast it answers lists and reads.
//!
//! Runs a nats-server and a scheduler of its own, below a folder of its own, since
//! nobody wants a million snapshots in theirs; the records are written as the scheduler
//! writes them, straight into its bucket. Refuses to judge: targets are figures beside
//! the figures.

mod measure;
mod records;
mod seed;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::own::{Own, Scheduler};
use crate::report::{Figure, Report};

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Snapshots, all of one organization.
    pub snapshots: u64,
    /// How many of a hundred of them are builds; the others are pulls.
    pub builds_percent: u8,
    /// Requests of each kind that is measured.
    pub requests: u64,
    /// Requests per second.
    pub rate: f64,
    /// Snapshots of a page.
    pub page: u64,
    /// What the records are drawn from.
    pub seed: u64,
    /// The system.
    #[serde(flatten)]
    pub own: Own,
}

/// Runs the scenario. Its processes end with it.
///
/// # Errors
/// The processes cannot be started, or the records not be written.
pub async fn run(plan: &Plan, stop: &CancellationToken) -> Result<Report, Error> {
    let nats = plan.own.nats().await?;
    let empty = plan.own.scheduler(&nats, "scheduler-empty").await?;
    let base = empty.server.process.memory("VmRSS")?;
    drop(empty);
    let seeded = seed::seed(&nats.url(), plan, stop).await?;
    let mut report = Report::new("list", plan, &nats.url());
    report.figures.push(Figure::count("snapshots", seeded.snapshots.len() as u64));
    report.figures.push(Figure { name: "records written", value: seeded.rate, unit: "/s" });
    let scheduler = plan.own.scheduler(&nats, "scheduler-full").await?;
    tell(&scheduler, &mut report, base, seeded.snapshots.len())?;
    measure::run(&scheduler, plan, &seeded, stop, &mut report).await?;
    report.stopped = stop.is_cancelled();
    Ok(report)
}

/// Adds what is to be said about the scheduler's start and size, where one without
/// snapshots takes `base` bytes.
fn tell(
    scheduler: &Scheduler,
    report: &mut Report,
    base: u64,
    snapshots: usize,
) -> Result<(), Error> {
    let server = &scheduler.server;
    let processor = server.process.processor()?;
    let each = |bytes: u64| bytes.saturating_sub(base) as f64 / snapshots.max(1) as f64;
    let (now, most) = (server.process.memory("VmRSS")?, server.process.memory("VmHWM")?);
    let mut figure = |name, value, unit| report.figures.push(Figure { name, value, unit });
    figure("start", server.took.as_secs_f64(), " s");
    figure("start, target", 20.0, " s");
    figure("start, processor", processor, " s");
    figure("start, processor, NATS", scheduler.nats_processor, " s");
    figure("memory", now as f64 / 1e6, " MB");
    figure("memory without", base as f64 / 1e6, " MB");
    figure("memory each", each(now), " B");
    figure("memory each, target", 1500.0, " B");
    figure("memory each, peak", each(most), " B");
    Ok(())
}
