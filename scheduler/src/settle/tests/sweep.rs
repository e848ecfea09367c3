//! Streams are rid of what is archived, and of nothing else.

use super::*;

const LONG: Duration = Duration::from_secs(3600);

/// A job with a chunk in the stream.
async fn begun(bus: &Bus, replica: &Replica, name: &str) -> JobRecord {
    let (snapshot, job) = new(name);
    replica.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    chunk(bus, &job, "w1", 1).await;
    job
}

/// Ends and closes it.
async fn close(settler: &Settler, job: &JobRecord) {
    settler.ledger.move_job(job.id, published()).await.unwrap();
    assert!(settler.close(job.id).await.is_ok());
}

async fn chunks(bus: &Bus, job: &JobRecord) -> usize {
    bus.logs().read_all(&job.region, job.id).await.unwrap().len()
}

/// Entries that a reader gets.
async fn entries(settler: &Settler, job: &JobRecord) -> Vec<LogSeq> {
    let pieces = settler.logs.read(job.id, LogSeq::ZERO, true).await.unwrap();
    let pieces: Vec<_> = pieces.map(Result::unwrap).collect().await;
    pieces.iter().flat_map(|piece| piece.lines().map(|(seq, _)| seq).collect::<Vec<_>>()).collect()
}

#[tokio::test]
async fn what_lies_behind_a_log_that_is_still_written_goes_by_itself_and_leaves_it_whole() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let settler = settler(&bus, &only, &folder);
    let first = begun(&bus, &only, "first").await;
    let running = begun(&bus, &only, "running").await;
    let behind = begun(&bus, &only, "behind").await;
    close(&settler, &first).await;
    close(&settler, &behind).await;
    let us = &first.region;
    settler.logs.sweep(us, LONG).await.unwrap();
    // The end of the first one lies behind, too.
    assert_eq!((chunks(&bus, &first).await, chunks(&bus, &behind).await), (1, 2));
    settler.logs.sweep(us, Duration::ZERO).await.unwrap();
    assert_eq!((chunks(&bus, &first).await, chunks(&bus, &behind).await), (0, 0));
    assert_eq!(chunks(&bus, &running).await, 1);
    chunk(&bus, &running, "w1", 2).await;
    close(&settler, &running).await;
    settler.logs.sweep(us, LONG).await.unwrap();
    assert_eq!(bus.logs().jobs(us).await.unwrap(), []);
    for (job, lines) in [(&first, 1), (&running, 2), (&behind, 1)] {
        let mut wanted: Vec<_> =
            (1..=lines).map(|n| LogSeq::new(AttemptNumber::FIRST, n)).collect();
        wanted.push(LogSeq::END);
        assert_eq!(entries(&settler, job).await, wanted);
    }
}

#[tokio::test]
async fn a_sweep_takes_nothing_that_came_after_the_end_of_a_log() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let settler = settler(&bus, &only, &folder);
    let job = begun(&bus, &only, "a").await;
    close(&settler, &job).await;
    // Of a worker that does not know yet that it is over.
    chunk(&bus, &job, "late", 2).await;
    let running = begun(&bus, &only, "b").await;
    for patience in [LONG, Duration::ZERO] {
        settler.logs.sweep(&job.region, patience).await.unwrap();
        assert_eq!((chunks(&bus, &job).await, chunks(&bus, &running).await), (1, 1));
    }
    let end = [LogSeq::new(AttemptNumber::FIRST, 1), LogSeq::END];
    assert_eq!(entries(&settler, &job).await, end);
}

#[tokio::test]
async fn what_a_scheduler_archived_and_did_not_remove_the_next_one_finds() {
    let (_server, bus) = start().await;
    let (only, folder) = (replica(&bus).await, tempfile::tempdir().unwrap());
    let dies = settler(&bus, &only, &folder);
    let job = begun(&bus, &only, "a").await;
    close(&dies, &job).await;
    let running = begun(&bus, &only, "b").await;
    // Over, and the scheduler died before it was archived.
    let over = begun(&bus, &only, "c").await;
    only.ledger.move_job(over.id, published()).await.unwrap();
    drop(dies);
    let next = settler(&bus, &only, &folder);
    next.tidy(&job.region).await.unwrap();
    assert_eq!(chunks(&bus, &job).await, 0);
    assert_eq!((chunks(&bus, &running).await, chunks(&bus, &over).await), (1, 1));
    let whole = [LogSeq::new(AttemptNumber::FIRST, 1), LogSeq::END];
    assert_eq!(entries(&next, &job).await, whole);
    assert!(next.close(over.id).await.is_ok());
    assert_eq!(entries(&next, &over).await, whole);
}

#[tokio::test]
async fn a_job_that_was_redriven_elsewhere_keeps_what_its_new_life_wrote() {
    let (_server, bus) = start().await;
    let (here, there) = (replica(&bus).await, replica(&bus).await);
    let folder = tempfile::tempdir().unwrap();
    let (tidies, redrives) = (settler(&bus, &here, &folder), settler(&bus, &there, &folder));
    let (snapshot, job) = new("a");
    there.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    chunk(&bus, &job, "w1", 1).await;
    die(&redrives, &job).await;
    here.ledger.refresh(job.id).await.unwrap();
    // This one hears of nothing any more, and takes the job for archived.
    here.watch.abort();
    there.ledger.move_job(job.id, JobEvent::Redrive).await.unwrap();
    redrives.logs.sweep(&job.region, Duration::ZERO).await.unwrap();
    chunk(&bus, &job, "w1", 2).await;
    tidies.tidy(&job.region).await.unwrap();
    assert_eq!(chunks(&bus, &job).await, 1);
}

/// Ends a job without attempts left, and closes it.
async fn die(settler: &Settler, job: &JobRecord) {
    loop {
        let state = settler.view.records().job(&job.id).unwrap().value;
        if state.state.is_over() {
            break;
        }
        let attempt = slipway_domain::Attempt {
            number: state.current_attempt(),
            nonce: slipway_domain::Nonce::from_uuid(uuid::Uuid::from_u128(1)),
        };
        let failure = slipway_domain::Failure::new(
            slipway_domain::failure::FailureKind::StoreUnavailable,
            "away",
        );
        let event = JobEvent::Failed { attempt, worker: "w1".parse().unwrap(), failure };
        settler.ledger.move_job(job.id, event).await.unwrap();
    }
    assert!(settler.close(job.id).await.is_ok());
}
