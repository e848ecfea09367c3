//! Identical work, over two schedulers.

use std::collections::{BTreeMap, HashSet};

use futures::future::join_all;
use slipway_blobstore::Store;
use slipway_domain::identity::{WorkIdentity, WorkRecord};
use slipway_domain::{Failure, FailureKind};
use tempfile::TempDir;

use super::*;

/// A store with an image, and that it was published.
async fn store() -> (TempDir, Images, JobEvent) {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("\"file://{}\"", folder.path().display());
    let config: slipway_blobstore::Config = serde_json::from_str(&config).unwrap();
    let store = Store::open(&config).unwrap();
    let event = published_as(stored_image(&store).await);
    (folder, Images::new(BTreeMap::from([("us".parse().unwrap(), store)])), event)
}

/// A request for work that all of these share.
fn same(name: &str) -> (SnapshotRecord, JobRecord) {
    let (snapshot, job) = new(name);
    let image = format!("python@sha256:{}", "cd".repeat(32));
    let spec = PullSpec { image, platform: "linux/amd64".into(), max_size: 1, entrypoint: None };
    let source = JobSpec::Pull(spec);
    let identity =
        WorkIdentity::of(snapshot.organization, &snapshot.region, snapshot.class, &source, &[]);
    assert!(identity.is_some());
    (SnapshotRecord { source, ..snapshot }, JobRecord { identity, ..job })
}

fn work_key(job: &JobRecord) -> String {
    keys::work(&job.organization, job.identity.as_ref().unwrap())
}

#[tokio::test]
async fn fifty_requests_at_once_on_two_schedulers_make_one_job_and_all_become_active() {
    let (_server, bus) = start().await;
    let (a, b) = (replica(&bus).await, replica(&bus).await);
    let made: Vec<_> = (0..50).map(|n| same(&format!("s{n}"))).collect();
    let create = async |n: usize| {
        let replica = if n.is_multiple_of(2) { &a } else { &b };
        replica.ledger.create(&made[n].0, &made[n].1, Naming::Take).await.unwrap()
    };
    let created = join_all((0..50).map(create)).await;
    let jobs: HashSet<JobId> = created.iter().map(|snapshot| snapshot.job).collect();
    assert_eq!(jobs.len(), 1);
    let job = created[0].job;
    for replica in [&a, &b] {
        replica.sees("all", || replica.view.records().followers(job).count() == 50).await;
    }
    a.ledger.move_job(job, started()).await.unwrap();
    b.ledger.move_job(job, published()).await.unwrap();
    let all_active = |replica: &Replica| {
        created.iter().all(|snapshot| replica.state(snapshot.id) == Some("active"))
    };
    for replica in [&a, &b] {
        replica.sees("all are active", || all_active(replica)).await;
    }
    assert_eq!(a.view.records().debris(), []);
}

#[tokio::test]
async fn a_finished_image_makes_the_next_one_active_at_once_while_it_is_there() {
    let (_server, bus) = start().await;
    let (folder, images, published) = store().await;
    let only = replica_with(&bus, images).await;
    let (first, job) = same("a");
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    only.ledger.move_job(job.id, published.clone()).await.unwrap();
    let (second, other) = same("b");
    let created = only.ledger.create(&second, &other, Naming::Take).await.unwrap();
    assert_eq!((created.state.name(), created.job), ("active", job.id));
    assert_eq!(only.job_state(other.id), None);

    std::fs::remove_dir_all(folder.path().join("repos")).unwrap();
    let (third, own) = same("c");
    let created = only.ledger.create(&third, &own, Naming::Take).await.unwrap();
    assert_eq!((created.state.name(), created.job), ("pending", own.id));
    assert_eq!(only.job_state(own.id), Some("queued"));
}

#[tokio::test]
async fn a_failure_is_not_shared_afterwards() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (first, job) = same("a");
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    let failure = Failure::new(FailureKind::ImageNotFound, "no such image");
    let failed = JobEvent::Failed { attempt: attempt(), worker: "w1".parse().unwrap(), failure };
    only.ledger.move_job(job.id, failed).await.unwrap();
    let (second, own) = same("b");
    let created = only.ledger.create(&second, &own, Naming::Take).await.unwrap();
    assert_eq!((created.state.name(), created.job), ("pending", own.id));
}

#[tokio::test]
async fn other_organizations_have_jobs_of_their_own() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (mine, job) = same("a");
    let (theirs, other) = same("a");
    let organization = OrganizationId::from_uuid(Uuid::from_u128(2));
    let theirs = SnapshotRecord { organization, ..theirs };
    let identity =
        WorkIdentity::of(organization, &theirs.region, theirs.class, &theirs.source, &[]);
    let other = JobRecord { organization, identity, ..other };
    only.ledger.create(&mine, &job, Naming::Take).await.unwrap();
    let created = only.ledger.create(&theirs, &other, Naming::Take).await.unwrap();
    assert_eq!(created.job, other.id);
}

#[tokio::test]
async fn only_the_last_sharer_cancels_even_if_its_scheduler_has_not_heard_of_the_others() {
    let (_server, bus) = start().await;
    let (a, late) = (replica(&bus).await, replica(&bus).await);
    let (first, job) = same("a");
    a.ledger.create(&first, &job, Naming::Take).await.unwrap();
    let is_known = || late.state(first.id).is_some() && late.job_state(job.id).is_some();
    late.sees("it is known", is_known).await;
    late.watch.abort();
    let (second, other) = same("b");
    a.ledger.create(&second, &other, Naming::Take).await.unwrap();
    // This one believes that nobody else stands on the job.
    late.ledger.remove(first.id).await.unwrap();
    assert_eq!(late.job_state(job.id), Some("queued"));
    late.ledger.remove(second.id).await.unwrap();
    assert_eq!(late.job_state(job.id), Some("cancelled"));
    // From then on nobody joins it.
    let (third, own) = same("c");
    let created = late.ledger.create(&third, &own, Naming::Take).await.unwrap();
    assert_eq!(created.job, own.id);
}

#[tokio::test]
async fn who_joins_while_the_last_one_leaves_gets_an_image_or_a_job() {
    let (_server, bus) = start().await;
    let (_folder, images, _) = store().await;
    let (a, b) = (replica_with(&bus, images.clone()).await, replica_with(&bus, images).await);
    for n in 0..10 {
        let (first, job) = same(&format!("first-{n}"));
        let first = a.ledger.create(&first, &job, Naming::Take).await.unwrap();
        let (second, own) = same(&format!("second-{n}"));
        let (removed, created) =
            tokio::join!(a.ledger.remove(first.id), b.ledger.create(&second, &own, Naming::Take));
        removed.unwrap();
        let created = created.unwrap();
        let entry = bus.bucket(&BucketName::Records).get(&keys::job(&created.job)).await.unwrap();
        let job = entry.unwrap().json::<JobRecord>().unwrap();
        assert_ne!(job.state, JobState::Cancelled, "it joined a job that was given up");
        // Who removes the last one knows that the other one goes, too. (Otherwise
        // it is the reconciler who cancels the job.)
        b.sees("both know", || b.state(first.id) == Some("removing")).await;
        b.ledger.remove(created.id).await.unwrap();
        a.sees("it is known to be cancelled", || a.job_state(created.job) == Some("cancelled"))
            .await;
    }
}

#[tokio::test]
async fn who_leaves_first_leaves_the_image_to_the_others() {
    let (_server, bus) = start().await;
    let (_folder, images, published) = store().await;
    let only = replica_with(&bus, images).await;
    let (first, job) = same("a");
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    only.ledger.move_job(job.id, published.clone()).await.unwrap();
    let (second, other) = same("b");
    let second = only.ledger.create(&second, &other, Naming::Take).await.unwrap();
    assert!(only.ledger.leave(&first).await.unwrap());
    // A removal that broke off and comes again still knows of the other.
    assert!(only.ledger.leave(&first).await.unwrap());
    assert!(!only.ledger.leave(&second).await.unwrap());
    let records = bus.bucket(&BucketName::Records);
    assert_eq!(records.get(&work_key(&job)).await.unwrap(), None);
}

#[tokio::test]
async fn a_sharer_whose_job_was_never_stored_gets_it() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    // Somebody joined work for whose job its process did not live long enough.
    let (first, job) = same("a");
    let work = WorkRecord::new(job.id, first.id);
    only.ledger.records.create(&work_key(&job), &work, None).await.unwrap();
    let (second, other) = same("b");
    let created = only.ledger.create(&second, &other, Naming::Take).await.unwrap();
    assert_eq!((created.state.name(), created.job), ("pending", job.id));
    only.repair().await;
    assert_eq!(only.job_state(job.id), Some("queued"));
    only.ledger.move_job(job.id, published()).await.unwrap();
    assert_eq!(only.state(second.id), Some("active"));
}

#[tokio::test]
async fn whoever_ends_a_job_tells_a_sharer_of_whom_it_has_not_heard() {
    let (_server, bus) = start().await;
    let (a, late) = (replica(&bus).await, replica(&bus).await);
    let (first, job) = same("a");
    a.ledger.create(&first, &job, Naming::Take).await.unwrap();
    let is_known = || late.state(first.id).is_some() && late.job_state(job.id).is_some();
    late.sees("it is known", is_known).await;
    late.watch.abort();
    let (second, other) = same("b");
    a.ledger.create(&second, &other, Naming::Take).await.unwrap();
    late.ledger.move_job(job.id, published()).await.unwrap();
    late.ledger.tell_all(job.id).await.unwrap();
    let key = keys::snapshot(&second.organization, &second.id);
    let stored = bus.bucket(&BucketName::Records).get(&key).await.unwrap().unwrap();
    assert_eq!(stored.json::<SnapshotRecord>().unwrap().state.name(), "active");
}

#[tokio::test]
async fn a_redriven_job_lives_for_all_its_sharers_and_is_joined_again() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (first, job) = same("a");
    let (second, other) = same("b");
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    only.ledger.create(&second, &other, Naming::Take).await.unwrap();
    let mut number = 0;
    while only.job_state(job.id) != Some("dead") {
        number += 1;
        let attempt = Attempt { number: AttemptNumber::new(number), ..attempt() };
        let failure = Failure::new(FailureKind::StoreUnavailable, "gone");
        let failed = JobEvent::Failed { attempt, worker: "w1".parse().unwrap(), failure };
        assert!(matches!(only.ledger.move_job(job.id, failed).await, Ok(Moved::Applied)));
    }
    assert_eq!([only.state(first.id), only.state(second.id)], [Some("error"); 2]);
    only.ledger.move_job(job.id, JobEvent::LogArchived).await.unwrap();
    only.ledger.move_job(job.id, JobEvent::Redrive).await.unwrap();
    assert_eq!([only.state(first.id), only.state(second.id)], [Some("pending"); 2]);
    let (third, own) = same("c");
    let third = only.ledger.create(&third, &own, Naming::Take).await.unwrap();
    assert_eq!((third.job, third.state.name()), (job.id, "pending"));
    let attempt = Attempt { number: AttemptNumber::new(number + 1), ..attempt() };
    let JobEvent::Published { worker, image, .. } = published() else { panic!("it is published") };
    let published = JobEvent::Published { attempt, worker, image };
    assert!(matches!(only.ledger.move_job(job.id, published).await, Ok(Moved::Applied)));
    assert_eq!(
        [only.state(first.id), only.state(second.id), only.state(third.id)],
        [Some("active"); 3]
    );
}

#[tokio::test]
async fn who_has_its_image_made_again_leaves_the_job_of_the_past() {
    let (_server, bus) = start().await;
    let only = replica(&bus).await;
    let (first, job) = same("a");
    only.ledger.create(&first, &job, Naming::Take).await.unwrap();
    only.ledger.move_job(job.id, published()).await.unwrap();
    only.ledger.deactivate(first.id, |_| true).await.unwrap();
    let rests = only.view.records().snapshot(&first.id).unwrap().value.clone();
    only.ledger.remake(&rests).await.unwrap();
    assert_eq!(only.state(first.id), Some("pending"));
    let records = bus.bucket(&BucketName::Records);
    assert_eq!(records.get(&work_key(&job)).await.unwrap(), None);
    let (second, own) = same("b");
    assert_eq!(only.ledger.create(&second, &own, Naming::Take).await.unwrap().job, own.id);
}
