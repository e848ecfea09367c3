//! One organization floods a region; another is served all the same.

use slipway_api::Client;
use slipway_api::own::Job;
use slipway_api::types::{CreateSnapshot, Snapshot};

use crate::cluster::{Cluster, Plan, dockerfile, eventually};

const FLOOD: usize = 120;
const SLOTS: u32 = 2;

async fn submit(client: &Client, name: String) -> Snapshot {
    let wanted = CreateSnapshot {
        name,
        region_id: Some("us".into()),
        build_info: Some(dockerfile("RUN true")),
        ..CreateSnapshot::default()
    };
    client.create_snapshot(&wanted).await.unwrap()
}

async fn started(client: &Client, snapshot: &Snapshot) -> jiff::Timestamp {
    eventually("the job started", async || {
        let job = client.job(snapshot.job_id.as_ref().unwrap()).await.unwrap();
        job.attempts.first().and_then(|attempt| attempt.started_at)
    })
    .await
}

/// Every job of the flood, the last submitted first.
async fn flood_jobs(client: &Client) -> Vec<Job> {
    let query = slipway_api::own::ListJobs { limit: Some(1000), ..Default::default() };
    client.jobs(&query).await.unwrap().items
}

#[tokio::test]
async fn whoever_comes_behind_a_flood_is_served_before_it() {
    let tables = "[limits]\nsnapshots = 1000\n";
    let plan = Plan { workers: vec![], tables, ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    let mut flood = vec![];
    for n in 0..FLOOD {
        flood.push(submit(&cluster.client, format!("flood-{n}")).await);
    }
    let (_, other, _) = cluster.foreign().await;
    cluster.add_simulated("us", 1, SLOTS, "duration = \"300ms\"").await;
    // Some of it runs: there is an estimate for the rest.
    let last = flood.last().unwrap().job_id.clone().unwrap();
    let job = eventually("the last job knows its place", async || {
        let job = cluster.client.job(&last).await.unwrap();
        job.queue_seconds.is_some().then_some(job)
    })
    .await;
    let place = job.queue_position.unwrap();
    assert!(place > FLOOD as u64 / 2 && place <= FLOOD as u64, "{job:?}");
    let waiting = job.waiting.unwrap();
    assert!(waiting.contains("behind") && waiting.contains("about"), "{waiting}");

    // What waits in the queue itself is little, whatever waits in all.
    let bus = cluster.bus().await;
    let queued = bus.jobs().pending(&"us".parse().unwrap(), slipway_domain::Class::Cpu).await;
    let queued = queued.unwrap().waiting;
    assert!(queued <= 20, "{queued}");

    let ours = submit(&other, "ours".into()).await;
    let at = started(&other, &ours).await;
    let jobs = flood_jobs(&cluster.client).await;
    let between = jobs.iter().filter_map(|job| job.attempts.first()?.started_at);
    let before = between.filter(|time| *time > ours.created_at && *time < at).count();
    // The slots, what lies ready for them, and one that shares its turn.
    assert!(before <= 3 * SLOTS as usize + 4, "{before} jobs of the flood came before");
    let waits = jobs.iter().filter(|job| job.state == "queued").count();
    assert!(waits > FLOOD / 3, "the flood was over before it could be in the way");
}
