#![allow(clippy::unwrap_used)]
use std::time::Duration;

use jiff::Timestamp;
use slipway_bus::Bus;
use slipway_bus::topology::{BucketName, keys};
use slipway_domain::Attempt;
use slipway_domain::attempt::{AttemptNumber, Nonce};
use slipway_domain::image::BuiltImage;
use slipway_domain::job::{JobEvent, JobRecord, RetryPolicy};
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::snapshot::name::NameRecord;
use slipway_oci::Digest;
use uuid::Uuid;

use super::*;
use crate::ledger::tests::{new, start};

/// Enough that records are packed and several batches come.
const MANY: usize = 1200;

/// A snapshot that is done with, and its job.
fn finished(n: usize) -> (SnapshotRecord, JobRecord) {
    let (snapshot, mut job) = new(&format!("s{n}"));
    let attempt = Attempt { number: AttemptNumber::FIRST, nonce: Nonce::from_uuid(Uuid::new_v4()) };
    let worker = || "us-1".parse().unwrap();
    let image = BuiltImage {
        digest: Digest::sha256(n.to_be_bytes()),
        config_digest: Digest::sha256(b"config"),
        size: n as u64,
        entrypoint: vec![],
        cmd: vec!["sh".into()],
        layers: 3,
        cached_steps: 0,
        total_steps: 2,
    };
    for event in [
        JobEvent::Started { attempt, worker: worker() },
        JobEvent::Published { attempt, worker: worker(), image },
        JobEvent::LogArchived,
    ] {
        job = job.apply(event, Timestamp::now(), &RetryPolicy::default()).unwrap().next;
    }
    (snapshot.follow(&job).unwrap(), job)
}

async fn write(bus: &Bus, (snapshot, job): &(SnapshotRecord, JobRecord)) {
    let records = bus.bucket(&BucketName::Records);
    let name = NameRecord::new(snapshot.id);
    let name_key = keys::snapshot_name(&snapshot.organization, &snapshot.name);
    let key = keys::snapshot(&snapshot.organization, &snapshot.id);
    records.put(&name_key, &name, None).await.unwrap();
    records.put(&key, snapshot, None).await.unwrap();
    records.put(&keys::job(&job.id), job, None).await.unwrap();
}

#[tokio::test]
async fn the_first_state_comes_in_batches_and_every_change_after_it() {
    let (_server, bus) = start().await;
    let mut all: Vec<_> = (0..MANY).map(finished).collect();
    stream::iter(&all).map(|one| write(&bus, one)).buffer_unordered(64).collect::<()>().await;
    let view = Arc::new(View::default());
    let mut changes = view.changes();
    let (ready, complete) = oneshot::channel();
    let bucket = bus.bucket(&BucketName::Records);
    let following = follow(bucket, view.clone(), ready, |job| panic!("{job} owes nothing"));
    let looking = async {
        complete.await.unwrap();
        for (snapshot, job) in &all {
            assert_eq!(*view.records().snapshot(&snapshot.id).unwrap().value, *snapshot);
            assert_eq!(*view.records().job(&job.id).unwrap().value, *job);
            let found = view.records().find(&snapshot.organization, &snapshot.name);
            assert_eq!(found.unwrap().value.id, snapshot.id);
        }
        assert_eq!(view.records().debris(), []);
        let told = *changes.borrow_and_update();
        assert!(told < MANY as u64, "{told} times for {} records", MANY * 3);
        let last = &mut all[MANY / 2];
        last.0 = last.0.used(Timestamp::now()).unwrap();
        write(&bus, last).await;
        let is_here = |_: &u64| *view.records().snapshot(&last.0.id).unwrap().value == last.0;
        let seen = changes.wait_for(is_here);
        tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().unwrap();
    };
    // Cancel-safe: the test is over then.
    tokio::select! {
        ended = following => panic!("it ended: {ended:?}"),
        () = looking => {}
    }
}
