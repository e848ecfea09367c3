//! Jobs that are cancelled, that die, and what an operator does then.

use std::path::PathBuf;

use slipway_api::own::{CancelRequest, Job, ListJobs};
use slipway_api::types::Snapshot;
use slipway_bus::topology;

use crate::cluster::{Cluster, LIMIT, Plan, assert_gapless, dockerfile, eventually, line, ticking};

#[tokio::test]
async fn a_cancelled_job_stops_its_process_and_leaves_an_error() {
    let cluster = Cluster::start().await;
    let (snapshot, marker) = endless(&cluster, "unwanted").await;
    let id = snapshot.job_id.clone().unwrap();
    let job = cluster.client.cancel_job(&id).await.unwrap();
    assert_eq!(job.state, "cancelled");
    gone(&marker).await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "error");
    assert_gapless(&cluster.log(&ended).await);
    // Again is no mistake; another snapshot is not disturbed.
    assert_eq!(cluster.client.cancel_job(&id).await.unwrap().state, "cancelled");
    let (other, _) = cluster.build("wanted", dockerfile("RUN true")).await;
    assert_eq!(other.state, "active", "{:?}", other.error_reason);
    let refused = cluster.client.cancel_job(other.job_id.as_ref().unwrap()).await.unwrap_err();
    assert_eq!(refused.status(), Some(409), "{refused}");

    let listed = cluster.client.jobs(&ListJobs::default()).await.unwrap();
    let states: Vec<_> = listed.items.iter().map(|job| job.state.as_str()).collect();
    assert_eq!((states, listed.next), (vec!["succeeded", "cancelled"], None));
    let page = ListJobs { limit: Some(1), ..ListJobs::default() };
    let first = cluster.client.jobs(&page).await.unwrap();
    assert_eq!(first.items[0].state, "succeeded");
    let rest = ListJobs { after: first.next, state: Some("cancelled".into()), ..page };
    assert_eq!(cluster.client.jobs(&rest).await.unwrap().items[0].id, id);
    let (_, foreigner, _) = cluster.foreign().await;
    assert_eq!(foreigner.jobs(&ListJobs::default()).await.unwrap().items, vec![]);
    assert_eq!(foreigner.cancel_job(&id).await.unwrap_err().status(), Some(404));
}

#[tokio::test]
async fn nats_clients_cancel_jobs_too() {
    let cluster = Cluster::start().await;
    let (snapshot, marker) = endless(&cluster, "unwanted").await;
    let job_id = snapshot.job_id.clone().unwrap();
    let bus = cluster.bus().await;
    let request = CancelRequest { api_key: cluster.key.clone(), job_id: job_id.clone() };
    let job: Job = bus.call(topology::CANCEL, &request, LIMIT).await.unwrap();
    assert_eq!((job.id, job.state.as_str()), (job_id, "cancelled"));
    gone(&marker).await;
    let wrong = CancelRequest { api_key: "dtn_wrong".into(), ..request };
    let refused = bus.call::<_, Job>(topology::CANCEL, &wrong, LIMIT).await.unwrap_err();
    assert!(refused.to_string().contains("unauthorized"), "{refused}");
}

#[tokio::test]
async fn a_dead_job_is_explained_and_redriven() {
    let plan = Plan { lease: "2s", attempts: 1, ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    let snapshot = cluster.submit("second-life", ticking(15)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    cluster.kill_worker("us-1").await;
    let dead = cluster.ended(&snapshot.id).await;
    assert_eq!(dead.state, "error");
    let first_log = cluster.log(&dead).await;
    assert_gapless(&first_log);

    let listed = cluster.client.dead_jobs(&ListJobs::default()).await.unwrap().items;
    assert_eq!(listed.len(), 1);
    let id = listed[0].id.clone();
    assert_eq!((listed[0].state.as_str(), listed[0].attempts.len()), ("dead", 1));
    let attempt = &listed[0].attempts[0];
    assert_eq!(attempt.worker.as_deref(), Some("us-1"));
    assert!(attempt.started_at.is_some() && attempt.ended_at.is_some());
    assert!(attempt.failure.as_ref().unwrap().message.contains("us-1"));
    assert!(listed[0].failure.as_ref().unwrap().message.contains("gave up"));

    // It is off the list, and back on it once it is tried again.
    cluster.client.drop_job(&id).await.unwrap();
    assert_eq!(cluster.client.dead_jobs(&ListJobs::default()).await.unwrap().items, vec![]);
    assert_eq!(cluster.client.snapshot(&dead.id).await.unwrap().state, "error");

    let redriven = eventually("the log is stored and the job redriven", async || {
        match cluster.client.redrive_job(&id).await {
            Ok(job) => Some(job),
            Err(error) => {
                assert_eq!(error.status(), Some(503), "{error}");
                None
            }
        }
    })
    .await;
    assert_eq!((redriven.state.as_str(), redriven.redrives), ("queued", 1));
    eventually("the snapshot is pending", async || {
        let state = cluster.client.snapshot(&dead.id).await.unwrap().state;
        (state == "pending").then_some(())
    })
    .await;
    let refused = cluster.client.redrive_job(&id).await.unwrap_err();
    assert_eq!(refused.status(), Some(409), "{refused}");

    cluster.start_worker("us-1").await;
    // Followed live, and read once more when it is archived.
    let log = cluster.log(&dead).await;
    let ended = cluster.ended(&dead.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 2);
    assert_gapless(&log);
    let earlier = &first_log[..first_log.len() - 1];
    assert_eq!(&log[..earlier.len()], earlier, "its first life is still there");
    assert!(log.iter().any(|entry| line(entry).is_some_and(|line| line.ends_with("tick 15"))));
    assert_eq!(cluster.log(&ended).await, log);
    cluster.client.delete_snapshot(&ended.id).await.unwrap();
    eventually("the snapshot is gone with its job", async || {
        let error = cluster.client.job(&id).await.err()?;
        (error.status() == Some(404)).then_some(())
    })
    .await;
}

/// A build whose RUN step ends only when it is stopped, and which runs now.
async fn endless(cluster: &Cluster, name: &str) -> (Snapshot, String) {
    let marker = format!("slipway-test-{}", uuid::Uuid::new_v4());
    let step = format!("RUN while true; do : {marker}; sleep 0.1; done");
    let snapshot = cluster.submit(name, dockerfile(&step)).await;
    eventually("the process runs", async || runs(&marker).then_some(())).await;
    (snapshot, marker)
}

async fn gone(marker: &str) {
    eventually("the process is gone", async || (!runs(marker)).then_some(())).await;
}

/// Whether a process has the marker in its command line.
fn runs(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines: Vec<PathBuf> = processes.map(|entry| entry.path().join("cmdline")).collect();
    lines.iter().any(|file| {
        let text = std::fs::read(file).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(marker)
    })
}
