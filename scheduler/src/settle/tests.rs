//! The end of a job, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use futures::StreamExt as _;
use slipway_bus::logs::Item;
use slipway_domain::{LogEntry, LogSeq};
use slipway_runtime::Tasks;
use tempfile::TempDir;

use super::*;
use crate::ledger::Naming;
use crate::ledger::tests::{Replica, new, published, replica, start};

pub(crate) fn settler(bus: &Bus, replica: &Replica, folder: &TempDir) -> Settler {
    let config = format!("\"file://{}\"", folder.path().display());
    let config: slipway_blobstore::Config = serde_json::from_str(&config).unwrap();
    let stores = BTreeMap::from([("us".parse().unwrap(), Store::open(&config).unwrap())]);
    let meter = telemetry::no_meter();
    let view = replica.view.clone();
    let logs = Logs::new(bus.clone(), view.clone(), stores.clone(), Tasks::new());
    Settler {
        bus: bus.clone(),
        view,
        ledger: replica.ledger.clone(),
        queue: Arc::new(Queue::new(replica.view.clone(), replica.ledger.clone())),
        logs: Arc::new(logs),
        stores,
        time_limit: Duration::from_secs(60),
        metrics: Metrics::new(&meter, std::iter::empty()),
        calm: Calm::default(),
    }
}

fn is_end(line: &[u8]) -> bool {
    serde_json::from_slice::<LogEntry>(line).unwrap().seq == LogSeq::END
}

#[tokio::test]
async fn the_end_of_a_log_is_stored_after_every_snapshot_has_heard_of_it() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let settler = settler(&bus, &only, &folder);
    let (snapshot, job) = new("a");
    only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    // It ends after it was settled, and before its snapshot hears of it.
    only.ledger.apply(job.id, published()).await.unwrap();
    let mut log = bus.logs().follow(&job.region, job.id);
    // Else the end may be archived and purged before it is looked for.
    assert!(matches!(log.next().await.unwrap(), Item::CaughtUp));
    let state_at_end = async {
        while !matches!(log.next().await.unwrap(), Item::Chunk(chunk) if is_end(&chunk.bytes)) {}
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let stored = bus.bucket(&BucketName::Records).get(&key).await.unwrap().unwrap();
        stored.json::<SnapshotRecord>().unwrap().state.name()
    };
    let (state, closed) = tokio::join!(state_at_end, settler.close(job.id));
    assert!(closed.is_ok());
    assert_eq!(state, "active");
}

#[tokio::test]
async fn who_reads_the_end_of_a_log_finds_the_snapshot_as_it_says() {
    let (_server, bus) = start().await;
    let (a, late) = (replica(&bus).await, replica(&bus).await);
    let folder = tempfile::tempdir().unwrap();
    let (closing, reading) = (settler(&bus, &a, &folder), settler(&bus, &late, &folder));
    let (snapshot, job) = new("a");
    late.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    // This one hears of the log, and of records only when it asks.
    late.watch.abort();
    a.ledger.move_job(job.id, published()).await.unwrap();
    let mut pieces = reading.logs.read(job.id, LogSeq::ZERO, true).await.unwrap();
    let read = async {
        while let Some(piece) = pieces.next().await {
            if piece.unwrap().lines().any(|(seq, _)| seq == LogSeq::END) {
                return late.state(snapshot.id);
            }
        }
        panic!("the log has no end");
    };
    let hear = async {
        assert!(closing.close(job.id).await.is_ok());
        late.ledger.refresh(job.id).await.unwrap();
        late.ledger.follow(job.id).await.unwrap();
    };
    let (state, ()) = tokio::join!(read, hear);
    assert_eq!(state, Some("active"));
}
