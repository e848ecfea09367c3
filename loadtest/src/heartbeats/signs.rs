//! The records of workers that are not there, written as workers write them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use slipway_api::own::RegionStatus;
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Class, Region, WorkerId, message};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::latency::Latency;
use crate::progress::Progress;
use crate::schedule::Schedule;

/// A sign of life lasts for three intervals, as a worker's does.
const LASTS: u32 = 3;
/// Removals at the same time.
const REMOVALS: usize = 64;

/// Workers that are not there.
#[derive(Clone)]
pub(super) struct Fleet(Arc<Inner>);

struct Inner {
    leases: Bucket,
    records: Vec<(String, WorkerRecord)>,
    /// The last revision of each record; 0 before the first.
    revisions: Vec<AtomicU64>,
    /// How many have given a sign.
    announced: AtomicUsize,
    changed: Notify,
    interval: Duration,
}

/// What the signs took.
#[derive(Debug, Default)]
pub(super) struct Signs {
    pub(super) count: u64,
    pub(super) seconds: f64,
    /// From when a sign was due to when it was stored.
    pub(super) stored: Latency,
    pub(super) failures: Vec<Failure>,
}

impl Fleet {
    pub(super) fn new(
        bus: &Bus,
        region: &RegionStatus,
        count: usize,
        interval: Duration,
    ) -> Result<Self, Error> {
        let name: Region = region.id.parse().map_err(Error::region)?;
        let (run, registry) = (rand::random::<u32>(), region.registry.clone().unwrap_or_default());
        let records = (0..count).map(|n| record(&name, &registry, run, n));
        let records: Vec<_> = records.map(|record| (keys::worker(&record.id), record)).collect();
        Ok(Self(Arc::new(Inner {
            leases: bus.bucket(&BucketName::Leases(name)),
            revisions: records.iter().map(|_| AtomicU64::new(0)).collect(),
            records,
            announced: AtomicUsize::new(0),
            changed: Notify::new(),
            interval,
        })))
    }

    fn len(&self) -> usize {
        self.0.records.len()
    }

    /// Every worker gives its sign once in an interval, spread over it, until
    /// `stop`. One has at most one sign under way.
    pub(super) async fn give_signs(&self, stop: &CancellationToken) -> Signs {
        let rate = self.len() as f64 / self.0.interval.as_secs_f64();
        let schedule = Schedule { count: u64::MAX, concurrency: self.len(), rate: Some(rate) };
        let mut signs = Signs::default();
        let begun = Instant::now();
        let start = |n: u64, due| self.clone().sign((n % self.len() as u64) as usize, due);
        let done = |stored: Result<Duration, Failure>| match stored {
            Ok(time) => {
                signs.count += 1;
                signs.stored.record(time);
            }
            Err(failure) => signs.failures.push(failure),
        };
        schedule.drive(stop, start, done).await;
        signs.seconds = begun.elapsed().as_secs_f64();
        signs
    }

    async fn sign(self, n: usize, due: Instant) -> Result<Duration, Failure> {
        let Inner { leases, records, revisions, announced, changed, interval } = &*self.0;
        let (key, record) = &records[n];
        let stored = leases.put(key, record, Some(*interval * LASTS)).await;
        let revision =
            stored.map_err(|error| Failure::new("signs", "not stored", error.to_string()))?;
        if revisions[n].fetch_max(revision, Ordering::Relaxed) == 0
            && announced.fetch_add(1, Ordering::Relaxed) + 1 == records.len()
        {
            changed.notify_one();
        }
        Ok(due.elapsed())
    }

    /// Returns when every worker has given its first sign, or at `stop`.
    pub(super) async fn announced(&self, stop: &CancellationToken) {
        let progress = Progress::new(self.len() as u64);
        progress.say("first signs of life");
        stop.run_until_cancelled(self.0.changed.notified()).await;
    }

    /// Takes every record back; those that stay, until they expire, are told.
    pub(super) async fn remove(&self) -> Vec<String> {
        let progress = Progress::new(self.len() as u64);
        progress.say("removing workers");
        let count = self.len() as u64;
        let schedule = Schedule { count, concurrency: REMOVALS, rate: None };
        let start = |n: u64, _| self.clone().take_back(n as usize);
        let (mut ended, mut failures) = (0, Failures::default());
        let done = |removed: Result<(), Failure>| {
            ended += 1;
            progress.at(ended);
            removed.err().into_iter().for_each(|failure| failures.add(failure));
        };
        schedule.drive(&CancellationToken::new(), start, done).await;
        let lasts = self.0.interval * LASTS;
        let told = failures.iter().map(|(_, counted)| {
            format!("{} workers, for {lasts:?}: {}", counted.count, counted.example)
        });
        told.collect()
    }

    async fn take_back(self, n: usize) -> Result<(), Failure> {
        let revision = self.0.revisions[n].load(Ordering::Relaxed);
        if revision == 0 {
            return Ok(());
        }
        match self.0.leases.delete(&self.0.records[n].0, revision).await {
            // It expired, or is a later one that expires.
            Err(error) if !error.is_conflict() => {
                Err(Failure::new("signs", "not removed", error.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// An idle worker without slots: whoever counts free ones counts none.
fn record(region: &Region, registry: &str, run: u32, n: usize) -> WorkerRecord {
    let id: WorkerId =
        format!("loadtest-{run:08x}-{n}").parse().expect("letters, digits and dashes are a name");
    WorkerRecord {
        version: 1,
        id,
        region: region.clone(),
        classes: vec![Class::Cpu],
        gpu: None,
        slots: 0,
        running: vec![],
        job_version: message::VERSION,
        software: env!("CARGO_PKG_VERSION").to_owned(),
        buildkit: "simulated".to_owned(),
        registry: registry.to_owned(),
        recipient: None,
        draining: false,
        stopping: false,
        lease_seconds: None,
        started_at: Timestamp::now(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn workers_that_are_not_there_have_names_of_their_own_and_no_slots() {
        let region = "us".parse().unwrap();
        let records: Vec<_> = (0..3).map(|n| record(&region, "127.0.0.1:5000", 7, n)).collect();
        let names: Vec<_> = records.iter().map(|record| record.id.to_string()).collect();
        assert_eq!(names, ["loadtest-00000007-0", "loadtest-00000007-1", "loadtest-00000007-2"]);
        assert!(records.iter().all(|record| record.slots == 0 && !record.draining));
    }
}
