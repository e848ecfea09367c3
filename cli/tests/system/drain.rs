//! Workers that are to take no new jobs: by a signal, and by an order from afar.

use std::process::{Command, Output};
use std::time::Duration;

use slipway_api::own::Worker;

use crate::cluster::{
    Cluster, LIMIT, Plan, assert_gapless, client, dockerfile, eventually, line, ticking,
};

#[tokio::test]
async fn a_worker_that_is_told_to_stop_finishes_its_job_and_takes_no_other() {
    let mut cluster = Cluster::with(Plan { drain_grace: "5min", ..Plan::default() }).await;
    let first = cluster.submit("finished", ticking(20)).await;
    cluster.log_until(&first, "tick 2").await;
    cluster.worker("us-1").terminate();
    let output = cluster.worker("us-1").output();
    let said = output.line(|line| line.contains("draining: 1 job runs, up to 5m")).await.unwrap();
    assert!(said.contains("again to stop at once"), "{said}");
    eventually("its sign of life says so", async || {
        let workers = cluster.client.workers().await.unwrap();
        (workers[0].draining && !workers[0].drained).then_some(())
    })
    .await;
    // It has a second slot, and does not use it.
    let second = cluster.submit("later", dockerfile("RUN true")).await;
    let ended = cluster.ended(&first.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 1);
    let log = cluster.log(&ended).await;
    assert_gapless(&log);
    assert!(log.iter().any(|entry| line(entry).is_some_and(|line| line.ends_with("tick 20"))));
    let status = tokio::time::timeout(LIMIT, cluster.worker("us-1").wait()).await.unwrap();
    assert!(status.success());
    let job = cluster.job(&second).await;
    assert_eq!((job.state.as_str(), job.attempts.len()), ("queued", 0), "{job:?}");
    eventually("its sign of life is taken back", async || {
        cluster.client.workers().await.unwrap().is_empty().then_some(())
    })
    .await;

    cluster.start_worker("us-1").await;
    let ended = cluster.ended(&second.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
}

#[tokio::test]
async fn a_second_signal_hands_back_at_once() {
    let plan =
        Plan { workers: vec![("us", 2)], lease: "60s", drain_grace: "1h", ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let snapshot = cluster.submit("handed-back", ticking(15)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    let worker = cluster.worker(&first);
    worker.terminate();
    worker.output().line(|line| line.contains("draining: 1 job runs")).await.unwrap();
    worker.interrupt();
    let status = tokio::time::timeout(Duration::from_secs(30), worker.wait()).await;
    assert!(status.unwrap().success());
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let attempts = cluster.job(&ended).await.attempts;
    assert_eq!(attempts.len(), 2);
    assert!(attempts[0].failure.as_ref().unwrap().message.contains("shutting down"));
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_handed_back() {
    let plan =
        Plan { workers: vec![("us", 2)], lease: "60s", drain_grace: "2s", ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let snapshot = cluster.submit("too-slow", ticking(40)).await;
    cluster.log_until(&snapshot, "tick 2").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    let worker = cluster.worker(&first);
    worker.terminate();
    worker.output().line(|line| line.contains("the time to finish is over")).await.unwrap();
    assert!(tokio::time::timeout(LIMIT, worker.wait()).await.unwrap().success());
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 2);
}

/// Builds that take a while and need nothing.
const SLOW: &str = "duration = \"2s\"";

#[tokio::test]
async fn an_order_to_drain_holds_until_it_is_undone() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 2, SLOW).await;
    let first = cluster.submit("running", dockerfile("RUN true")).await;
    eventually("it runs", async || (cluster.job(&first).await.state == "running").then_some(()))
        .await;

    let told = slipway(&cluster, &["worker", "drain", "us-1"]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert_eq!(text(&told.stdout), "us-1 is draining (1 running)\n");
    let second = cluster.submit("elsewhere", dockerfile("RUN true")).await;
    assert_eq!(cluster.job(&second).await.waiting.unwrap(), "no worker of class cpu in us");
    assert_eq!(cluster.ended(&first.id).await.state, "active");
    assert_eq!(by(&cluster, &first).await, ["us-1"]);
    eventually("it runs nothing", async || worker(&cluster).await.drained.then_some(())).await;
    assert_eq!(cluster.job(&second).await.state, "queued");
    let listed = slipway(&cluster, &["worker", "list"]);
    assert!(text(&listed.stdout).contains("  drained  "), "{}", text(&listed.stdout));

    // Others do the work, also when it was started anew.
    cluster.kill_worker("us-1").await;
    cluster.start_worker("us-1").await;
    cluster.add_simulated("us", 2, 1, SLOW).await;
    assert_eq!(cluster.ended(&second.id).await.state, "active");
    assert_eq!(by(&cluster, &second).await, ["us-2"]);
    let before = worker(&cluster).await;
    assert!(before.draining && before.drained, "{before:?}");

    cluster.kill_worker("us-2").await;
    let undone = slipway(&cluster, &["worker", "drain", "us-1", "--undo", "--region", "us"]);
    assert_eq!(text(&undone.stdout), "us-1 takes jobs again\n", "{}", text(&undone.stderr));
    assert!(!worker(&cluster).await.draining);
    let third = cluster.submit("again", dockerfile("RUN true")).await;
    assert_eq!(cluster.ended(&third.id).await.state, "active");
    assert_eq!(by(&cluster, &third).await, ["us-1"]);
    // It is no mistake to undo what is undone.
    assert!(slipway(&cluster, &["worker", "drain", "us-1", "--undo"]).status.success());
}

#[tokio::test]
async fn only_an_operator_drains_and_only_workers_that_there_are() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 1, SLOW).await;
    for args in [&["nobody"][..], &["us-1", "--region", "eu"], &["nobody", "--undo"]] {
        let refused = slipway(&cluster, &[&["worker", "drain"], args].concat());
        assert_eq!(refused.status.code(), Some(1));
        let said = text(&refused.stderr);
        assert!(said.contains(&format!("there is no live worker `{}`", args[0])), "{said}");
    }
    let (_, foreigner, _) = cluster.foreign().await;
    assert_eq!(foreigner.drain_worker("us-1", None).await.unwrap_err().status(), Some(403));
    assert_eq!(foreigner.undrain_worker("us-1", None).await.unwrap_err().status(), Some(403));
    assert!(!worker(&cluster).await.draining);
    // Every scheduler knows the order, and a worker that is gone can be given free.
    let (_second, api) = cluster.second_scheduler().await;
    let other = client(api, &cluster.key);
    assert!(cluster.client.drain_worker("us-1", None).await.unwrap().drained);
    eventually("the other scheduler knows", async || {
        other.workers().await.unwrap()[0].draining.then_some(())
    })
    .await;
    cluster.worker("us-1").terminate();
    eventually("it is gone", async || {
        cluster.client.workers().await.unwrap().is_empty().then_some(())
    })
    .await;
    assert_eq!(cluster.client.drain_worker("us-1", None).await.unwrap_err().status(), Some(404));
    other.undrain_worker("us-1", None).await.unwrap();
    cluster.start_worker("us-1").await;
    assert!(!worker(&cluster).await.draining);
}

async fn worker(cluster: &Cluster) -> Worker {
    let workers = cluster.client.workers().await.unwrap();
    workers.into_iter().find(|worker| worker.id == "us-1").unwrap()
}

/// Who made the attempts of a snapshot's job.
async fn by(cluster: &Cluster, snapshot: &slipway_api::types::Snapshot) -> Vec<String> {
    let attempts = cluster.job(snapshot).await.attempts;
    attempts.into_iter().filter_map(|attempt| attempt.worker).collect()
}

fn slipway(cluster: &Cluster, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(args).env("SLIPWAY_API_KEY", &cluster.key);
    command.env("SLIPWAY_API_URL", format!("http://{}", cluster.api)).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
