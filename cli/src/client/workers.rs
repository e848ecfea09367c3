//! `slipway worker`: who runs jobs, and who is to run no more.

use std::io::{self, Write as _};

use jiff::Timestamp;
use slipway_api::Client;
use slipway_api::own::Worker;

use super::args::{Drain, List, WorkerCommand};
use super::error::Error;
use super::format::{self, or_dash};
use super::screen::json_line;
use super::show::{print, table};

/// Runs a command.
pub async fn run(client: &Client, command: WorkerCommand) -> Result<(), Error> {
    match command {
        WorkerCommand::List(args) => list(client, &args).await,
        WorkerCommand::Drain(args) => drain(client, &args).await,
    }
}

async fn list(client: &Client, args: &List) -> Result<(), Error> {
    let workers = client.workers().await?;
    if args.json {
        return Ok(workers.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let mut table = table(&[
        "NAME", "REGION", "CLASSES", "GPU", "JOBS", "STATE", "REGISTRY", "BUILDKIT", "STARTED",
    ]);
    for worker in &workers {
        table.add_row(row(worker, now));
    }
    print(&table, workers.is_empty(), "no worker is alive")
}

fn row(worker: &Worker, now: Timestamp) -> [String; 9] {
    [
        worker.id.clone(),
        worker.region.clone(),
        worker.classes.join(","),
        or_dash(worker.gpu.as_deref()).to_owned(),
        format!("{}/{}", worker.running, worker.slots),
        state(worker),
        worker.registry.clone(),
        worker.buildkit.clone(),
        format::ago(worker.started_at, now),
    ]
}

fn state(worker: &Worker) -> String {
    match worker {
        Worker { drained: true, .. } => "drained".to_owned(),
        Worker { draining: true, running, .. } => format!("draining ({running} running)"),
        _ => "ready".to_owned(),
    }
}

async fn drain(client: &Client, args: &Drain) -> Result<(), Error> {
    let (name, region) = (args.name.as_str(), args.region.as_deref());
    if args.undo {
        client.undrain_worker(name, region).await?;
        writeln!(io::stdout(), "{name} takes jobs again")?;
        return Ok(());
    }
    let worker = client.drain_worker(name, region).await?;
    writeln!(io::stdout(), "{name} is {}", state(&worker))?;
    if !worker.drained && worker.running == 0 {
        eprintln!("it has not answered yet, and is told again until it does");
    }
    Ok(())
}
