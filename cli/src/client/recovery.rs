//! `slipway loadtest recovery`: workers that are killed, jobs that are cancelled.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slipway_loadtest::recovery::{self, Plan};
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::interrupt::Interrupt;
use super::loadtest::{Out, stoppable};
use super::own::OwnArgs;

pub const HELP: &str = "\
Starts a nats-server, a scheduler and workers of its own, with the settings that they
have by default; no server that runs already is touched. Workers that run a job are
killed (kill -9), and it is measured how long it takes until the job runs on another.
With a BuildKit on this machine, builds are cancelled, and it is measured how long
their processes are still there.

Examples:
  slipway loadtest recovery --kills 12
  slipway loadtest recovery --kills 0 --cancels 50 --buildkit docker:///var/run/docker.sock";

/// `slipway loadtest recovery`
#[derive(Debug, Args)]
pub struct Recovery {
    /// Workers to kill, two at a time
    #[arg(long, value_name = "N", default_value_t = 12)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000))]
    kills: u64,
    /// Builds to cancel, one after the other, where there is a BuildKit
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=10_000))]
    cancels: u64,
    /// BuildKit of the builds that are cancelled, on this machine
    #[arg(long, env = "SLIPWAY_BUILDKIT", value_name = "ENDPOINT")]
    buildkit: Option<String>,
    /// Image with a shell, for these
    #[arg(long, env = "SLIPWAY_BASE_IMAGE", value_name = "IMAGE", default_value = "busybox")]
    image: String,
    /// How long anything may take that is waited for
    #[arg(long, value_name = "TIME", default_value = "2min", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    own: OwnArgs,
    /// Write the report to this file as JSON, too; `-` writes it instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(args: Recovery) -> Result<(), Error> {
    let out = Out::open(args.json)?;
    let (own, folder) = args.own.system("recovery", args.timeout)?;
    let plan = Plan {
        kills: args.kills,
        cancels: args.cancels,
        buildkit: args.buildkit.filter(|_| args.cancels > 0),
        image: args.image,
        limit: args.timeout,
        own,
    };
    let (interrupt, stop) = (Interrupt::install(), CancellationToken::new());
    let scenario = Box::pin(recovery::run(&plan, &stop));
    let report = stoppable(&stop, &interrupt, scenario).await?;
    folder.clear(&report);
    out.show(&report)
}
