//! `slipway job`: what became of work, and what to do about it.

use std::io::{self, Write as _};

use jiff::Timestamp;
use slipway_api::Client;
use slipway_api::own::{Job, ListJobs as Query};

use super::args::{DeadCommand, JobCommand, Jobs, ListJobs, ShowJob};
use super::error::{Error, Exit};
use super::format::{self, or_dash};
use super::screen::json_line;
use super::show::{details, print, table};

/// Jobs asked for at once.
const PAGE: u32 = 500;

/// Runs a command.
pub async fn run(client: &Client, command: JobCommand) -> Result<(), Error> {
    match command {
        JobCommand::List(args) => list(client, &args, false).await,
        JobCommand::Show(args) => show(client, &args).await,
        JobCommand::Cancel(args) => {
            each(&args, "cancelled", async |id| client.cancel_job(id).await).await
        }
        JobCommand::Dead(DeadCommand::List(args)) => list(client, &args, true).await,
        JobCommand::Dead(DeadCommand::Show(args)) => show(client, &args).await,
        JobCommand::Dead(DeadCommand::Redrive(args)) => {
            each(&args, "redriven", async |id| client.redrive_job(id).await).await
        }
        JobCommand::Dead(DeadCommand::Drop(args)) => {
            each(&args, "dropped", async |id| client.drop_job(id).await).await
        }
    }
}

async fn list(client: &Client, args: &ListJobs, dead: bool) -> Result<(), Error> {
    let mut found: Vec<Job> = Vec::new();
    let mut after = None;
    let limit = args.limit.max(1);
    loop {
        let wanted = (limit - found.len() as u32).min(PAGE);
        let query = Query {
            state: args.state.clone(),
            region: args.region.clone(),
            limit: Some(wanted),
            after,
        };
        let page = if dead { client.dead_jobs(&query).await } else { client.jobs(&query).await }?;
        found.extend(page.items);
        after = page.next;
        if after.is_none() || found.len() as u32 >= limit {
            break;
        }
    }
    if args.json {
        return Ok(found.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let last = if dead { "REASON" } else { "WAITING OR REASON" };
    let mut table =
        table(&["ID", "SNAPSHOT", "KIND", "REGION", "STATE", "ATTEMPTS", "CREATED", last]);
    for job in &found {
        table.add_row(row(job, now));
    }
    let nothing = if dead { "no dead jobs" } else { "no jobs" };
    print(&table, found.is_empty(), nothing)
}

fn row(job: &Job, now: Timestamp) -> [String; 8] {
    let reason = job.failure.as_ref().map(|failure| failure.message.as_str());
    let why = job.waiting.as_deref().or(reason);
    [
        job.id.clone(),
        or_dash(Some(&job.snapshot_name)).to_owned(),
        job.kind.clone(),
        job.region.clone(),
        job.state.clone(),
        job.attempts.len().to_string(),
        format::ago(job.created_at, now),
        or_dash(why).lines().next().unwrap_or("-").to_owned(),
    ]
}

async fn show(client: &Client, args: &ShowJob) -> Result<(), Error> {
    let job = client.job(&args.id).await?;
    if args.json {
        return Ok(json_line(&job)?);
    }
    let steps = job.total_steps.zip(job.cached_steps);
    let redrives = Some(job.redrives).filter(|redrives| *redrives > 0);
    details(&[
        ("id", Some(job.id.clone())),
        ("state", Some(job.state.clone())),
        ("waiting", job.waiting.clone()),
        ("reason", job.failure.as_ref().map(|failure| failure.message.clone())),
        ("snapshot", Some(format!("{} ({})", job.snapshot_name, job.snapshot_id))),
        ("region", Some(format!("{}, class {}", job.region, job.class))),
        ("steps", steps.map(|(total, cached)| format!("{total}, {cached} of them from the cache"))),
        ("redriven", redrives.map(|redrives| format!("{redrives} times"))),
        ("created", Some(job.created_at.to_string())),
        ("updated", Some(job.updated_at.to_string())),
    ])?;
    attempts(&job)
}

fn attempts(job: &Job) -> Result<(), Error> {
    if job.attempts.is_empty() {
        return Ok(());
    }
    let mut table = table(&["ATTEMPT", "WORKER", "STARTED", "ENDED", "REASON"]);
    let time =
        |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    for attempt in &job.attempts {
        table.add_row([
            attempt.number.to_string(),
            or_dash(attempt.worker.as_deref()).to_owned(),
            time(attempt.started_at),
            time(attempt.ended_at),
            or_dash(attempt.failure.as_ref().map(|failure| failure.message.as_str())).to_owned(),
        ]);
    }
    writeln!(io::stdout())?;
    print(&table, false, "")
}

/// Does something to each by itself, so that one mistake does not keep the others.
async fn each(
    args: &Jobs,
    done: &str,
    act: impl AsyncFn(&str) -> Result<Job, slipway_api::client::Error>,
) -> Result<(), Error> {
    let mut failed = None;
    for id in &args.ids {
        match act(id).await.map_err(Error::Api) {
            Ok(_) => writeln!(io::stdout(), "{done} {id}")?,
            Err(error) if args.ids.len() == 1 || error.exit() != Exit::Failed => {
                return Err(error);
            }
            Err(error) => {
                eprintln!("error: {id}: {error}");
                failed = Some(Error::Partly);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
