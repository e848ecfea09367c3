//! The end of a job, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use futures::StreamExt as _;
use slipway_bus::logs::Item;
use slipway_domain::log::LogSource;
use slipway_domain::{LogEntry, LogEvent, LogSeq};
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

/// A chunk of one line, as a worker stores it.
async fn chunk(bus: &Bus, job: &JobRecord, worker: &str, n: u32) {
    let event = LogEvent::Line { source: LogSource::Stdout, text: format!("{worker} {n}") };
    let entry = LogEntry { seq: LogSeq::new(AttemptNumber::FIRST, n), time: job.created_at, event };
    let line = format!("{}\n", serde_json::to_string(&entry).unwrap()).into();
    let (worker, id) = (worker.parse().unwrap(), format!("{}/{worker}/{n}", job.id));
    bus.logs().publish_chunk(&job.region, &worker, job.id, line, &id).await.unwrap();
}

#[tokio::test]
async fn logs_are_archived_whole_and_purged_however_long_they_are_and_whoever_wrote_them() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let settler = settler(&bus, &only, &folder);
    // The second is more than one request brings.
    for (name, lines) in [("short", 5), ("long", 150)] {
        let (snapshot, job) = new(name);
        only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
        // Of a claim that never reported, so that no record names it.
        chunk(&bus, &job, "stranger", 1).await;
        for n in 2..=lines {
            chunk(&bus, &job, "w1", n).await;
        }
        only.ledger.move_job(job.id, published()).await.unwrap();
        assert!(settler.close(job.id).await.is_ok());
        assert_eq!(bus.logs().read_all(&job.region, job.id).await.unwrap(), []);
        let pieces = settler.logs.read(job.id, LogSeq::ZERO, true).await.unwrap();
        let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
        let entries = pieces.iter().flat_map(|piece| piece.entries(job.id));
        let entries: Vec<LogEntry> = entries.map(Result::unwrap).collect();
        let (end, rest) = entries.split_last().unwrap();
        assert_eq!((end.seq, rest.len()), (LogSeq::END, lines as usize));
        let numbers: Vec<u32> = rest.iter().map(|entry| entry.seq.n()).collect();
        assert_eq!(numbers, (1..=lines).collect::<Vec<_>>());
        assert!(matches!(&rest[0].event, LogEvent::Line { text, .. } if text == "stranger 1"));
    }
}

#[tokio::test]
async fn a_job_of_the_past_goes_even_if_its_log_was_not_archived_in_time() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let settler = settler(&bus, &only, &folder);
    let (snapshot, job) = new("a");
    only.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    chunk(&bus, &job, "w1", 1).await;
    only.ledger.move_job(job.id, published()).await.unwrap();
    assert!(!settler.is_past(job.id));
    only.ledger.deactivate(snapshot.id, |_| true).await.unwrap();
    let rests = only.view.records().snapshot(&snapshot.id).unwrap().value;
    only.ledger.remake(&rests).await.unwrap();
    assert!(matches!(settler.settle(job.id).await, Ok(Left::Closing)));
    assert!(settler.close(job.id).await.is_ok());
    let records = bus.bucket(&BucketName::Records);
    assert_eq!(records.get(&keys::job(&job.id)).await.unwrap(), None);
    assert_eq!(bus.logs().read_all(&job.region, job.id).await.unwrap(), []);
    let next = only.view.records().snapshot(&snapshot.id).unwrap().value.job;
    assert!(records.get(&keys::job(&next)).await.unwrap().is_some());
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
