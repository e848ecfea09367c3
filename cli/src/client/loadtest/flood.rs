//! `slipway loadtest flood`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slipway_loadtest::{Run, flood};

use super::super::error::Error;
use super::super::interrupt::Interrupt;
use super::nats::Nats;
use super::{Out, plotted, rate, stoppable, time};

pub(super) const HELP: &str = "\
Needs a key that may operate the server (`admin`): it makes the organizations
loadtest-001 and loadtest-002, which stay for the next run, and gives each a key,
which is revoked at the end. One of them asks for little at a steady rate: alone,
then behind a quarter of the other's flood, then behind all of it. Every snapshot is
deleted at the end, also on Ctrl-C.

Examples:
  slipway loadtest flood
  slipway loadtest flood --flood 2000 --count 40 --rate 2 --region us";

/// `slipway loadtest flood`
#[derive(Debug, Args)]
pub struct Flood {
    /// Snapshots that the one asks for at once
    #[arg(long, value_name = "N", default_value_t = 500)]
    #[arg(value_parser = clap::value_parser!(u64).range(4..=1_000_000))]
    flood: u64,
    /// Snapshots that the other asks for in each phase
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000))]
    count: u64,
    /// How many of these per second
    #[arg(long, value_name = "PER_SECOND", default_value = "2", value_parser = rate)]
    rate: f64,
    /// Region to ask for [default: the server's]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// How long a job may take before it counts as failed
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = time)]
    timeout: Duration,
    /// Draw the latencies over time into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the report to this file as JSON, too; `-` writes it instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    nats: Nats,
}

impl Flood {
    pub(super) async fn run(self, run: &Run, interrupt: &Interrupt) -> Result<(), Error> {
        let out = Out::open(self.json)?;
        let bus = self.nats.bus().await?;
        let plan = flood::Plan {
            flood: self.flood,
            count: self.count,
            rate: self.rate,
            region: self.region,
            limit: self.timeout,
        };
        let scenario = Box::pin(flood::run(run, &bus, plan));
        let report = stoppable(run.stop(), interrupt, scenario).await?;
        plotted(self.plot, &report)?;
        out.show(&report)
    }
}
