//! What all scenarios share: the server, the names of what a run makes, the
//! word to stop, and cleaning up.

use std::fmt;

use slipway_api::Client;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, ListSnapshots, Snapshot};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::progress::Progress;
use crate::schedule::Schedule;

/// Snapshots asked for at once in lists.
const PAGE: u64 = 200;
/// Deletions at the same time, after a run.
const DELETIONS: usize = 16;
/// The build argument that differs from build to build.
pub const MARKER: &str = "SLIPWAY_LOADTEST";

/// One run against one server. Clones are the same run.
#[derive(Debug, Clone)]
pub struct Run {
    client: Client,
    prefix: String,
    stop: CancellationToken,
}

impl Run {
    /// A run that ends early, in order, when `stop` is cancelled.
    #[must_use]
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        let prefix = format!("loadtest/{:016x}/", rand::random::<u64>());
        Self { client, prefix, stop }
    }

    /// The same run for another organization: `client` has one of its keys.
    #[must_use]
    pub(crate) fn on_behalf_of(&self, client: Client) -> Self {
        Self { client, prefix: self.prefix.clone(), stop: self.stop.clone() }
    }

    /// Speaks with the server.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Cancelled as soon as the run shall end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The name of the run's snapshot `n`.
    #[must_use]
    pub fn name(&self, n: impl fmt::Display) -> String {
        format!("{}{n}", self.prefix)
    }

    /// Asks for the run's snapshot `n`. Never to be dropped before it has
    /// answered: then nobody would know whether there is a snapshot.
    pub(crate) async fn submit(
        &self,
        n: u64,
        region: Option<&str>,
        mut build: CreateBuildInfo,
    ) -> Result<Snapshot, Failure> {
        build.build_args.insert(MARKER.to_owned(), self.name(n));
        let build = CreateSnapshot { build_info: Some(build), ..CreateSnapshot::default() };
        self.ask(n, region, build).await
    }

    /// Asks for a copy of a registry's image as the run's snapshot `n`, as
    /// [`Run::submit`].
    pub(crate) async fn submit_pull(
        &self,
        n: u64,
        region: Option<&str>,
        image: String,
    ) -> Result<Snapshot, Failure> {
        let pull = CreateSnapshot { image_name: Some(image), ..CreateSnapshot::default() };
        self.ask(n, region, pull).await
    }

    async fn ask(
        &self,
        n: u64,
        region: Option<&str>,
        wanted: CreateSnapshot,
    ) -> Result<Snapshot, Failure> {
        let region_id = region.map(str::to_owned);
        let wanted = CreateSnapshot { name: self.name(n), region_id, ..wanted };
        let answer = self.client.create_snapshot(&wanted).await;
        answer.map_err(|error| Failure::api("submit", &error))
    }

    /// Deletes a snapshot of the run, whatever became of it; its build ends, and
    /// it no longer counts against the quota.
    pub(crate) async fn delete(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        self.delete_id(&snapshot.id).await
    }

    /// The same by its id.
    pub(crate) async fn delete_id(&self, id: &str) -> Result<(), Failure> {
        match self.client.delete_snapshot(id).await {
            Err(error) if error.status() != Some(404) => Err(Failure::api("delete", &error)),
            _ => Ok(()),
        }
    }

    /// Deletes many snapshots by their ids, also after Ctrl-C, and counts what fails.
    pub(crate) async fn delete_all(&self, made: Vec<String>, failures: &mut Failures) {
        let progress = Progress::new(made.len() as u64);
        progress.say("deleting");
        let count = made.len() as u64;
        let schedule = Schedule { count, concurrency: DELETIONS, rate: None };
        let start = |n: u64, _| {
            let (run, id) = (self.clone(), made[n as usize].clone());
            async move { run.delete_id(&id).await }
        };
        let mut ended = 0;
        let done = |deleted: Result<(), Failure>| {
            ended += 1;
            progress.at(ended);
            deleted.err().into_iter().for_each(|failure| failures.add(failure));
        };
        schedule.drive(&CancellationToken::new(), start, done).await;
    }

    /// Checks that so many snapshots fit beside those that the organization has,
    /// where it may hold `quota`.
    pub(crate) async fn check_room(&self, wanted: usize, quota: usize) -> Result<(), Error> {
        let mut held = 0;
        for page in 1.. {
            let answer = self.client.list_snapshots(&query(page, None)).await?;
            held += answer.items.iter().filter(|snapshot| counts(&snapshot.state)).count();
            if held + wanted > quota {
                return Err(Error::NoRoom { wanted, held, quota });
            }
            if page >= answer.total_pages {
                break;
            }
        }
        Ok(())
    }

    /// Deletes what is left of the run, also what a lost answer to a request may
    /// have left; returns the names of what remains, with the reason.
    pub(crate) async fn sweep(&self) -> Vec<String> {
        let (mut found, mut remaining) = (vec![], vec![]);
        for page in 1.. {
            match self.client.list_snapshots(&query(page, Some(&self.prefix))).await {
                Ok(answer) => {
                    found.extend(answer.items);
                    if page >= answer.total_pages {
                        break;
                    }
                }
                Err(error) => {
                    remaining.push(format!("whatever is named {}*: {error}", self.prefix));
                    break;
                }
            }
        }
        for snapshot in found.iter().filter(|snapshot| snapshot.state != "removing") {
            if let Err(failure) = self.delete(snapshot).await {
                remaining.push(format!("{}: {}", snapshot.name, failure.message));
            }
        }
        remaining
    }
}

/// Whether a snapshot in this state counts against the quota.
fn counts(state: &str) -> bool {
    matches!(state, "pending" | "building" | "pulling" | "active")
}

fn query(page: u64, name: Option<&str>) -> ListSnapshots {
    ListSnapshots {
        page: Some(page),
        limit: Some(PAGE),
        name: name.map(str::to_owned),
        // Does not change while pages are read.
        sort: Some("createdAt".to_owned()),
        order: Some("asc".to_owned()),
        ..ListSnapshots::default()
    }
}
