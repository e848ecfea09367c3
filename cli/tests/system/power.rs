//! The power of the whole machine is cut while it is busy.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, ListSnapshots, Snapshot};
use slipway_testkit::Disk;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Plan, assert_gapless, eventually};

/// How many snapshots are active when the power is cut.
const ACTIVE: usize = 20;
const SUBMITTERS: usize = 4;
const JOBS: &str = "duration = \"300ms\"\nspread = \"300ms\"\nlog_lines = 20";

#[tokio::test]
async fn what_was_acknowledged_survives_a_power_cut() {
    let disk = Arc::new(Disk::new(1024).await);
    let plan = Plan { workers: vec![], lease: "2s", disk: Some(disk.clone()), ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    cluster.add_simulated("us", 1, 8, JOBS).await;

    let mut submitters = submit_until_refused(&cluster);
    let before = active(&cluster).await;
    cluster.power_cut().await;
    let mut acknowledged = vec![];
    while let Some(accepted) = submitters.join_next().await {
        acknowledged.extend(accepted.unwrap());
    }
    assert!(acknowledged.len() > ACTIVE, "{}", acknowledged.len());

    // Before any worker is back: what was active is active, with the same image.
    for snapshot in &before {
        let now = cluster.client.snapshot(&snapshot.id).await.unwrap();
        assert_eq!((now.state, &now.digest), ("active".into(), &snapshot.digest));
        assert_whole(&disk, snapshot.digest.as_ref().unwrap());
    }
    cluster.start_worker("us-1").await;
    for snapshot in &acknowledged {
        let ended = cluster.ended(&snapshot.id).await;
        assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
        assert_whole(&disk, ended.digest.as_ref().unwrap());
        assert_gapless(&cluster.log(&ended).await);
    }
}

/// Submits builds side by side until one is not accepted; each task returns
/// those that were.
fn submit_until_refused(cluster: &Cluster) -> JoinSet<Vec<Snapshot>> {
    let mut submitters = JoinSet::new();
    for submitter in 0..SUBMITTERS {
        let client = cluster.client.clone();
        submitters.spawn(async move {
            let mut accepted = vec![];
            loop {
                let content = format!("FROM base:1\nENV BUILD={submitter}-{}", accepted.len());
                let build_info =
                    CreateBuildInfo { dockerfile_content: content, ..CreateBuildInfo::default() };
                let wanted = CreateSnapshot {
                    name: format!("build-{submitter}-{}", accepted.len()),
                    build_info: Some(build_info),
                    ..CreateSnapshot::default()
                };
                match client.create_snapshot(&wanted).await {
                    Ok(snapshot) => accepted.push(snapshot),
                    Err(_) => return accepted,
                }
            }
        });
    }
    submitters
}

/// The active snapshots, as soon as there are enough.
async fn active(cluster: &Cluster) -> Vec<Snapshot> {
    eventually("enough snapshots are active", async || {
        let query = ListSnapshots { limit: Some(100), ..Default::default() };
        let all = cluster.client.list_snapshots(&query).await.unwrap().items;
        let active: Vec<_> = all.into_iter().filter(|one| one.state == "active").collect();
        (active.len() >= ACTIVE).then_some(active)
    })
    .await
}

/// The manifest and all that it names lie in the store and have their digests.
fn assert_whole(disk: &Disk, digest: &str) {
    let store = disk.seen_from_outside().join("stores/us");
    let manifest: Value = serde_json::from_slice(&blob(&store, digest)).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    for descriptor in layers.iter().chain([&manifest["config"]]) {
        blob(&store, descriptor["digest"].as_str().unwrap());
    }
}

fn blob(store: &Path, digest: &str) -> Vec<u8> {
    let hex = digest.strip_prefix("sha256:").unwrap();
    let path = store.join("blobs/sha256").join(&hex[..2]).join(hex);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{digest}: {error}"));
    assert_eq!(hex::encode(Sha256::digest(&bytes)), hex, "{digest}");
    bytes
}
