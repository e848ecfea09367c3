//! Messages in a region's queue that its workers cannot read.

use std::future::pending;

use serde_json::{Value, json};
use slipway_api::own::ListJobs;
use slipway_api::types::Snapshot;
use slipway_bus::Bus;
use slipway_domain::failure::FailureKind;
use slipway_domain::spec::JobKind;
use slipway_domain::{Class, JobId, Region};

use crate::cluster::{Cluster, LIMIT, Plan, assert_gapless, dockerfile, eventually};

fn us() -> Region {
    "us".parse().unwrap()
}

async fn no_workers(attempts: u32) -> (Cluster, Bus) {
    let cluster = Cluster::with(Plan { workers: vec![], attempts, ..Plan::default() }).await;
    let bus = cluster.bus().await;
    (cluster, bus)
}

async fn put(bus: &Bus, job: JobId, message: &Value) {
    bus.jobs().publish_again(&us(), Class::Cpu, JobKind::Build, job, message).await.unwrap();
}

/// A job that waits, with nonsense in place of its message.
async fn poisoned(cluster: &Cluster, bus: &Bus) -> Snapshot {
    let snapshot = cluster.submit("poisoned", dockerfile("RUN true")).await;
    let job: JobId = snapshot.job_id.as_ref().unwrap().parse().unwrap();
    eventually("its message is in the queue", async || {
        (bus.jobs().purge(&us(), job).await.unwrap() == 1).then_some(())
    })
    .await;
    put(bus, job, &json!({"version": 1, "job": "nonsense"})).await;
    snapshot
}

#[tokio::test]
async fn a_newer_job_goes_to_a_worker_that_knows_it() {
    let (mut cluster, bus) = no_workers(5).await;
    cluster.add_simulated("us", 1, 1, "duration = \"10ms\"").await;
    let job = JobId::from_uuid(uuid::Uuid::now_v7());
    let newer = json!({"version": 2, "job": {"id": job.to_string()}, "work": []});
    put(&bus, job, &newer).await;
    cluster.worker("us-1").output().line(|line| line.contains("left to others")).await.unwrap();
    // It is there for others, now and later.
    let puller = bus.jobs().puller(&us(), Class::Cpu);
    let taken = tokio::time::timeout(LIMIT, puller.next::<Value>(pending())).await.unwrap();
    let taken = taken.unwrap();
    assert_eq!((taken.job, taken.payload.as_ref().unwrap()), (job, &newer));
    assert!(taken.delivered > 1, "{}", taken.delivered);
    taken.ack().await.unwrap();
    // The old worker goes on with what it knows.
    let (snapshot, _) = cluster.build("known", dockerfile("RUN true")).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(cluster.job(&snapshot).await.attempts.len(), 1);
}

#[tokio::test]
async fn a_job_whose_message_cannot_be_read_is_sent_anew_and_says_so() {
    let (mut cluster, bus) = no_workers(5).await;
    let snapshot = poisoned(&cluster, &bus).await;
    cluster.add_simulated("us", 1, 1, "duration = \"10ms\"").await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let job = cluster.job(&ended).await;
    assert_eq!(job.attempts.len(), 2, "{job:?}");
    let failure = job.attempts[0].failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::MessageUnreadable);
    assert!(failure.message.contains("worker `us-1`"), "{}", failure.message);
    assert_eq!(job.attempts[0].worker.as_deref(), Some("us-1"));
    assert_gapless(&cluster.log(&ended).await);
}

#[tokio::test]
async fn a_job_whose_message_can_never_be_read_is_dead_and_listed() {
    let (mut cluster, bus) = no_workers(1).await;
    let snapshot = poisoned(&cluster, &bus).await;
    cluster.add_simulated("us", 1, 1, "duration = \"10ms\"").await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "error");
    let dead = cluster.client.dead_jobs(&ListJobs::default()).await.unwrap().items;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].failure.as_ref().unwrap().kind, FailureKind::MessageUnreadable);
    let reason = ended.error_reason.unwrap();
    assert!(reason.contains("cannot read the job's message"), "{reason}");
}

#[tokio::test]
async fn nonsense_about_a_job_that_runs_does_it_no_harm() {
    let (mut cluster, bus) = no_workers(1).await;
    cluster.add_simulated("us", 1, 2, "duration = \"4s\"").await;
    let snapshot = cluster.submit("calm", dockerfile("RUN true")).await;
    let job = eventually("it runs", async || {
        let job = cluster.job(&snapshot).await;
        (job.state == "running").then_some(job)
    })
    .await;
    put(&bus, job.id.parse().unwrap(), &json!("nonsense")).await;
    let heard = |line: &str| line.contains("no job lacks its message");
    cluster.scheduler.output().line(heard).await.unwrap();
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 1);
}
