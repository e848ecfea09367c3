//! The records as they move, watched from beside the schedulers.
//!
//! Owns what a job or a snapshot looked like at every revision that the watch
//! brought. Refuses to write records; what it sends again are messages that the
//! system itself had sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use slipway_bus::bucket::{Change, Entry};
use slipway_bus::topology::BucketName;
use slipway_bus::{Bus, bucket};
use slipway_domain::AttemptNumber;
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::message::{EventMessage, JobMessage, VERSION};
use slipway_domain::snapshot::SnapshotRecord;
use slipway_runtime::telemetry;
use uuid::Uuid;

use crate::history::{History, JobSeen, SnapshotSeen, What};

/// How long an attempt of a repeated message may take, in seconds.
const LIMIT: u64 = 120;

/// Everything that the bucket of records holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) jobs: BTreeMap<String, (JobRecord, u64)>,
    pub(crate) snapshots: BTreeMap<String, (SnapshotRecord, u64)>,
    /// Keys of other records with their values.
    pub(crate) names: BTreeMap<String, String>,
}

impl Records {
    fn put(&mut self, entry: &Entry) -> Option<What> {
        if entry.key.starts_with("job.") {
            let record: JobRecord = readable(entry)?;
            let seen = What::Job(job_seen(&record, entry.revision));
            self.jobs.insert(entry.key.clone(), (record, entry.revision));
            return Some(seen);
        }
        if entry.key.starts_with("snapshot.") {
            let record: SnapshotRecord = readable(entry)?;
            let seen = What::Snapshot(snapshot_seen(&record, entry.revision));
            self.snapshots.insert(entry.key.clone(), (record, entry.revision));
            return Some(seen);
        }
        if entry.key.starts_with("name.") {
            let value = String::from_utf8_lossy(&entry.value).into_owned();
            self.names.insert(entry.key.clone(), value);
        }
        None
    }

    fn remove(&mut self, key: &str) {
        self.jobs.remove(key);
        self.snapshots.remove(key);
        self.names.remove(key);
    }
}

fn readable<T: serde::de::DeserializeOwned>(entry: &Entry) -> Option<T> {
    let read = entry.json();
    read.inspect_err(|error| {
        tracing::warn!(key = entry.key, error = telemetry::chain(error), "a record cannot be read");
    })
    .ok()
}

/// A job's record, as the history has it.
pub(crate) fn job_seen(record: &JobRecord, revision: u64) -> JobSeen {
    let (nonce, digest) = match &record.state {
        JobState::Running { attempt, .. } => (Some(attempt.nonce), None),
        JobState::Succeeded { attempt, image } => (Some(attempt.nonce), Some(image.digest)),
        _ => (None, None),
    };
    JobSeen {
        job: record.id.to_string(),
        revision,
        state: record.state.name().to_owned(),
        over: record.state.is_over(),
        attempt: record.current_attempt().get(),
        nonce: nonce.map(|nonce| nonce.to_string()),
        digest: digest.map(|digest| digest.to_string()),
        reason: record.state.failure().map(|failure| failure.message.clone()),
    }
}

/// A snapshot's record, as the history has it.
pub(crate) fn snapshot_seen(record: &SnapshotRecord, revision: u64) -> SnapshotSeen {
    SnapshotSeen {
        snapshot: record.id.to_string(),
        name: record.name.clone(),
        revision,
        job: record.job.to_string(),
        state: record.state.name().to_owned(),
        digest: record.state.image().map(|image| image.digest.to_string()),
    }
}

/// The records, followed for as long as this is polled.
#[derive(Debug, Clone)]
pub(crate) struct Watcher {
    bus: Bus,
    history: Arc<History>,
    records: Arc<Mutex<Records>>,
}

impl Watcher {
    pub(crate) fn new(bus: &Bus, history: Arc<History>) -> Self {
        Self { bus: bus.clone(), history, records: Arc::default() }
    }

    /// Where what is seen is noted.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// What there is now, as far as the watch has come.
    pub(crate) fn records(&self) -> Records {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Follows the records, and never ends by itself.
    pub(crate) async fn run(&self) -> Result<(), bucket::Error> {
        let mut watch = self.bus.bucket(&BucketName::Records).watch(None);
        loop {
            let change = watch.next().await?;
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            match change {
                Change::Put(entry) => {
                    if let Some(what) = records.put(&entry) {
                        self.history.note(what);
                    }
                }
                Change::Deleted { key, .. } => records.remove(&key),
                Change::Reset => *records = Records::default(),
                Change::Ready => {}
            }
        }
    }

    /// Puts messages of the newest jobs on their queues once more.
    pub(crate) async fn repeat_jobs(&self, count: u32, stale: bool) {
        let records = self.records();
        let newest = records.jobs.values().rev().map(|(job, _)| job);
        let fit = newest.filter(|job| !stale || job.current_attempt() > AttemptNumber::FIRST);
        for job in fit.take(count as usize) {
            let of = |entry: &&(SnapshotRecord, u64)| entry.0.job == job.id;
            let Some((snapshot, _)) = records.snapshots.values().find(of) else { continue };
            let attempt = if stale { AttemptNumber::FIRST } else { job.current_attempt() };
            let message = JobMessage {
                version: VERSION,
                job: job.id,
                attempt,
                organization: job.organization,
                snapshot: snapshot.id,
                region: job.region.clone(),
                class: job.class,
                spec: snapshot.source.clone(),
                contexts: job.contexts.clone(),
                registries: vec![],
                time_limit_seconds: LIMIT,
            };
            let queue = self.bus.jobs();
            let sent = queue.publish_again(&job.region, job.class, job.kind, job.id, &message);
            if let Err(error) = sent.await {
                let error = telemetry::chain(&error);
                tracing::debug!(job.id = %job.id, error, "a job was not sent again");
            }
        }
    }

    /// Stores the last events of every region once more, the newest first.
    pub(crate) async fn repeat_events(&self, count: u32) {
        for region in crate::settings::REGIONS {
            let region = region.parse().expect("a constant of the right form");
            let Ok(events) = self.bus.events().read_all::<EventMessage>(&region).await else {
                continue;
            };
            for event in events.iter().rev().take(count as usize) {
                let id = format!("{}/again/{}", event.job, Uuid::new_v4());
                let (events, worker) = (self.bus.events(), &event.worker);
                if let Err(error) = events.publish(&region, worker, event.job, event, &id).await {
                    let error = telemetry::chain(&error);
                    tracing::debug!(job.id = %event.job, error, "an event was not sent again");
                }
            }
        }
    }
}
