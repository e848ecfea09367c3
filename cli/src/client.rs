//! The commands of a user: snapshots, jobs, workers, regions.
//!
//! Owns what the user sees and types. Refuses to know how the server works: it
//! speaks through [`slipway_api::Client`] alone.
//!
//! Invariant: what is meant for programs goes to standard output, and nothing
//! else does; complaints and live progress go to standard error.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

mod accounts;
mod args;
mod chaos;
mod connect;
mod context;
mod create;
mod credentials;
mod error;
mod follow;
mod format;
mod interrupt;
mod jobs;
mod loadtest;
mod logs;
mod report;
mod screen;
mod show;

pub use args::WorkerCommand;
use args::{JobCommand, RegionCommand, SnapshotCommand};
use error::Error;
pub use error::Exit;

/// What `slipway --help` says at its end.
pub const HELP: &str = "\
Environment:
  SLIPWAY_API_URL  where the server is, for example http://127.0.0.1:3000/api
  SLIPWAY_API_KEY  who you are
  Without either, DAYTONA_API_URL and DAYTONA_API_KEY are used.

Exit codes:
  0 well · 1 the build or operation failed · 64 wrong usage or settings
  69 server not reachable · 77 not authorized · 130 interrupted

Examples:
  slipway snapshot create hello --dockerfile Dockerfile --context .
  slipway snapshot logs hello -f
  slipway snapshot list";

/// A user's command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, list, look at and delete snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look at the jobs that make snapshots, cancel them, redrive dead ones
    #[command(subcommand)]
    Job(JobCommand),
    /// Look at the workers that run jobs; `slipway worker` also runs them, so
    /// the program's own command line has it.
    #[command(skip)]
    Worker(WorkerCommand),
    /// Keep credentials for the registries that images come from
    #[command(subcommand)]
    RegistryCredential(credentials::CredentialCommand),
    /// Look at organizations and their limits, and set them
    #[command(subcommand)]
    Organization(accounts::OrganizationCommand),
    /// Make and revoke API keys
    #[command(subcommand)]
    ApiKey(accounts::KeyCommand),
    /// Look at the regions where snapshots can be made
    #[command(subcommand)]
    Region(RegionCommand),
    /// Drive the server with work, measure it and check what it answers
    #[command(subcommand)]
    Loadtest(loadtest::Command),
    /// Print a completion script for a shell
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

const COMPLETIONS_HELP: &str = "\
Examples:
  slipway completions bash > ~/.local/share/bash-completion/completions/slipway
  slipway completions zsh > ~/.zfunc/_slipway
  slipway completions fish > ~/.config/fish/completions/slipway.fish";

/// Runs a command to its end, says what went wrong, and gives the exit code.
pub fn run(command: Command, cli: &mut clap::Command) -> ExitCode {
    if let Command::Completions { shell } = command {
        clap_complete::generate(shell, cli, "slipway", &mut io::stdout());
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => return error::report(&Error::Runtime(source)),
    };
    let outcome = runtime.block_on(dispatch(command));
    // A pass over a large context may still be running on its own thread.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error::report(&error),
    }
}

async fn dispatch(command: Command) -> Result<(), Error> {
    if let Command::Loadtest(loadtest::Command::Chaos(args)) = command {
        // It brings a server of its own.
        return chaos::run(*args).await;
    }
    let client = connect::from_environment()?;
    match command {
        Command::Snapshot(SnapshotCommand::Create(args)) => create::run(&client, args).await,
        Command::Snapshot(SnapshotCommand::Logs(args)) => logs::run(&client, args).await,
        Command::Snapshot(SnapshotCommand::List(args)) => show::snapshots(&client, &args).await,
        Command::Snapshot(SnapshotCommand::Get(args)) => show::snapshot(&client, &args).await,
        Command::Snapshot(SnapshotCommand::Activate(args)) => show::activate(&client, &args).await,
        Command::Snapshot(SnapshotCommand::Deactivate(args)) => {
            show::deactivate(&client, &args).await
        }
        Command::Snapshot(SnapshotCommand::Delete(args)) => show::delete(&client, &args).await,
        Command::Job(command) => jobs::run(&client, command).await,
        Command::Worker(WorkerCommand::List(args)) => show::workers(&client, &args).await,
        Command::Region(RegionCommand::List(args)) => show::regions(&client, &args).await,
        Command::Region(RegionCommand::RotateKey(args)) => {
            credentials::rotate_key(&client, &args).await
        }
        Command::RegistryCredential(command) => credentials::run(&client, command).await,
        Command::Organization(command) => accounts::organization(&client, command).await,
        Command::ApiKey(command) => accounts::api_key(&client, command).await,
        Command::Loadtest(command) => Box::pin(loadtest::run(client, command)).await,
        Command::Completions { .. } => Ok(()),
    }
}

/// The Dockerfile that is meant: the one named, or the one in the context.
fn dockerfile_path(args: &args::Create) -> PathBuf {
    args.dockerfile.clone().unwrap_or_else(|| args.context.join("Dockerfile"))
}
