//! `slipway loadtest flood`.

use clap::Args;
use slipway_loadtest::{Run, flood};

use super::super::error::Error;
use super::super::interrupt::Interrupt;
use super::nats::Watched;
use super::rate;

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
    #[command(flatten)]
    watched: Watched,
}

impl Flood {
    pub(super) async fn run(self, run: &Run, interrupt: &Interrupt) -> Result<(), Error> {
        let plan = flood::Plan {
            flood: self.flood,
            count: self.count,
            rate: self.rate,
            region: self.region,
            limit: self.watched.timeout,
        };
        self.watched.run(run, interrupt, async |bus| flood::run(run, &bus, plan).await).await
    }
}
