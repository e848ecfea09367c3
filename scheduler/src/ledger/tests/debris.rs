//! What is left of creations and removals that broke off.

use super::*;

#[tokio::test]
async fn a_name_without_its_snapshot_is_given_up() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    let dying = replica(&bus).await;
    dying.ledger.take_name(&snapshot, Naming::Take).await.unwrap();
    let next = replica(&bus).await;
    let taken = next.ledger.create(&snapshot, &job, Naming::Take).await.unwrap_err();
    assert!(matches!(taken, Error::NameTaken { .. }), "{taken}");
    next.repair().await;
    next.sees("the watch brings it", || next.view.records().debris().is_empty()).await;
    let (again, job) = new("a");
    next.ledger.create(&again, &job, Naming::Take).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_without_its_job_gets_it() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    let dying = replica(&bus).await;
    dying.ledger.take_name(&snapshot, Naming::Take).await.unwrap();
    let key = keys::snapshot(&snapshot.organization, &snapshot.id);
    dying.ledger.records.create(&key, &snapshot, None).await.unwrap();
    let next = replica(&bus).await;
    assert_eq!(next.view.records().debris(), [Debris::Snapshot(snapshot.id)]);
    next.repair().await;
    assert_eq!(next.job_state(job.id), Some("queued"));
    next.ledger.move_job(job.id, published()).await.unwrap();
    assert_eq!(next.state(snapshot.id), Some("active"));
}

#[tokio::test]
async fn a_job_without_its_snapshot_is_dropped_and_its_name_free() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    let dying = replica(&bus).await;
    dying.ledger.take_name(&snapshot, Naming::Take).await.unwrap();
    dying.ledger.records.create(&keys::job(&job.id), &job, None).await.unwrap();
    let next = replica(&bus).await;
    assert_eq!(next.view.records().debris().len(), 2);
    next.repair().await;
    next.sees("the watch brings it", || next.view.records().debris().is_empty()).await;
    assert_eq!(next.job_state(job.id), None);
    let (again, job) = new("a");
    next.ledger.create(&again, &job, Naming::Take).await.unwrap();
}

#[tokio::test]
async fn a_removal_that_broke_off_is_finished_by_the_next_scheduler() {
    let (_server, bus) = start().await;
    let (snapshot, job) = new("a");
    let dying = replica(&bus).await;
    dying.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    dying.ledger.move_job(job.id, started()).await.unwrap();
    let remove = |record: &SnapshotRecord| {
        Some(record.apply(record.job, SnapshotEvent::Remove, Timestamp::now()))
    };
    dying.ledger.change_snapshot(snapshot.id, "a removal", remove).await.unwrap();
    let next = replica(&bus).await;
    next.ledger.cancel_unwanted(job.id).await.unwrap();
    assert_eq!(next.job_state(job.id), Some("cancelled"));
    assert_eq!(next.state(snapshot.id), Some("removing"));
    next.repair().await;
    next.sees("all is gone", || {
        next.state(snapshot.id).is_none() && next.job_state(job.id).is_none()
    })
    .await;
    let (again, job) = new("a");
    next.ledger.create(&again, &job, Naming::Take).await.unwrap();
}
