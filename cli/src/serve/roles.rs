//! `slipway scheduler` and `slipway worker`: configuration, telemetry, run until
//! a signal, finish what runs, stop with grace.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use slipway_runtime::Tasks;
use slipway_runtime::config::{self, EXIT_USAGE};
use slipway_runtime::tasks::Signals;
use slipway_runtime::telemetry::{self, Format, Telemetry};
use slipway_worker::config::Config;
use tokio::task::{JoinError, JoinHandle};

/// How long a process may take to stop, once it has nothing more to finish.
const GRACE: Duration = Duration::from_secs(10);

/// Options of a role.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// Configuration file (TOML); the keys are described in docs/configuration.md
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Log lines as JSON objects, for collectors
    #[arg(long)]
    log_json: bool,
}

impl RoleArgs {
    fn format(&self) -> Format {
        if self.log_json { Format::Json } else { Format::Text }
    }
}

/// `slipway scheduler`.
pub fn scheduler(args: &RoleArgs) -> ExitCode {
    let telemetry = start(args.format(), "slipway-scheduler");
    let config = match load::<slipway_scheduler::config::File, _>(&args.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let shared = telemetry.clone();
    let code = serve(Duration::ZERO, |tasks| async move {
        Box::pin(slipway_scheduler::run(config, &tasks, &shared)).await
    });
    telemetry.finish();
    code
}

/// `slipway worker`.
pub fn worker(args: &RoleArgs) -> ExitCode {
    let telemetry = start(args.format(), "slipway-worker");
    let config: Config = match load::<slipway_worker::config::File, _>(&args.config) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let (shared, drain) = (telemetry.clone(), config.drain_grace);
    let code = serve(drain, |tasks| async move {
        Box::pin(slipway_worker::run(config, &tasks, &shared)).await
    });
    telemetry.finish();
    code
}

/// Starts telemetry; messages over NATS go on in the trace of their sender.
pub(super) fn start(format: Format, service: &'static str) -> Telemetry {
    let telemetry = telemetry::init(format, service);
    slipway_bus::trace::follow(telemetry::trace::current);
    telemetry
}

/// Reads and checks a configuration; a bad one is explained in one message.
fn load<F, C>(path: &Path) -> Result<C, ExitCode>
where
    F: DeserializeOwned,
    C: TryFrom<F, Error = config::Error>,
{
    config::load::<F>(path).and_then(C::try_from).map_err(|error| {
        eprintln!("error: {}: {}", path.display(), telemetry::chain(&error));
        ExitCode::from(EXIT_USAGE)
    })
}

/// Runs a role until it ends or a signal comes. What runs then may go on for
/// `drain`, or until a second signal.
pub(super) fn serve<F, Fut, E>(drain: Duration, role: F) -> ExitCode
where
    F: FnOnce(Tasks) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("error: cannot listen to signals: {error}");
                return ExitCode::FAILURE;
            }
        };
        let tasks = Tasks::new();
        let running = tasks.spawn("role", role(tasks.clone()));
        let Some(outcome) = until_stopped(running, &tasks, drain, &mut signals).await else {
            tracing::warn!("not everything stopped in time");
            return ExitCode::FAILURE;
        };
        if !tasks.shut_down(GRACE).await {
            tracing::warn!("not every task stopped in time");
        }
        match outcome {
            Ok(Ok(())) if tasks.have_failed() => ExitCode::FAILURE,
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(error)) => {
                tracing::error!("{}", telemetry::chain(&error));
                ExitCode::FAILURE
            }
            Err(error) => {
                tracing::error!(%error, "the process failed");
                ExitCode::FAILURE
            }
        }
    })
}

/// What came of the role: by itself, while it drained, or after it was told to
/// stop. `None` if it does not stop.
async fn until_stopped<T>(
    mut running: JoinHandle<T>,
    tasks: &Tasks,
    drain: Duration,
    signals: &mut Signals,
) -> Option<Result<T, JoinError>> {
    // Cancel-safe, here and below: a join handle can be awaited again, and signals
    // are not lost.
    let signal = tokio::select! {
        outcome = &mut running => return Some(outcome),
        signal = signals.next() => signal,
    };
    tracing::info!(signal, "stopping");
    if !drain.is_zero() {
        tasks.draining().cancel();
        tokio::select! {
            outcome = &mut running => return Some(outcome),
            () = tokio::time::sleep(drain) => {
                tracing::warn!("the time to finish is over: stopping at once");
            }
            signal = signals.next() => tracing::info!(signal, "stopping at once"),
        }
    }
    tasks.shutdown().cancel();
    tokio::time::timeout(GRACE, running).await.ok()
}
