//! `slipway loadtest list`: a scheduler of the run's own with very many snapshots.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slipway_loadtest::list::Plan;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::interrupt::Interrupt;
use super::loadtest::{self, Out, stoppable};
use crate::serve::dev::programs;

pub const HELP: &str = "\
Starts a nats-server and a scheduler of its own, below a folder of its own; no server
that runs already is touched. Writes the records of finished snapshots straight into
NATS, as the scheduler would have, then starts the scheduler and measures how long it
takes, how much memory it has, and how fast it answers lists and reads. What the rows
of the table mean is explained in loadtest/README.md.

A million snapshots take about 4 GB of disk and some minutes.

Examples:
  slipway loadtest list
  slipway loadtest list --snapshots 1000000 --builds 100 --json report.json";

/// `slipway loadtest list`
#[derive(Debug, Args)]
pub struct List {
    /// Snapshots, all of one organization
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=20_000_000))]
    snapshots: u64,
    /// How many of a hundred are builds; the others are pulls
    #[arg(long, value_name = "PERCENT", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    builds: u8,
    /// Requests of each kind
    #[arg(long, value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// Requests per second; times count from when a request was due
    #[arg(long, value_name = "PER_SECOND", default_value = "100", value_parser = loadtest::rate)]
    rate: f64,
    /// Snapshots of a page
    #[arg(long, value_name = "N", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=200))]
    page: u64,
    /// What the records are drawn from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How long the scheduler may take to start
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// nats-server to use, 2.15.1 or newer [default: one beside this program, or on PATH]
    #[arg(long, env = "SLIPWAY_NATS_SERVER", value_name = "PROGRAM")]
    nats_server: Option<PathBuf>,
    /// Folder of the run, which stays [default: a new one, removed if all went well]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write the report to this file as JSON, too; `-` writes it instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(mut args: List) -> Result<(), Error> {
    let out = Out::open(args.json.take())?;
    let (plan, kept) = args.plan()?;
    let (interrupt, stop) = (Interrupt::install(), CancellationToken::new());
    let scenario = Box::pin(slipway_loadtest::list::run(&plan, &stop));
    let report = stoppable(&stop, &interrupt, scenario).await?;
    if let Some(folder) = kept.filter(|_| report.is_success()) {
        // What is left of it harms nobody.
        let _gone = std::fs::remove_dir_all(folder);
    }
    out.show(&report)
}

impl List {
    /// The plan, and the folder if it is to be removed after a good run.
    fn plan(self) -> Result<(Plan, Option<PathBuf>), Error> {
        let nats_server = programs::nats_server(self.nats_server.as_deref());
        let nats_server = nats_server.map_err(|error| Error::NatsServer(error.into()))?;
        let own = self.folder.is_none();
        let folder = self.folder.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("slipway-list-{:08x}", rand::random::<u32>()))
        });
        let unusable = |source| Error::Report { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        let plan = Plan {
            snapshots: self.snapshots,
            builds_percent: self.builds,
            requests: self.requests,
            rate: self.rate,
            page: self.page,
            seed: self.seed,
            limit: self.timeout,
            program: std::env::current_exe()?,
            nats_server,
            folder: folder.clone(),
        };
        Ok((plan, own.then_some(folder)))
    }
}
