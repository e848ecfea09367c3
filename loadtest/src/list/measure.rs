//! What is asked of the scheduler, and how long each answer takes.
//!
//! Owns the kinds of requests. Pages are asked for at a rate, whatever became of those
//! before, reads and searches one after the other. Each answer is checked: a page has
//! as many snapshots as it must, a read finds the one that was asked for.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use slipway_api::Client;
use slipway_api::own::ListJobs;
use slipway_api::types::ListSnapshots;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Plan;
use super::seed::Seeded;
use crate::error::Error;
use crate::failures::Failure;
use crate::latency::Latency;
use crate::own::Scheduler;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::schedule::Schedule;

/// Searches for a part of a name, each of which looks at every name.
const SEARCHES: u64 = 20;
/// Requests under way at once, at most.
const CONCURRENCY: usize = 64;
/// Targets, in milliseconds at the 99th percentile.
const PAGE_TARGET: f64 = 10.0;
const READ_TARGET: f64 = 1.0;

/// Sort keys, each with the names of its rows: the first page, the middle, the last.
const PAGES: [(&str, [&str; 3]); 4] = [
    ("name", ["by name, first page", "by name, middle", "by name, last"]),
    ("state", ["by state, first page", "by state, middle", "by state, last"]),
    ("createdAt", ["by creation, first page", "by creation, middle", "by creation, last"]),
    ("lastUsedAt", ["by last use, first page", "by last use, middle", "by last use, last"]),
];

/// One who asks.
struct Asker<'a> {
    client: Client,
    plan: &'a Plan,
    seeded: Arc<Vec<(String, String)>>,
    stop: &'a CancellationToken,
    report: &'a mut Report,
    progress: Progress,
    random: StdRng,
}

/// Asks everything, and adds the times to the report.
pub(super) async fn run(
    scheduler: &Scheduler,
    plan: &Plan,
    seeded: &Seeded,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), Error> {
    let client = scheduler.client_with(&seeded.key)?;
    let ids = seeded.snapshots.iter().map(|(id, name)| (id.to_string(), name.clone()));
    let mut asker = Asker {
        client,
        plan,
        seeded: Arc::new(ids.collect()),
        stop,
        report,
        progress: Progress::new(PAGES.len() as u64 * 3 + 4),
        random: StdRng::seed_from_u64(plan.seed),
    };
    if asker.seeded.is_empty() {
        return Ok(());
    }
    let reads = asker.reads().await;
    let pages = asker.pages().await;
    asker.others().await;
    for (name, times, target) in
        [("list page p99", pages, PAGE_TARGET), ("get p99", reads, READ_TARGET)]
    {
        let p99 = times.summary().map_or(0.0, |summary| summary.p99);
        report.figures.push(Figure { name, value: p99, unit: " ms" });
        report.figures.push(Figure { name: "  its target", value: target, unit: " ms" });
    }
    let memory = scheduler.server.process.memory("VmRSS")? as f64 / 1e6;
    report.figures.push(Figure { name: "memory afterwards", value: memory, unit: " MB" });
    Ok(())
}

impl Asker<'_> {
    /// Reads of one snapshot, by id and by name: one after the other, since a clock
    /// that gives them out is no finer than they are.
    async fn reads(&mut self) -> Latency {
        let mut all = Latency::default();
        for (row, by_name) in [("get by id", false), ("get by name", true)] {
            let (client, seeded) = (self.client.clone(), self.seeded.clone());
            let mut random = self.random.clone();
            self.ask(row, self.one_by_one(self.plan.requests), &mut all, move |_| {
                let (client, seeded) = (client.clone(), seeded.clone());
                let n = random.random_range(0..seeded.len());
                async move {
                    let (id, name) = &seeded[n];
                    let found = client.snapshot(if by_name { name } else { id }).await;
                    let found = found.map_err(|error| Failure::api("get", &error))?;
                    expect("get", (&found.id, &found.name) == (id, name))
                }
            })
            .await;
        }
        all
    }

    /// Pages at every place of every order, in both directions.
    async fn pages(&mut self) -> Latency {
        let mut all = Latency::default();
        let (total, limit) = (self.seeded.len() as u64, self.plan.page);
        let last = total.div_ceil(limit);
        for (key, rows) in PAGES {
            for (row, page) in rows.into_iter().zip([1, last.div_ceil(2), last]) {
                let client = self.client.clone();
                let wanted = limit.min(total - (page - 1) * limit);
                self.ask(row, self.paced(), &mut all, move |n| {
                    let client = client.clone();
                    let order = if n % 2 == 0 { "asc" } else { "desc" };
                    let what = ListSnapshots {
                        page: Some(page),
                        limit: Some(limit),
                        sort: Some(key.to_owned()),
                        order: Some(order.to_owned()),
                        ..ListSnapshots::default()
                    };
                    async move {
                        let found = client.list_snapshots(&what).await;
                        let found = found.map_err(|error| Failure::api("list", &error))?;
                        expect("list", (found.total, found.items.len() as u64) == (total, wanted))
                    }
                })
                .await;
            }
        }
        all
    }

    /// What has no target: a part of a name, which is looked for in all names, and
    /// pages of jobs.
    async fn others(&mut self) {
        let (client, seeded, mut random) =
            (self.client.clone(), self.seeded.clone(), self.random.clone());
        let mut all = Latency::default();
        let few = self.one_by_one(self.plan.requests.min(SEARCHES));
        self.ask("by a part of the name", few, &mut all, move |_| {
            let (client, name) = (client.clone(), &seeded[random.random_range(0..seeded.len())].1);
            let part = name.split_once('/').map_or(&**name, |(_, part)| part).to_owned();
            let what = ListSnapshots { name: Some(part), ..ListSnapshots::default() };
            async move {
                let found = client.list_snapshots(&what).await;
                let found = found.map_err(|error| Failure::api("search", &error))?;
                expect("search", found.total >= 1)
            }
        })
        .await;
        let client = self.client.clone();
        self.ask("jobs, first page", self.paced(), &mut all, move |_| {
            let client = client.clone();
            async move {
                let found = client.jobs(&ListJobs::default()).await;
                let found = found.map_err(|error| Failure::api("jobs", &error))?;
                expect("jobs", !found.items.is_empty())
            }
        })
        .await;
    }

    /// Requests at the plan's rate.
    const fn paced(&self) -> Schedule {
        let Plan { requests: count, rate, .. } = *self.plan;
        Schedule { count, concurrency: CONCURRENCY, rate: Some(rate) }
    }

    const fn one_by_one(&self, count: u64) -> Schedule {
        Schedule { count, concurrency: 1, rate: None }
    }

    /// Makes the requests of one row.
    async fn ask<F>(
        &mut self,
        row: &'static str,
        schedule: Schedule,
        all: &mut Latency,
        mut ask: impl FnMut(u64) -> F,
    ) where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        self.progress.say(row);
        let mut times = Latency::default();
        let failures = &mut self.report.failures;
        let start = |n, due: Instant| {
            let asked = ask(n);
            async move { (asked.await, due.elapsed()) }
        };
        let done = |(answer, took): (Result<(), Failure>, Duration)| match answer {
            Ok(()) => {
                times.record(took);
                all.record(took);
            }
            Err(failure) => failures.add(failure),
        };
        schedule.drive(self.stop, start, done).await;
        self.report.add_latency(row, &times);
        self.progress.at(self.report.latencies.len() as u64);
    }
}

fn expect(part: &str, is_right: bool) -> Result<(), Failure> {
    if is_right { Ok(()) } else { Err(Failure::new(part, "wrong", "not what was asked for")) }
}
