//! Processes that die, stop and come back, in the middle of a build.

use std::time::Duration;

use slipway_api::events::JobEvent;
use slipway_bus::topology::{BucketName, keys};
use slipway_testkit::TcpProxy;

use crate::cluster::{
    Cluster, LIMIT, Plan, assert_gapless, client, dockerfile, eventually, line, ticking,
};

/// Two workers in one region and a short lease.
fn two_workers() -> Plan {
    Plan { workers: vec![("us", 2)], lease: "2s", ..Plan::default() }
}

#[tokio::test]
async fn the_build_of_a_killed_worker_ends_once_on_another() {
    let mut cluster = Cluster::with(two_workers()).await;
    let snapshot = cluster.submit("survivor", ticking(25)).await;
    cluster.log_until(&snapshot, "tick 3").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    cluster.kill_worker(&first).await;

    let snapshot = cluster.ended(&snapshot.id).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let job = cluster.job(&snapshot).await;
    assert_eq!(job.attempts.len(), 2, "{job:?}");
    assert_ne!(job.attempts[1].worker.as_deref(), Some(first.as_str()));
    let why = &job.attempts[0].failure.as_ref().unwrap().message;
    assert!(why.contains(&first), "{why}");

    let log = cluster.log(&snapshot).await;
    assert_gapless(&log);
    assert_eq!(
        log.iter().filter(|entry| line(entry).is_some_and(|l| l.contains("tick 25"))).count(),
        1
    );
}

#[tokio::test]
async fn a_worker_that_was_paused_past_its_lease_publishes_nothing() {
    let cluster = Cluster::with(two_workers()).await;
    let snapshot = cluster.submit("paused", ticking(25)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    cluster.worker(&first).pause();
    let active = cluster.ended(&snapshot.id).await;
    assert_eq!(active.state, "active", "{:?}", active.error_reason);
    let log = cluster.log(&active).await;

    cluster.worker(&first).resume();
    let output = cluster.worker(&first).output();
    output.line(|line| line.contains("its lease is lost")).await.unwrap();
    // It is back at work, and what it did is nowhere to be seen.
    eventually("the worker is listed again", async || {
        let workers = cluster.client.workers().await.unwrap();
        workers.iter().find(|worker| worker.id == first && worker.running == 0).map(|_| ())
    })
    .await;
    let now = cluster.client.snapshot(&snapshot.id).await.unwrap();
    assert_eq!(
        (now.state, now.digest, now.updated_at),
        (active.state.clone(), active.digest.clone(), active.updated_at)
    );
    let job = cluster.job(&active).await;
    assert_eq!(job.attempts.len(), 2);
    assert_ne!(job.attempts[1].worker.as_deref(), Some(first.as_str()));
    assert_eq!(cluster.log(&active).await, log);
    assert_gapless(&log);
}

#[tokio::test]
async fn a_build_outlives_the_scheduler() {
    let mut cluster = Cluster::start().await;
    let snapshot = cluster.submit("headless", ticking(20)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    cluster.restart_scheduler().await;
    let snapshot = cluster.ended(&snapshot.id).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(cluster.job(&snapshot).await.attempts.len(), 1);
    assert_gapless(&cluster.log(&snapshot).await);
}

#[tokio::test]
async fn a_build_that_ends_while_no_scheduler_runs_counts() {
    let mut cluster = Cluster::with(Plan { lease: "2s", ..Plan::default() }).await;
    let snapshot = cluster.submit("unattended", ticking(10)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    cluster.scheduler.kill9().await;
    cluster.worker("us-1").output().line(|line| line.contains("attempt ended")).await.unwrap();
    // Its lease runs out before anybody has read that it ended.
    let leases = cluster.bus().await;
    let leases = leases.bucket(&BucketName::Leases("us".parse().unwrap()));
    let key = keys::job(&snapshot.job_id.as_ref().unwrap().parse().unwrap());
    eventually("the lease is gone", async || {
        leases.get(&key).await.unwrap().is_none().then_some(())
    })
    .await;
    cluster.restart_scheduler().await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 1);
    assert_gapless(&cluster.log(&ended).await);
}

#[tokio::test]
async fn two_schedulers_share_the_work_and_one_may_die() {
    let mut cluster = Cluster::start().await;
    let (second, api) = cluster.second_scheduler().await;
    let other = client(api, &cluster.key);
    let mut snapshots = vec![];
    for n in 0..4 {
        let build = ticking(10);
        let wanted = slipway_api::types::CreateSnapshot {
            name: format!("shared-{n}"),
            build_info: Some(build),
            ..Default::default()
        };
        let client = if n % 2 == 0 { &other } else { &cluster.client };
        snapshots.push(client.create_snapshot(&wanted).await.unwrap());
    }
    let taken = slipway_api::types::CreateSnapshot {
        name: "shared-0".into(),
        build_info: Some(ticking(1)),
        ..Default::default()
    };
    assert_eq!(cluster.client.create_snapshot(&taken).await.unwrap_err().status(), Some(409));
    cluster.log_until(&snapshots[0], "tick 2").await;
    cluster.scheduler.kill9().await;
    cluster.client = other;
    for snapshot in &snapshots {
        let ended = cluster.ended(&snapshot.id).await;
        assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
        assert_eq!(cluster.job(&ended).await.attempts.len(), 1);
        assert_gapless(&cluster.log(&ended).await);
    }
    drop(second);
}

#[tokio::test]
async fn what_was_accepted_survives_the_death_of_everything() {
    let mut cluster = Cluster::with(Plan { lease: "2s", ..Plan::default() }).await;
    let running = cluster.submit("running", ticking(10)).await;
    cluster.log_until(&running, "tick 2").await;
    let waiting = cluster.submit_in("eu", "waiting", dockerfile("RUN echo later")).await;
    cluster.kill_worker("us-1").await;
    cluster.nats.kill9().await;
    cluster.scheduler.kill9().await;

    cluster.nats.restart().await;
    cluster.restart_scheduler().await;
    cluster.start_worker("us-1").await;
    cluster.add("eu", 1).await;
    for snapshot in [running, waiting] {
        let ended = cluster.ended(&snapshot.id).await;
        assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
        assert_gapless(&cluster.log(&ended).await);
    }
}

#[tokio::test]
async fn nats_may_go_away_for_a_while() {
    let mut cluster = Cluster::start().await;
    let snapshot = cluster.submit("offline", ticking(20)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    cluster.nats.kill9().await;
    eventually("writes are refused with a time to come back", async || {
        let url = format!("http://{}/api/snapshots", cluster.api);
        let body = r#"{"name": "no", "buildInfo": {"dockerfileContent": "FROM a"}}"#;
        let request = reqwest::Client::new().post(url).bearer_auth(&cluster.key);
        let request = request.header("content-type", "application/json").body(body);
        let response = request.timeout(LIMIT).send().await.unwrap();
        (response.status() == 503 && response.headers().contains_key("retry-after")).then_some(())
    })
    .await;
    assert_eq!(cluster.client.snapshot("offline").await.unwrap().state, "building");
    cluster.nats.restart().await;
    let snapshot = cluster.ended(&snapshot.id).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(cluster.job(&snapshot).await.attempts.len(), 1);
    assert_gapless(&cluster.log(&snapshot).await);
}

#[tokio::test]
async fn a_reader_whose_connection_is_cut_misses_nothing() {
    let cluster = Cluster::start().await;
    let proxy = TcpProxy::start(cluster.api).await;
    let far = client(proxy.address(), &cluster.key);
    let snapshot = cluster.submit("cut", ticking(25)).await;
    let job = snapshot.job_id.clone().unwrap();
    let mut events = far.job_events(&job, slipway_domain::LogSeq::ZERO, true).unwrap();
    let mut log = vec![];
    let (mut cuts, mut reconnects) = (0, 0);
    let read = async {
        while let Some(event) = events.next().await {
            let entry = match event.unwrap() {
                JobEvent::Log(entry) => entry,
                JobEvent::Reconnecting { .. } => {
                    reconnects += 1;
                    continue;
                }
                JobEvent::Job(_) => continue,
            };
            if line(&entry)
                .is_some_and(|line| line.ends_with("tick 5") || line.ends_with("tick 15"))
            {
                proxy.cut_once();
                cuts += 1;
            }
            log.push(entry);
        }
    };
    tokio::time::timeout(LIMIT, read).await.unwrap();
    assert_eq!(cuts, 2, "the same entry never comes twice");
    assert!(reconnects >= 2, "it came back each time");
    assert_gapless(&log);
    assert_eq!(log, cluster.log(&snapshot).await);
}

#[tokio::test]
async fn a_worker_that_is_stopped_hands_its_job_back_at_once() {
    let cluster = Cluster::with(Plan { lease: "60s", ..two_workers() }).await;
    let snapshot = cluster.submit("handed-back", ticking(15)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    cluster.worker(&first).terminate();
    let status = tokio::time::timeout(Duration::from_secs(30), cluster.worker(&first).wait()).await;
    assert!(status.unwrap().success());
    // Far sooner than its lease of a minute would end.
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 2);
    assert_gapless(&cluster.log(&ended).await);
}
