//! The `slipway` binary: one program for servers and for their users.
//!
//! Owns the command line and the way from an outcome to an exit code. What a
//! command does is in the module of its name.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::process::{self, Resource, Rlimit};

mod client;
mod serve;

/// A million records in memory are many small pieces that one thread makes and another
/// one frees; the system's allocator keeps more room for them, and takes longer.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Builds named sandbox snapshots from Dockerfiles, in the region you choose
#[derive(Debug, Parser)]
#[command(name = "slipway", version, max_term_width = 100)]
#[command(after_help = client::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(client::Command),
    /// Run the whole stack on this machine, for development and trying out
    Dev(serve::dev::DevArgs),
    /// Run a scheduler: the API, the records and the decisions
    Scheduler(serve::roles::RoleArgs),
    /// Run a worker, look at those that run, or drain one
    #[command(subcommand)]
    Worker(WorkerCommand),
    /// Run a region's registry routes alone
    Registry(serve::registry::RegistryArgs),
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    /// Run a worker: takes its region's jobs and serves its registry
    Run(serve::roles::RoleArgs),
    #[command(flatten)]
    Client(client::WorkerCommand),
}

/// Lets the process have as many files open as it may: each connection is one, and
/// many systems begin with 1024.
fn raise_file_limit() {
    let limit = process::getrlimit(Resource::Nofile);
    // Where that is refused the old limit stands.
    let _unchanged =
        process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn main() -> ExitCode {
    raise_file_limit();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nowhere to say that it could not be said.
            let _ = error.print();
            let is_mistake = error.use_stderr();
            return if is_mistake { client::Exit::Usage.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Client(command) => client::run(command, &mut Cli::command()),
        Command::Dev(args) => serve::dev::run(&args),
        Command::Scheduler(args) => serve::roles::scheduler(&args),
        Command::Worker(WorkerCommand::Run(args)) => serve::roles::worker(&args),
        Command::Worker(WorkerCommand::Client(command)) => {
            client::run(client::Command::Worker(command), &mut Cli::command())
        }
        Command::Registry(args) => serve::registry::run(args),
    }
}
