//! `slipway dev`: the whole stack on one machine.
//!
//! Owns the data folder and the child processes: nats-server, the scheduler and
//! one worker or more for each region. Invariant: no child outlives this
//! process, and a second start on the same folder finds everything again.

mod authority;
mod child;
mod layout;
pub mod programs;
mod stack;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use slipway_runtime::tasks;

use layout::Layout;
use stack::Stack;

/// Exit code for a machine that lacks something (`EX_UNAVAILABLE`, sysexits.h).
const EXIT_UNAVAILABLE: u8 = 69;

/// Options of the development stack.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where everything is kept: queues, records, object stores, logs
    #[arg(long, default_value = ".slipway", value_name = "DIR")]
    data_dir: PathBuf,
    /// File to touch once everything serves; removed on exit
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// BuildKit to use: docker:///SOCKET, unix:///SOCKET or tcp://HOST:PORT
    /// [default: BUILDKIT_HOST, DOCKER_HOST, or a socket found on this machine]
    #[arg(long, env = "SLIPWAY_BUILDKIT", value_name = "ENDPOINT")]
    buildkit: Option<String>,
    /// nats-server to use, 2.15.1 or newer [default: one beside this program, or on PATH]
    #[arg(long, env = "SLIPWAY_NATS_SERVER", value_name = "PROGRAM")]
    nats_server: Option<PathBuf>,
    /// Workers in each region
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16))]
    workers: u32,
    /// Jobs that each worker runs at once
    #[arg(long, default_value_t = 2, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    slots: u32,
    /// How long the lease of a worker that died stays
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = humantime::parse_duration)]
    lease: Duration,
    /// How long a build may take
    #[arg(long, default_value = "60min", value_name = "TIME", value_parser = humantime::parse_duration)]
    build_time_limit: Duration,
    /// Have this machine trust the stack's authority, for loopback alone (needs root): Daytona's
    /// SDK for Python uploads to no other
    #[arg(long)]
    trust: bool,
    /// Object stores in S3: regions lie below URL/REGION, contexts below
    /// URL/contexts; credentials come from the usual AWS variables
    /// [default: folders below the data folder]
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    store: Option<url::Url>,
}

/// `slipway dev`.
pub fn run(args: &DevArgs) -> ExitCode {
    // One thread: the kernel ties the children's lives to the thread that
    // started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("cannot start the runtime").and_then(|runtime| {
        let result = runtime.block_on(serve(args));
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_UNAVAILABLE)
        }
    }
}

async fn serve(args: &DevArgs) -> anyhow::Result<()> {
    let signal = tasks::termination();
    let mut signal = std::pin::pin!(signal);
    let layout = Layout::prepare(args)?;
    let mut stack = Stack::start(args, &layout).await?;
    // Cancel-safe: whichever comes first, the stack is stopped below.
    let outcome = tokio::select! {
        outcome = stack.ready() => outcome,
        _ = &mut signal => Ok(false),
    };
    if let Ok(true) = outcome {
        let told = layout.announce(args, &stack);
        if told.is_ok() {
            // Never ends by itself: dead children are started again.
            tokio::select! {
                () = stack.supervise() => {}
                _ = &mut signal => {}
            }
        }
        layout.withdraw(args);
        eprintln!("slipway dev: stopping");
        stack.stop().await;
        return told;
    }
    stack.stop().await;
    outcome.map(|_| ())
}
