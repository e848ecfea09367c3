//! The look at everything when the blows are over: waiting until nothing moves any
//! more, and then writing down what there is.

use std::collections::BTreeSet;
use std::time::Duration;

use slipway_api::Client;
use slipway_api::events::JobEvent;
use slipway_blobstore::{Config, ObjectKey, Repository, Store};
use slipway_bus::Bus;
use slipway_bus::bucket::Change;
use slipway_bus::topology::BucketName;
use slipway_domain::job::{JobRecord, JobState, LogState};
use slipway_domain::lease::Lease;
use slipway_domain::message::{EventMessage, WorkerEvent};
use slipway_domain::organization::SNAPSHOTS_REPOSITORY;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{Class, LogSeq, Region};
use slipway_oci::{Digest, Document, MediaType};
use slipway_runtime::telemetry;
use tokio::time::Instant;

use crate::error::Error;
use crate::history::{EventSeen, History, What};
use crate::records::{self, Records, Watcher};
use crate::settings::REGIONS;
use crate::system::{LOOK, System};

/// Largest manifest that is read.
const MANIFEST: u64 = 4 << 20;
/// Largest blob that is read.
const BLOB: u64 = 1 << 30;
/// How long a log may take to be read.
const READING: Duration = Duration::from_secs(60);

/// Looks at a system.
pub(crate) struct Look<'a> {
    pub(crate) system: &'a System,
    pub(crate) bus: &'a Bus,
    pub(crate) clients: &'a [Client],
    pub(crate) watcher: &'a Watcher,
    pub(crate) history: &'a History,
}

impl Look<'_> {
    /// Waits until nothing moves any more, at most `limit`; notes what still does.
    pub(crate) async fn settle(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            self.system.tend();
            let mut moving = self.moving().await;
            if moving.is_empty() {
                let after_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                return self.history.note(What::Settled { after_ms });
            }
            if begun.elapsed() > limit {
                moving.truncate(50);
                return moving.into_iter().for_each(|what| {
                    self.history.note(What::Unsettled { what });
                });
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What is not at rest. The cheap questions come first.
    async fn moving(&self) -> Vec<String> {
        let records = self.watcher.records();
        let mut moving: Vec<String> = records
            .jobs
            .values()
            .filter(|(job, _)| !job.state.is_over() || job.log == LogState::Streamed)
            .filter(|(job, _)| job.state != JobState::Cancelled)
            .map(|(job, _)| {
                format!("job {} is {}, its log {:?}", job.id, job.state.name(), job.log)
            })
            .collect();
        let snapshots = records.snapshots.values().map(|(snapshot, _)| snapshot);
        let open = ["pending", "building", "pulling", "removing"];
        let open = snapshots.filter(|snapshot| open.contains(&snapshot.state.name()));
        moving.extend(open.map(|snapshot| {
            format!("snapshot `{}` ({}) is {}", snapshot.name, snapshot.id, snapshot.state.name())
        }));
        moving.extend(orphans(&records));
        if !moving.is_empty() {
            return moving;
        }
        for (n, client) in self.clients.iter().enumerate() {
            match client.workers().await {
                Ok(_) => moving.extend(self.views(&records, n, client).await),
                Err(error) => moving.push(format!("scheduler {}: {error}", n + 1)),
            }
        }
        for region in REGIONS {
            moving.extend(self.region(&region.parse().expect("a constant")).await);
        }
        moving
    }

    /// Where a scheduler's view lags behind the records.
    async fn views(&self, records: &Records, n: usize, client: &Client) -> Vec<String> {
        let mut behind = vec![];
        for (snapshot, _) in records.snapshots.values() {
            let answer = client.snapshot(&snapshot.id.to_string()).await;
            let state = answer.map_or_else(|error| error.to_string(), |answer| answer.state);
            if state != snapshot.state.name() {
                behind.push(format!("scheduler {} says {state} of `{}`", n + 1, snapshot.name));
                break;
            }
        }
        behind
    }

    /// What a region's queue and leases still hold.
    async fn region(&self, region: &Region) -> Vec<String> {
        let mut moving = vec![];
        match self.bus.jobs().pending(region, Class::Cpu).await {
            Ok(pending) if pending.waiting + pending.delivered == 0 => {}
            Ok(pending) => moving.push(format!("the queue of {region} holds {pending:?}")),
            Err(error) => moving.push(telemetry::chain(&error)),
        }
        match self.held(region).await {
            Ok(held) => moving.extend(held),
            Err(error) => moving.push(telemetry::chain(&error)),
        }
        moving
    }

    async fn held(&self, region: &Region) -> Result<Vec<String>, slipway_bus::bucket::Error> {
        let bucket = self.bus.bucket(&BucketName::Leases(region.clone()));
        let mut watch = bucket.watch_keys("job.>", None);
        let mut held = BTreeSet::new();
        loop {
            match watch.next().await? {
                Change::Put(entry) => {
                    if matches!(entry.json(), Ok(Lease::Held { .. })) {
                        held.insert(entry.key);
                    } else {
                        held.remove(&entry.key);
                    }
                }
                Change::Deleted { key, .. } => {
                    held.remove(&key);
                }
                Change::Reset => held.clear(),
                Change::Ready => break,
            }
        }
        Ok(held.into_iter().map(|key| format!("the lease {key} of {region} is held")).collect())
    }

    /// Writes everything down.
    pub(crate) async fn write_down(&self) -> Result<(), Error> {
        for (process, line) in self.system.panics() {
            self.history.note(What::Panicked { process, line });
        }
        for region in REGIONS {
            self.events(&region.parse().expect("a constant")).await?;
        }
        let records = self.watcher.records();
        for what in orphans(&records) {
            self.history.note(What::Orphan { what });
        }
        for (job, revision) in records.jobs.values() {
            self.history.note(What::LastJob(records::job_seen(job, *revision)));
            self.log(job).await;
        }
        for (snapshot, revision) in records.snapshots.values() {
            self.history.note(What::LastSnapshot(records::snapshot_seen(snapshot, *revision)));
            self.answers(snapshot).await;
            self.image(snapshot).await?;
        }
        Ok(())
    }

    async fn events(&self, region: &Region) -> Result<(), Error> {
        let events = self.bus.events().read_all::<EventMessage>(region).await;
        for event in events.map_err(|error| Error::Read(error.into()))? {
            let digest = match &event.event {
                WorkerEvent::Published(image) => Some(image.digest.to_string()),
                _ => None,
            };
            self.history.note(What::Event(EventSeen {
                job: event.job.to_string(),
                attempt: event.attempt.number.get(),
                nonce: event.attempt.nonce.to_string(),
                worker: event.worker.to_string(),
                event: event.event.name().to_owned(),
                digest,
            }));
        }
        Ok(())
    }

    async fn answers(&self, snapshot: &SnapshotRecord) {
        for (n, client) in (1..).zip(self.clients) {
            let answer = client.snapshot(&snapshot.id.to_string()).await;
            let (state, digest) = match answer {
                Ok(answer) => (Some(answer.state), answer.digest),
                Err(error) if error.status() == Some(404) => (None, None),
                Err(error) => (Some(error.to_string()), None),
            };
            let name = snapshot.name.clone();
            self.history.note(What::Answered { scheduler: n, name, state, digest });
        }
    }

    async fn log(&self, job: &JobRecord) {
        let id = job.id.to_string();
        let (mut entries, mut gaps, mut last) = (0, 0, LogSeq::ZERO);
        let read = async {
            let mut events = self.clients[0].job_events(&id, LogSeq::ZERO, false)?;
            while let Some(event) = events.next().await {
                let JobEvent::Log(entry) = event? else { continue };
                entries += 1;
                gaps += u64::from(!entry.seq.follows(last));
                last = entry.seq;
            }
            Ok::<_, slipway_api::client::Error>(())
        };
        let problem = match tokio::time::timeout(READING, read).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(telemetry::chain(&error)),
            Err(_) => Some("it was not read in time".to_owned()),
        };
        let ended = last == LogSeq::END;
        self.history.note(What::Log { job: id, entries, gaps, ended, problem });
    }

    async fn image(&self, snapshot: &SnapshotRecord) -> Result<(), Error> {
        let Some(image) = snapshot.state.image() else { return Ok(()) };
        let store = open(self.system, &snapshot.region)?;
        let (blobs, problem) = match verify(&store, snapshot, &image.digest).await {
            Ok(blobs) => (blobs, None),
            Err(problem) => (0, Some(problem)),
        };
        let (snapshot, digest) = (snapshot.id.to_string(), image.digest.to_string());
        self.history.note(What::Image { snapshot, digest, blobs, problem });
        Ok(())
    }
}

/// A region's object store.
pub(crate) fn open(system: &System, region: &Region) -> Result<Store, Error> {
    let url = system.store(region.as_str()).parse().expect("the address of a folder");
    Store::open(&Config::new(url)).map_err(Error::Store)
}

/// The blobs of an image: config and layers.
pub(crate) async fn blobs(store: &Store, manifest: &Digest) -> Result<Vec<Digest>, String> {
    let bytes = content(store, manifest, MANIFEST).await?;
    let (_, document): (MediaType, Document) =
        Document::parse_untyped(&bytes).map_err(|error| telemetry::chain(&error))?;
    Ok(document.required().map(|descriptor| descriptor.digest).collect())
}

async fn verify(store: &Store, snapshot: &SnapshotRecord, digest: &Digest) -> Result<u32, String> {
    let name = SNAPSHOTS_REPOSITORY.parse().expect("a constant of the right form");
    let repository = Repository { organization: *snapshot.organization.as_uuid(), name };
    let link = ObjectKey::ManifestLink { repository: repository.clone(), digest: *digest };
    there(store, &link).await?;
    let blobs = blobs(store, digest).await?;
    for blob in &blobs {
        content(store, blob, BLOB).await?;
        there(store, &ObjectKey::BlobLink { repository: repository.clone(), digest: *blob })
            .await?;
    }
    Ok(u32::try_from(blobs.len()).unwrap_or(u32::MAX))
}

async fn there(store: &Store, key: &ObjectKey) -> Result<(), String> {
    match store.exists(key).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("`{key}` is missing")),
        Err(error) => Err(telemetry::chain(&error)),
    }
}

async fn content(store: &Store, digest: &Digest, limit: u64) -> Result<bytes::Bytes, String> {
    let bytes = store.get_bytes(&ObjectKey::Blob(*digest), limit).await;
    let bytes = bytes.map_err(|error| telemetry::chain(&error))?;
    let found = Digest::of(digest.algorithm(), &bytes);
    if found == *digest {
        Ok(bytes)
    } else {
        Err(format!("blob {digest} has the content of {found}"))
    }
}

/// Records that belong to nothing.
fn orphans(records: &Records) -> Vec<String> {
    let mut found = vec![];
    let snapshots = || records.snapshots.values().map(|(snapshot, _)| snapshot);
    let jobs_of: BTreeSet<_> = snapshots().map(|snapshot| snapshot.job).collect();
    let jobs: BTreeSet<_> = records.jobs.values().map(|(job, _)| job.id).collect();
    let ids: BTreeSet<String> = snapshots().map(|snapshot| snapshot.id.to_string()).collect();
    for job in jobs.difference(&jobs_of) {
        found.push(format!("job {job} belongs to no snapshot"));
    }
    for snapshot in snapshots().filter(|snapshot| !jobs.contains(&snapshot.job)) {
        let (name, id, job) = (&snapshot.name, snapshot.id, snapshot.job);
        found.push(format!("snapshot `{name}` ({id}) names job {job}, which is gone"));
    }
    for (key, value) in &records.names {
        if !ids.iter().any(|id| value.contains(id)) {
            found.push(format!("{key} names no snapshot: {value}"));
        }
    }
    found
}
