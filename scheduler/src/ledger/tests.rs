//! Crashes between any two writes, and two schedulers at once, on a real
//! nats-server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod activity;
mod debris;
mod replace;
mod sharing;

use std::time::Duration;

use jiff::Timestamp;
use slipway_bus::topology::BucketName;
use slipway_bus::{Config, Topology};
use slipway_domain::job::{JobEvent, JobState, NewJob};
use slipway_domain::snapshot::{NewSnapshot, SnapshotEvent};
use slipway_domain::spec::{JobSpec, PullSpec, Resources};
use slipway_domain::{Attempt, AttemptNumber, BuiltImage, Class, Nonce};
use slipway_testkit::NatsServer;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;
use crate::replay;
use crate::view::{Debris, name_of};

/// A scheduler's ledger and view, following the records.
pub(crate) struct Replica {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) view: Arc<View>,
    /// Announcements are not looked at: what follows from a move is "lost".
    work: Mutex<mpsc::UnboundedReceiver<JobId>>,
    pub(crate) watch: tokio::task::JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub(crate) async fn start() -> (NatsServer, Bus) {
    let server = NatsServer::start().await;
    let bus = slipway_bus::connect(&Config::new(server.url(), "test")).await.unwrap();
    let mut topology = Topology::single("us".parse().unwrap());
    topology.logs_max_bytes = 1 << 30;
    bus.ensure(&topology).await.unwrap();
    (server, bus)
}

pub(crate) async fn replica(bus: &Bus) -> Replica {
    replica_with(bus, Images::default()).await
}

async fn replica_with(bus: &Bus, images: Images) -> Replica {
    let view = Arc::new(View::default());
    let limits = Limits::default();
    let meter = slipway_runtime::telemetry::no_meter();
    let metrics = Metrics::new(&meter, std::iter::empty());
    let (ledger, work) =
        Ledger::new(bus, view.clone(), RetryPolicy::default(), limits, metrics, images);
    let (ready, complete) = oneshot::channel();
    let (bucket, followed) = (bus.bucket(&BucketName::Records).watch(None), view.clone());
    let watch = tokio::spawn(async move {
        replay::follow(bucket, followed, ready, |_lost| {}).await.unwrap();
    });
    complete.await.unwrap();
    Replica { ledger: Arc::new(ledger), view, work: Mutex::new(work), watch }
}

impl Replica {
    /// What the reconciler does about records, without its patience.
    async fn repair(&self) {
        let debris = self.view.records().debris();
        for debris in debris {
            self.ledger.clear(&debris).await.unwrap();
        }
        let owing: Vec<JobId> = self.view.records().owing().collect();
        for job in owing {
            self.ledger.follow(job).await.unwrap();
        }
        let removing: Vec<_> = self.view.records().removing().cloned().collect();
        for entry in removing {
            self.ledger.cancel_unwanted(entry.value.job).await.unwrap();
            self.ledger.forget(&entry.value, entry.revision).await.unwrap();
        }
    }

    /// Waits until the view shows something.
    async fn sees(&self, what: &str, probe: impl Fn() -> bool) {
        let mut changes = self.view.changes();
        let seen = tokio::time::timeout(Duration::from_secs(60), changes.wait_for(|_| probe()));
        seen.await.unwrap_or_else(|_| panic!("{what}")).unwrap();
    }

    /// The next announcement, if there is one.
    pub(crate) fn announced(&self) -> Option<JobId> {
        self.work.lock().unwrap().try_recv().ok()
    }

    pub(crate) fn state(&self, id: SnapshotId) -> Option<&'static str> {
        self.view.records().snapshot(&id).map(|entry| entry.value.state.name())
    }

    fn job_state(&self, id: JobId) -> Option<&'static str> {
        self.view.records().job(&id).map(|entry| entry.value.state.name())
    }
}

pub(crate) fn new(name: &str) -> (SnapshotRecord, JobRecord) {
    let now = Timestamp::now();
    let spec = PullSpec {
        image: "python:3.12".into(),
        platform: "linux/amd64".into(),
        max_size: 1,
        entrypoint: None,
    };
    let (id, job) = (SnapshotId::from_uuid(Uuid::now_v7()), JobId::from_uuid(Uuid::now_v7()));
    let snapshot = NewSnapshot {
        id,
        organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
        name: name.into(),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        resources: Resources::default(),
        source: JobSpec::Pull(spec),
        job,
    };
    let job = NewJob {
        id: job,
        organization: snapshot.organization,
        snapshot: id,
        region: snapshot.region.clone(),
        class: Class::Cpu,
        kind: snapshot.source.kind(),
        trace: None,
    };
    (SnapshotRecord::new(snapshot, now), JobRecord::new(job, now))
}

fn attempt() -> Attempt {
    let nonce = Nonce::from_uuid(Uuid::from_u128(1));
    Attempt { number: AttemptNumber::FIRST, nonce }
}

fn started() -> JobEvent {
    JobEvent::Started { attempt: attempt(), worker: "w1".parse().unwrap() }
}

pub(crate) fn image() -> BuiltImage {
    let digest: slipway_oci::Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    BuiltImage {
        digest,
        config_digest: digest,
        size: 1,
        entrypoint: vec![],
        cmd: vec![],
        layers: 1,
        cached_steps: 0,
        total_steps: 1,
    }
}

pub(crate) fn published() -> JobEvent {
    JobEvent::Published { attempt: attempt(), worker: "w1".parse().unwrap(), image: image() }
}

#[tokio::test]
async fn a_move_whose_snapshot_was_not_told_is_finished_by_the_next_scheduler() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    replica(&bus).await.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    // That it began needs no telling.
    for (event, shown, told) in
        [(started(), "pulling", "pulling"), (published(), "pending", "active")]
    {
        // The job moves, and then the process is gone.
        let moved = replica(&bus).await.ledger.apply(job.id, event).await.unwrap();
        assert!(matches!(moved, Moved::Applied));
        let next = replica(&bus).await;
        assert_eq!(next.state(snapshot.id), Some(shown));
        next.repair().await;
        assert_eq!(next.state(snapshot.id), Some(told));
        assert_eq!(next.view.records().owing().count(), 0);
    }
}

#[tokio::test]
async fn an_event_that_comes_again_tells_the_snapshot_what_it_missed() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    let only = replica(&bus).await;
    only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    only.ledger.apply(job.id, published()).await.unwrap();
    assert_eq!(only.state(snapshot.id), Some("pending"));
    only.ledger.move_job(job.id, published()).await.unwrap();
    assert_eq!(only.state(snapshot.id), Some("active"));
}

#[tokio::test]
async fn a_job_goes_on_while_one_snapshot_wants_it() {
    let (_server, bus) = start().await;
    let (first, job) = new("a");
    let (second, _) = new("b");
    let second = SnapshotRecord { job: job.id, ..second };
    let only = replica(&bus).await;
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    only.ledger.take_name(&second, Naming::Take).await.unwrap();
    let key = keys::snapshot(&second.organization, &second.id);
    only.ledger.records.create(&key, &second, None).await.unwrap();
    only.sees("both stand on it", || only.view.records().followers(job.id).count() == 2).await;
    only.ledger.remove(first.id).await.unwrap();
    assert_eq!(only.job_state(job.id), Some("queued"));
    only.repair().await;
    only.sees("the first is gone", || only.state(first.id).is_none()).await;
    only.ledger.move_job(job.id, started()).await.unwrap();
    assert_eq!(only.state(second.id), Some("pulling"));
    only.ledger.remove(second.id).await.unwrap();
    assert_eq!(only.job_state(job.id), Some("cancelled"));
}

#[tokio::test]
async fn a_scheduler_that_has_not_heard_of_a_job_asks_for_it() {
    let (_server, bus) = start().await;
    let (late, other) = (replica(&bus).await, replica(&bus).await);
    late.watch.abort();
    let (snapshot, job) = new("a");
    other.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    other.ledger.move_job(job.id, started()).await.unwrap();
    late.ledger.move_job(job.id, published()).await.unwrap();
    assert_eq!(late.state(snapshot.id), Some("active"));
    // What it knows is behind again; an event is not refused for that.
    let (snapshot, job) = new("b");
    other.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    late.ledger.follow(job.id).await.unwrap();
    late.ledger.move_job(job.id, started()).await.unwrap();
    let lost = JobEvent::LeaseLost { attempt: attempt() };
    other.ledger.move_job(job.id, lost).await.unwrap();
    let second = Attempt { number: AttemptNumber::new(2), ..attempt() };
    let again = JobEvent::Started { attempt: second, worker: "w1".parse().unwrap() };
    let moved = late.ledger.move_job(job.id, again).await.unwrap();
    assert!(matches!(moved, Moved::Applied), "{moved:?}");
}

#[tokio::test]
async fn two_schedulers_that_move_the_same_jobs_agree() {
    let (_server, bus) = start().await;
    let (a, b) = (replica(&bus).await, replica(&bus).await);
    let made: Vec<_> = (0..10).map(|n| new(&format!("s{n}"))).collect();
    for (snapshot, job) in &made {
        a.ledger.create(snapshot, job, Naming::Take).await.unwrap();
    }
    let runs = made.iter().map(|(snapshot, job)| async {
        let (one, other) = tokio::join!(
            a.ledger.move_job(job.id, started()),
            b.ledger.move_job(job.id, started()),
        );
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        let (one, other, removed) = tokio::join!(
            a.ledger.move_job(job.id, published()),
            b.ledger.move_job(job.id, JobEvent::Cancel),
            b.ledger.move_job(job.id, published()),
        );
        assert!(one.is_ok() && other.is_ok() && removed.is_ok(), "{one:?} {other:?} {removed:?}");
        let stored = a.ledger.records.get(&keys::job(&job.id)).await.unwrap().unwrap();
        let ended = stored.json::<JobRecord>().unwrap();
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let stored = a.ledger.records.get(&key).await.unwrap().unwrap();
        let told = stored.json::<SnapshotRecord>().unwrap();
        assert_eq!(told.follow(&ended), None, "{told:?} {ended:?}");
        match ended.state {
            JobState::Succeeded { .. } => assert_eq!(told.state.name(), "active"),
            JobState::Cancelled => assert_eq!(told.state.name(), "error"),
            other => panic!("{other:?}"),
        }
    });
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn of_two_creations_of_one_name_one_is_refused() {
    let (_server, bus) = start().await;
    let (a, b) = (replica(&bus).await, replica(&bus).await);
    for n in 0..5 {
        let name = format!("s{n}");
        let (first, second) = (new(&name), new(&name));
        let (one, other) = tokio::join!(
            a.ledger.create(&first.0, &first.1, Naming::Take),
            b.ledger.create(&second.0, &second.1, Naming::Take),
        );
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        let refused = one.and(other).unwrap_err();
        assert!(matches!(refused, Error::NameTaken { .. }), "{refused}");
    }
}

#[tokio::test]
async fn a_snapshot_whose_removal_broke_off_is_forgotten_by_the_next_look() {
    let (_server, bus) = start().await;
    for (n, writes) in [0, 1, 2].into_iter().enumerate() {
        let only = replica(&bus).await;
        let (snapshot, job) = new(&format!("s{n}"));
        only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
        only.ledger.move_job(job.id, published()).await.unwrap();
        only.ledger.remove(snapshot.id).await.unwrap();
        let records = bus.bucket(&BucketName::Records);
        let job_key = keys::job(&job.id);
        if writes > 0 {
            let entry = records.get(&job_key).await.unwrap().unwrap();
            records.delete(&job_key, entry.revision).await.unwrap();
        }
        if writes > 1 {
            only.ledger.leave_name(&name_of(&snapshot), snapshot.id).await.unwrap();
        }
        // Another scheduler finds it so.
        let next = replica(&bus).await;
        assert_eq!(next.state(snapshot.id), Some("removing"));
        next.repair().await;
        next.repair().await;
        let snapshot_key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let name_key = keys::snapshot_name(&snapshot.organization, &snapshot.name);
        for key in [job_key, snapshot_key, name_key] {
            assert_eq!(records.get(&key).await.unwrap(), None, "{key} after {writes} writes");
        }
    }
}

/// What a snapshot has to hear of a job that began is in the view, and stored nowhere.
#[tokio::test]
async fn a_snapshot_whose_job_began_is_shown_so_by_every_scheduler_and_stored_as_pending() {
    let (_server, bus) = start().await;
    let (one, other) = (replica(&bus).await, replica(&bus).await);
    let (snapshot, job) = new("a");
    one.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    one.ledger.move_job(job.id, started()).await.unwrap();
    assert_eq!(one.state(snapshot.id), Some("pulling"));
    let mut changes = other.view.changes();
    changes.wait_for(|_| other.state(snapshot.id) == Some("pulling")).await.unwrap();
    // One that reads all of it anew sees the same.
    let late = replica(&bus).await;
    assert_eq!(late.state(snapshot.id), Some("pulling"));
    assert_eq!(late.view.records().owing().count(), 0);
    let key = keys::snapshot(&snapshot.organization, &snapshot.id);
    let stored = bus.bucket(&BucketName::Records).get(&key).await.unwrap().unwrap();
    assert_eq!(stored.json::<SnapshotRecord>().unwrap().state.name(), "pending");
    late.ledger.move_job(job.id, published()).await.unwrap();
    assert_eq!(late.state(snapshot.id), Some("active"));
    let stored = bus.bucket(&BucketName::Records).get(&key).await.unwrap().unwrap();
    assert_eq!(stored.json::<SnapshotRecord>().unwrap().state.name(), "active");
}

/// What `docs/adr/0017` says about the messages of one job's life.
#[tokio::test]
async fn a_life_stores_seven_messages_in_the_records_and_a_removal_four() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let records = bus.bucket(&BucketName::Records);
    let before = records.put("job.mark", "", None).await.unwrap();
    let (snapshot, job) = new("a");
    only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    only.ledger.move_job(job.id, started()).await.unwrap();
    only.ledger.move_job(job.id, published()).await.unwrap();
    only.ledger.move_job(job.id, JobEvent::LogArchived).await.unwrap();
    let lived = records.put("job.mark", "", None).await.unwrap();
    assert_eq!(lived - before - 1, 7);
    only.ledger.remove(snapshot.id).await.unwrap();
    let entry = only.view.records().snapshot(&snapshot.id).unwrap().clone();
    only.ledger.forget(&entry.value, entry.revision).await.unwrap();
    let gone = records.put("job.mark", "", None).await.unwrap();
    assert_eq!(gone - lived - 1, 4);
}

/// An image as a worker leaves it in a store.
async fn stored_image(store: &slipway_blobstore::Store) -> slipway_oci::Digest {
    use slipway_blobstore::{ObjectKey, Repository};
    let repository =
        Repository { organization: Uuid::from_u128(1), name: "snapshots".parse().unwrap() };
    let config = slipway_oci::Descriptor::of(slipway_oci::MediaType::OciImageConfig, b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": slipway_oci::MediaType::OciManifest,
        "config": config, "layers": [],
    });
    let manifest = manifest.to_string();
    let digest = slipway_oci::Digest::sha256(&manifest);
    let link = |digest| ObjectKey::BlobLink { repository: repository.clone(), digest };
    for (key, bytes) in [
        (ObjectKey::Blob(config.digest), "{}".to_owned()),
        (link(config.digest), "{}".to_owned()),
        (ObjectKey::Blob(digest), manifest),
        (ObjectKey::ManifestLink { repository: repository.clone(), digest }, "{}".to_owned()),
    ] {
        store.put_bytes(&key, bytes).await.unwrap();
    }
    digest
}

fn published_as(digest: slipway_oci::Digest) -> JobEvent {
    let JobEvent::Published { attempt, worker, image } = published() else { unreachable!() };
    JobEvent::Published { attempt, worker, image: BuiltImage { digest, ..image } }
}
