//! A snapshot that is replaced under its name.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};
use slipway_api::types::{CreateSnapshot, Snapshot};
use slipway_testkit::Child;

use crate::cluster::{Cluster, Plan, dockerfile, eventually, ticking};

async fn named(cluster: &Cluster) -> Snapshot {
    cluster.client.snapshot("app").await.unwrap()
}

fn replacement(steps: &str) -> CreateSnapshot {
    CreateSnapshot {
        name: "app".into(),
        build_info: Some(dockerfile(steps)),
        replace: true,
        ..CreateSnapshot::default()
    }
}

#[tokio::test]
async fn the_name_moves_to_a_build_that_succeeds_and_stays_when_one_fails() {
    let mut cluster =
        Cluster::with(Plan { tables: "[limits]\nsnapshots = 1\n", ..Plan::default() }).await;
    let (old, _) = cluster.build("app", dockerfile("RUN echo old > /version")).await;
    assert_eq!(old.state, "active", "{:?}", old.error_reason);

    let failing = cluster.client.create_snapshot(&replacement("RUN exit 3")).await.unwrap();
    assert_eq!(failing.replaces.as_ref(), Some(&old.id));
    assert_eq!(cluster.ended(&failing.id).await.state, "build_failed");
    assert_eq!(
        (named(&cluster).await.id, named(&cluster).await.state.as_str()),
        (old.id.clone(), "active")
    );

    let next = CreateSnapshot { build_info: Some(ticking(10)), ..replacement("") };
    let next = cluster.client.create_snapshot(&next).await.unwrap();
    cluster.log_until(&next, "tick 2").await;
    assert_eq!(named(&cluster).await.id, old.id);
    // Whoever dies in between has it moved by the next.
    cluster.restart_scheduler().await;
    assert_eq!(cluster.ended(&next.id).await.state, "active");
    eventually("the name moved", async || (named(&cluster).await.id == next.id).then_some(()))
        .await;
    for gone in [&old.id, &failing.id] {
        eventually("what it replaced is gone", async || {
            cluster.client.snapshot(gone).await.err().filter(|error| error.status() == Some(404))
        })
        .await;
    }
    let all = cluster.client.list_snapshots(&Default::default()).await.unwrap();
    assert_eq!(all.items.iter().map(|one| &one.id).collect::<Vec<_>>(), [&next.id]);
}

#[tokio::test]
async fn the_command_line_replaces() {
    let cluster = Cluster::start().await;
    let (old, _) = cluster.build("app", dockerfile("RUN echo old > /version")).await;
    let folder = tempfile::tempdir().unwrap();
    let text = dockerfile("RUN echo new > /version").dockerfile_content;
    std::fs::write(folder.path().join("Dockerfile"), text).unwrap();
    for (words, is_success) in [(&["--json"][..], false), (&["--json", "--replace"], true)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
        command.args(["snapshot", "create", "app", "--context"]).arg(folder.path()).args(words);
        command.env("SLIPWAY_API_URL", format!("http://{}/api", cluster.api));
        command.env("SLIPWAY_API_KEY", &cluster.key).env_remove("RUST_LOG");
        let child = Child::spawn(command).unwrap();
        let is_ended = child.wait().await.success();
        assert_eq!(is_ended, is_success, "{}", child.output().lines().join("\n"));
    }
    assert_ne!(named(&cluster).await.id, old.id);
}

/// Status and body of a request with a key.
async fn post(
    api: SocketAddr,
    cluster: &Cluster,
    idempotency_key: &str,
    wanted: &CreateSnapshot,
) -> (u16, Value) {
    let url = format!("http://{api}/api/snapshots");
    let request = reqwest::Client::new().post(url).bearer_auth(&cluster.key).json(wanted);
    let answer = request.header("Idempotency-Key", idempotency_key).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_request_that_is_sent_again_makes_nothing_new() {
    let cluster = Cluster::start().await;
    let (_second, other) = cluster.second_scheduler().await;
    let wanted = CreateSnapshot { replace: false, ..replacement("RUN echo once") };
    let schedulers = [cluster.api, other];
    let at_once = (0..10).map(|n| post(schedulers[n % 2], &cluster, "deploy-1", &wanted));
    let answers = futures::future::join_all(at_once).await;
    let ids: BTreeSet<&str> = answers.iter().filter_map(|(_, body)| body["id"].as_str()).collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    for (status, body) in &answers {
        let is_told = *status == 200 || body["code"] == "idempotency_key_in_use";
        assert!(is_told, "{status} {body}");
    }
    let id = (*ids.first().unwrap()).to_owned();
    // Whoever did not make it hears of it a moment later.
    eventually("this scheduler knows it", async || cluster.client.snapshot(&id).await.ok()).await;
    assert_eq!(cluster.ended(&id).await.state, "active");
    let (status, body) = post(other, &cluster, "deploy-1", &wanted).await;
    assert_eq!((status, &body["id"], &body["state"]), (200, &json!(id), &json!("active")));

    let another = replacement("RUN echo twice");
    let (status, body) = post(cluster.api, &cluster, "deploy-1", &another).await;
    assert_eq!((status, &body["code"]), (422, &json!("idempotency_key_reused")));
    let (status, body) = post(cluster.api, &cluster, "", &wanted).await;
    assert_eq!((status, &body["code"]), (400, &json!("idempotency_key_invalid")));
    // What was refused is asked anew: the name may be free by then.
    let (status, body) = post(cluster.api, &cluster, "deploy-2", &wanted).await;
    assert_eq!((status, &body["code"]), (409, &json!("name_taken")));
    cluster.client.delete_snapshot(&id).await.unwrap();
    eventually("it is gone", async || {
        cluster.client.snapshot(&id).await.err().filter(|error| error.status() == Some(404))
    })
    .await;
    let (status, body) = post(cluster.api, &cluster, "deploy-1", &wanted).await;
    assert_eq!((status, &body["code"]), (409, &json!("idempotency_key_used")));
    let (status, _) = post(cluster.api, &cluster, "deploy-2", &wanted).await;
    assert_eq!(status, 200);
}
