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
mod system;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::builds::seconds;
use crate::error::Error;
use crate::report::{Figure, Report};
use system::System;

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
    /// How long the scheduler may take to start.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// The program `slipway`.
    #[serde(skip)]
    pub program: PathBuf,
    /// The program nats-server.
    #[serde(skip)]
    pub nats_server: PathBuf,
    /// Where the processes keep and say everything.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// Runs the scenario. Its processes end with it.
///
/// # Errors
/// The processes cannot be started, or the records not be written.
pub async fn run(plan: &Plan, stop: &CancellationToken) -> Result<Report, Error> {
    let nats = system::start_nats(plan).await?;
    let empty = System::start(plan, &nats, "empty").await?;
    let base = empty.resident();
    drop(empty);
    let seeded = seed::seed(&nats.url(), plan, stop).await?;
    let mut report = Report::new("list", plan, &nats.url());
    report.figures.push(Figure::count("snapshots", seeded.snapshots.len() as u64));
    report.figures.push(Figure { name: "records written", value: seeded.rate, unit: "/s" });
    let system = System::start(plan, &nats, "full").await?;
    system.tell(&mut report, base, seeded.snapshots.len());
    measure::run(&system, plan, &seeded, stop, &mut report).await?;
    report.stopped = stop.is_cancelled();
    Ok(report)
}
