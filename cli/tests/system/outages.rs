//! NATS that is away: for all, for one worker alone, and before anything starts.

use std::time::Duration;

use reqwest::Method;
use slipway_bus::topology::{BucketName, keys};
use slipway_testkit::{Child, TcpProxy};

use crate::cluster::{Cluster, LIMIT, Plan, assert_gapless, eventually, slipway, ticking};

#[tokio::test]
async fn a_build_outlives_an_outage_that_is_longer_than_its_lease() {
    let plan = Plan { workers: vec![("us", 2)], lease: "2s", ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    let snapshot = cluster.submit("steadfast", ticking(100)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    let worker = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    cluster.nats.kill9().await;
    // Three times as long as a lease lasts.
    tokio::time::sleep(Duration::from_secs(6)).await;
    cluster.nats.restart().await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let attempts = cluster.job(&ended).await.attempts;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_eq!(attempts[0].worker.as_deref(), Some(worker.as_str()));
    assert_gapless(&cluster.log(&ended).await);
}

#[tokio::test]
async fn a_worker_that_comes_back_later_than_nats_keeps_its_job() {
    let plan = Plan { lease: "2s", outage_grace: "30s", ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    let proxy = TcpProxy::start(cluster.nats.address()).await;
    cluster.reroute("us-1", proxy.address()).await;
    cluster.add("us", 2).await;
    // The other one is there for whatever is lost.
    cluster.client.drain_worker("us-2", None).await.unwrap();
    let snapshot = cluster.submit("latecomer", ticking(100)).await;
    cluster.client.undrain_worker("us-2", None).await.unwrap();
    cluster.log_until(&snapshot, "tick 2").await;
    proxy.cut();
    cluster.nats.kill9().await;
    cluster.nats.restart().await;
    let leases = cluster.bus().await.bucket(&BucketName::Leases("us".parse().unwrap()));
    let key = keys::job(&snapshot.job_id.as_ref().unwrap().parse().unwrap());
    eventually("its lease has ended", async || {
        leases.get(&key).await.unwrap().is_none().then_some(())
    })
    .await;
    proxy.resume();
    let output = cluster.worker("us-1").output();
    output.line(|line| line.contains("the lease had run out and is taken again")).await.unwrap();
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let attempts = cluster.job(&ended).await.attempts;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    assert_gapless(&cluster.log(&ended).await);
}

#[tokio::test]
async fn a_worker_that_is_cut_off_alone_gives_way() {
    let mut cluster = Cluster::with(Plan { lease: "2s", ..Plan::default() }).await;
    let proxy = TcpProxy::start(cluster.nats.address()).await;
    cluster.reroute("us-1", proxy.address()).await;
    let snapshot = cluster.submit("elsewhere", ticking(60)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    cluster.add("us", 2).await;
    proxy.cut();
    eventually("it runs on the other one", async || {
        let attempts = cluster.job(&snapshot).await.attempts;
        (attempts.len() == 2 && attempts[1].worker.as_deref() == Some("us-2")).then_some(())
    })
    .await;
    let output = cluster.worker("us-1").output();
    assert!(!output.lines().iter().any(|line| line.contains("its lease is lost")));
    proxy.resume();
    output.line(|line| line.contains("its lease is lost")).await.unwrap();
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 2);
    assert_gapless(&cluster.log(&ended).await);
}

#[tokio::test]
async fn while_nats_is_away_every_write_is_refused_at_once_and_reads_go_on() {
    let cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    let snapshot = cluster.submit("known", ticking(1)).await;
    let document: serde_json::Value =
        reqwest::get(format!("http://{}/api/openapi.json", cluster.api))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
    cluster.nats.kill9().await;
    eventually("the scheduler has noticed", async || {
        let health = reqwest::get(format!("http://{}/api/health", cluster.api)).await.unwrap();
        (health.status() == 503).then_some(())
    })
    .await;
    let mut refused = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            if method.is_safe() || operation["tags"][0] == "not offered" {
                continue;
            }
            let filled = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
            let url = format!("http://{}{}", cluster.api, filled.collect::<Vec<_>>().join("/"));
            let request = reqwest::Client::new().request(method.clone(), url);
            let request = request.bearer_auth(&cluster.key).json(&serde_json::json!({}));
            // Far sooner than NATS would be given up.
            let response = request.timeout(Duration::from_secs(4)).send().await.unwrap();
            assert_eq!(response.status(), 503, "{method} {path}");
            assert!(response.headers().contains_key("retry-after"), "{method} {path}");
            let body: serde_json::Value = response.json().await.unwrap();
            assert_eq!(body["code"], "unavailable", "{method} {path}");
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused}");

    assert_eq!(cluster.client.snapshot("known").await.unwrap().id, snapshot.id);
    let listed = cluster.client.list_snapshots(&Default::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    assert_eq!(cluster.job(&snapshot).await.state, "queued");
    assert_eq!(cluster.client.jobs(&Default::default()).await.unwrap().items.len(), 1);
    assert_eq!(cluster.client.regions().await.unwrap().len(), 3);
    let missing = cluster.client.snapshot("unknown").await.unwrap_err();
    assert_eq!(missing.status(), Some(404), "{missing}");
}

#[tokio::test]
async fn what_is_started_before_nats_waits_for_it() {
    let mut cluster = Cluster::start().await;
    cluster.kill_worker("us-1").await;
    cluster.scheduler.kill9().await;
    cluster.nats.kill9().await;
    let file = |name: &str| cluster.folder().join(name).display().to_string();
    let scheduler = slipway(&["scheduler", "--config", &file("scheduler.toml")]);
    let worker = slipway(&["worker", "run", "--config", &file("worker-us-1.toml")]);
    let unwanted = slipway(&["worker", "run", "--config", &file("worker-us-1.toml")]);
    let waits = async |child: &Child| {
        child.output().line(|line| line.contains("waiting for NATS")).await.unwrap();
    };
    for child in [&scheduler, &worker, &unwanted] {
        waits(child).await;
    }
    // One that waits can be told to stop.
    unwanted.terminate();
    let status = tokio::time::timeout(LIMIT, unwanted.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    cluster.nats.restart().await;
    scheduler.output().line(|line| line.contains("the API serves")).await.unwrap();
    worker.output().line(|line| line.contains("the worker serves")).await.unwrap();
    let (snapshot, _) = cluster.build("late", ticking(1)).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
}
