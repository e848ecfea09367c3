//! Names that move, over crashes and two schedulers.

use slipway_domain::snapshot::name::NameRecord;
use slipway_domain::{Failure, FailureKind};

use super::*;

/// An active snapshot `a`, and one that is to replace it.
async fn replacing(replica: &Replica) -> (SnapshotRecord, (SnapshotRecord, JobRecord)) {
    let (old, job) = new("a");
    replica.ledger.create(&old, &job, Naming::Take).await.unwrap();
    replica.ledger.apply(job.id, published()).await.unwrap();
    replica.ledger.tell_all(job.id).await.unwrap();
    let next = new("a");
    let created = replica.ledger.create(&next.0, &next.1, Naming::Replace).await.unwrap();
    assert_eq!(created.state.name(), "pending");
    (old, next)
}

fn holder(replica: &Replica) -> Option<SnapshotId> {
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    replica.view.records().find(&organization, "a").map(|entry| entry.value.id)
}

fn failed() -> JobEvent {
    let failure = Failure::new(FailureKind::ImageNotFound, "no such image");
    JobEvent::Failed { attempt: attempt(), worker: "w1".parse().unwrap(), failure }
}

async fn stored_name(bus: &Bus) -> Option<NameRecord> {
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    let key = keys::snapshot_name(&organization, "a");
    let entry = bus.bucket(&BucketName::Records).get(&key).await.unwrap();
    entry.map(|entry| entry.json().unwrap())
}

#[tokio::test]
async fn the_name_moves_when_the_new_one_is_active_and_the_old_one_goes() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (old, (next, job)) = replacing(&only).await;
    assert_eq!(holder(&only), Some(old.id));
    assert_eq!(only.view.records().replaced_by(&next), Some(old.id));
    only.ledger.apply(job.id, started()).await.unwrap();
    only.ledger.tell_all(job.id).await.unwrap();
    assert_eq!((holder(&only), only.state(old.id)), (Some(old.id), Some("active")));
    only.ledger.apply(job.id, published()).await.unwrap();
    only.ledger.tell_all(job.id).await.unwrap();
    assert_eq!((holder(&only), only.state(next.id)), (Some(next.id), Some("active")));
    assert_eq!(only.state(old.id), Some("removing"));
    assert_eq!(stored_name(&bus).await, Some(NameRecord::new(next.id)));
    only.repair().await;
    only.sees("the old one is gone", || only.state(old.id).is_none()).await;
    assert_eq!(stored_name(&bus).await, Some(NameRecord::new(next.id)));
}

#[tokio::test]
async fn the_name_stays_when_the_new_one_fails() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (old, (next, job)) = replacing(&only).await;
    only.ledger.apply(job.id, failed()).await.unwrap();
    only.ledger.tell_all(job.id).await.unwrap();
    assert_eq!((holder(&only), only.state(old.id)), (Some(old.id), Some("active")));
    // It can be read, and deleted, by its id; the name is not touched by that.
    assert_eq!(only.state(next.id), Some("error"));
    only.ledger.remove(next.id).await.unwrap();
    only.repair().await;
    only.sees("it is gone", || only.state(next.id).is_none()).await;
    assert_eq!(stored_name(&bus).await, Some(NameRecord::new(old.id)));
    assert_eq!(holder(&only), Some(old.id));
}

#[tokio::test]
async fn a_scheduler_that_dies_before_the_name_moved_has_it_moved_by_the_next() {
    let (_server, bus) = start().await;
    let dying = replica(&bus).await;
    let (old, (next, job)) = replacing(&dying).await;
    // The job's move is stored, and nothing after it.
    dying.ledger.apply(job.id, published()).await.unwrap();
    drop(dying);
    let second = replica(&bus).await;
    assert_eq!(holder(&second), Some(old.id));
    second.repair().await;
    assert_eq!(holder(&second), Some(next.id));
    // The name moved, and nothing after that.
    let (last, job) = new("a");
    second.ledger.create(&last, &job, Naming::Replace).await.unwrap();
    second.ledger.apply(job.id, published()).await.unwrap();
    second.ledger.tell_all(job.id).await.unwrap();
    let third = replica(&bus).await;
    let unsettled = third.view.records().unsettled_names();
    for name in unsettled {
        third.ledger.settle_name(&name).await.unwrap();
    }
    third.repair().await;
    third
        .sees("only the last is left", || {
            third.state(old.id).is_none() && third.state(next.id).is_none()
        })
        .await;
    assert_eq!((holder(&third), third.state(last.id)), (Some(last.id), Some("active")));
}

#[tokio::test]
async fn of_two_replacements_the_later_request_wins_whoever_is_ready_first() {
    let (_server, bus) = start().await;
    let (a, b) = (replica(&bus).await, replica(&bus).await);
    let (old, (second, second_job)) = replacing(&a).await;
    b.sees("the other knows both", || b.state(second.id).is_some()).await;
    let (third, third_job) = new("a");
    b.ledger.create(&third, &third_job, Naming::Replace).await.unwrap();
    a.sees("both know all", || a.state(third.id).is_some()).await;
    b.ledger.apply(third_job.id, published()).await.unwrap();
    b.ledger.tell_all(third_job.id).await.unwrap();
    assert_eq!(holder(&b), Some(third.id));
    // The earlier one comes too late: it is removed, and its job is of no use.
    assert_eq!(b.state(second.id), Some("removing"));
    assert_eq!(b.state(old.id), Some("removing"));
    a.ledger.move_job(second_job.id, published()).await.unwrap();
    let _ = a.ledger.tell_all(second_job.id).await;
    assert_eq!(stored_name(&bus).await, Some(NameRecord::new(third.id)));
    a.sees("the other knows it, too", || holder(&a) == Some(third.id)).await;
}

#[tokio::test]
async fn a_name_that_is_deleted_goes_to_the_one_that_waits_for_it() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (old, (next, job)) = replacing(&only).await;
    only.ledger.remove(old.id).await.unwrap();
    only.repair().await;
    only.sees("the old one is gone", || only.state(old.id).is_none()).await;
    assert_eq!(stored_name(&bus).await, Some(NameRecord::new(next.id)));
    only.ledger.apply(job.id, published()).await.unwrap();
    only.ledger.tell_all(job.id).await.unwrap();
    assert_eq!((holder(&only), only.state(next.id)), (Some(next.id), Some("active")));
}

#[tokio::test]
async fn without_replace_a_taken_name_stays_refused_and_a_free_one_is_taken_with_it() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (first, job) = new("a");
    only.ledger.create(&first, &job, Naming::Replace).await.unwrap();
    assert_eq!(holder(&only), Some(first.id));
    let (other, job) = new("a");
    let refused = only.ledger.create(&other, &job, Naming::Take).await.unwrap_err();
    assert!(matches!(refused, Error::NameTaken { .. }), "{refused}");
}

#[tokio::test]
async fn a_snapshot_that_others_use_is_not_replaced() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (old, job) = new("a");
    only.ledger.create(&SnapshotRecord { general: true, ..old }, &job, Naming::Take).await.unwrap();
    let (next, job) = new("a");
    let refused = only.ledger.create(&next, &job, Naming::Replace).await.unwrap_err();
    assert!(matches!(refused, Error::GeneralReplaced { .. }), "{refused}");
}
