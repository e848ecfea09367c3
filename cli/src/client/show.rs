//! Tables and details: what there is.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use slipway_api::Client;
use slipway_api::own::RegionStatus;
use slipway_api::types::{ListSnapshots as Query, Snapshot};

use super::args::{Delete, Get, List, ListSnapshots, Names};
use super::error::{Error, Exit};
use super::format::{self, or_dash};
use super::screen::json_line;

/// Snapshots asked for at once.
const PAGE: u64 = 200;

/// `slipway snapshot list`: all of them, page by page.
pub async fn snapshots(client: &Client, args: &ListSnapshots) -> Result<(), Error> {
    let mut found: Vec<Snapshot> = Vec::new();
    for page in 1.. {
        let query = Query {
            page: Some(page),
            limit: Some(PAGE),
            name: args.name.clone(),
            sort: Some("createdAt".to_owned()),
            order: Some("desc".to_owned()),
            ..Query::default()
        };
        let answer = client.list_snapshots(&query).await?;
        found.extend(answer.items);
        if page >= answer.total_pages {
            break;
        }
    }
    if args.json {
        return Ok(found.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let mut table = table(&["NAME", "STATE", "SIZE", "REGION", "CREATED", "ID"]);
    for snapshot in &found {
        table.add_row([
            snapshot.name.clone(),
            snapshot.state.clone(),
            format::gibibytes(snapshot.size),
            or_dash(Some(&snapshot.region_ids.join(","))).to_owned(),
            format::ago(snapshot.created_at, now),
            snapshot.id.clone(),
        ]);
    }
    print(&table, found.is_empty(), "no snapshots; make one with `slipway snapshot create`")
}

/// `slipway snapshot get`.
pub async fn snapshot(client: &Client, args: &Get) -> Result<(), Error> {
    let snapshot = client.snapshot(&args.name).await?;
    if args.json {
        return Ok(json_line(&snapshot)?);
    }
    let resources = format!(
        "{} CPU, {} GiB memory, {} GiB disk, {} GPU",
        snapshot.cpu, snapshot.mem, snapshot.disk, snapshot.gpu
    );
    let entrypoint = snapshot.entrypoint.as_ref().map(|words| words.join(" "));
    // Only a build that has not ended may wait for something.
    let waiting = match (&snapshot.job_id, snapshot.state.as_str()) {
        (Some(job), "pending" | "building") => {
            client.job(job).await.ok().and_then(|job| job.waiting)
        }
        _ => None,
    };
    details(&[
        ("name", Some(snapshot.name)),
        ("id", Some(snapshot.id)),
        ("state", Some(snapshot.state)),
        ("waiting", waiting),
        ("reason", snapshot.error_reason),
        ("digest", snapshot.digest),
        ("ref", snapshot.reference),
        ("size", snapshot.size.map(|size| format::gibibytes(Some(size)))),
        ("region", Some(snapshot.region_ids.join(", "))),
        ("entrypoint", entrypoint),
        ("resources", Some(resources)),
        ("created", Some(snapshot.created_at.to_string())),
        ("job", snapshot.job_id),
    ])
}

/// `slipway snapshot delete`.
pub async fn delete(client: &Client, args: &Delete) -> Result<(), Error> {
    each(&args.names, async |name| {
        client.delete_snapshot(name).await?;
        Ok(format!("deleted {name}"))
    })
    .await
}

/// `slipway snapshot activate`.
pub async fn activate(client: &Client, args: &Names) -> Result<(), Error> {
    each(&args.names, async |name| {
        let snapshot = client.activate_snapshot(name).await?;
        Ok(match snapshot.state.as_str() {
            "active" => format!("activated {name}"),
            state => format!(
                "{name} is {state}: its image is made again; `slipway snapshot logs -f {name}` shows it"
            ),
        })
    })
    .await
}

/// `slipway snapshot deactivate`.
pub async fn deactivate(client: &Client, args: &Names) -> Result<(), Error> {
    each(&args.names, async |name| {
        client.deactivate_snapshot(name).await?;
        Ok(format!("deactivated {name}"))
    })
    .await
}

/// Does something to each snapshot and prints what came of it. One that fails does
/// not keep the others from it.
async fn each(
    names: &[String],
    act: impl AsyncFn(&str) -> Result<String, slipway_api::client::Error>,
) -> Result<(), Error> {
    let mut failed = None;
    for name in names {
        match act(name).await.map_err(Error::Api) {
            Ok(done) => writeln!(io::stdout(), "{done}")?,
            Err(error) if names.len() == 1 || error.exit() != Exit::Failed => {
                return Err(error);
            }
            Err(error) => {
                eprintln!("error: {name}: {error}");
                failed = Some(Error::Partly);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// `slipway region list`.
pub async fn regions(client: &Client, args: &List) -> Result<(), Error> {
    let regions = client.regions().await?;
    if args.json {
        return Ok(regions.iter().try_for_each(json_line)?);
    }
    let mut table = table(&["NAME", "CLASSES", "GPU", "WORKERS", "RUNNING", "QUEUED", "REGISTRY"]);
    for region in &regions {
        table.add_row(region_row(region));
    }
    print(&table, regions.is_empty(), "no region is configured")
}

fn region_row(region: &RegionStatus) -> [String; 7] {
    let default = if region.default { " (default)" } else { "" };
    [
        format!("{}{default}", region.id),
        region.classes.join(","),
        or_dash(Some(&region.gpus.join(","))).to_owned(),
        region.workers.to_string(),
        region.running.to_string(),
        region.queued.to_string(),
        or_dash(region.registry.as_deref()).to_owned(),
    ]
}

/// A table without lines, whose rows never wrap: `awk` reads it, too.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

pub(super) fn print(table: &Table, is_empty: bool, otherwise: &str) -> Result<(), Error> {
    if is_empty {
        eprintln!("{otherwise}");
        return Ok(());
    }
    let mut out = io::stdout().lock();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Lines of name and value; those without a value are left out.
pub(super) fn details(lines: &[(&str, Option<String>)]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    for (name, value) in lines {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            writeln!(out, "{name:<12}{}", value.replace('\n', "\n            "))?;
        }
    }
    Ok(())
}
