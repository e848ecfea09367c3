//! `slipway dev`: the whole stack by one command.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use slipway_testkit::{Child, stack};

use crate::cluster::{Cluster, client, dockerfile, eventually, slipway};

/// Reads `dev.env`.
fn variables(data: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(data.join("dev.env")).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
    lines.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}

async fn start(data: &Path) -> Child {
    let ready = data.join("ready");
    let nats = stack::folder().join("bin/nats-server");
    let mut args = vec!["dev", "--data-dir", data.to_str().unwrap()];
    args.extend(["--ready-file", ready.to_str().unwrap()]);
    let buildkit = stack::buildkit_endpoint();
    args.extend(["--buildkit", &buildkit]);
    if nats.exists() {
        args.extend(["--nats-server", nats.to_str().unwrap()]);
    }
    let child = slipway(&args);
    eventually("the stack serves", async || {
        assert!(child.status().is_none(), "{:#?}", child.output().lines());
        ready.exists().then_some(())
    })
    .await;
    child
}

async fn stop(child: &Child) {
    child.interrupt();
    let stopped = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
    assert!(stopped.unwrap().success(), "{:#?}", child.output().lines());
}

/// Processes that work on a data folder.
fn processes(data: &Path) -> usize {
    let word = data.to_str().unwrap();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(word)).count()
}

#[tokio::test]
async fn the_stack_starts_builds_stops_and_finds_its_data_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().canonicalize().unwrap();
    let child = start(&data).await;
    let env = variables(&data);
    let api = env["DAYTONA_API_URL"].strip_prefix("http://").unwrap();
    let api = api.strip_suffix("/api").unwrap().parse().unwrap();
    let client = client(api, &env["DAYTONA_API_KEY"]);
    for name in
        ["NATS_URL", "SLIPWAY_REGISTRY_US", "SLIPWAY_REGISTRY_US_EAST_1", "SLIPWAY_STORE_EU"]
    {
        assert!(env.contains_key(name), "{name} is not in {env:?}");
    }
    let regions = client.regions().await.unwrap();
    let names: Vec<_> = regions.iter().map(|region| region.id.as_str()).collect();
    assert_eq!(names, ["eu", "us", "us-east-1"]);
    assert!(regions.iter().all(|region| region.workers == 1));

    let wanted = slipway_api::types::CreateSnapshot {
        name: "kept".into(),
        build_info: Some(dockerfile("RUN echo kept")),
        ..Default::default()
    };
    let snapshot = client.create_snapshot(&wanted).await.unwrap();
    let active = async || client.snapshot("kept").await.ok().filter(|s| s.state == "active");
    let active = eventually("it is active", active).await;

    // A second stack on the same folder is refused.
    let second = slipway(&["dev", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(second.wait().await.code(), Some(69));

    // A worker that dies is there again.
    let before = client.workers().await.unwrap();
    let victim = processes_named(&data, "worker-us-1.toml");
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).unwrap();
    eventually("the worker is back", async || {
        let now = client.workers().await.unwrap_or_default();
        let of = |list: &[slipway_api::own::Worker]| {
            list.iter().find(|worker| worker.id == "us-1").map(|worker| worker.started_at)
        };
        (of(&now).is_some() && of(&now) != of(&before)).then_some(())
    })
    .await;

    stop(&child).await;
    assert!(!data.join("dev.env").exists() && !data.join("ready").exists());
    assert_eq!(processes(&data), 0, "no child is left");

    let child = start(&data).await;
    assert_eq!(variables(&data), env, "the same addresses and the same key");
    let found = eventually("the registry is back", async || {
        client.snapshot(&snapshot.id).await.ok().filter(|found| found.reference.is_some())
    })
    .await;
    assert_eq!(found, active);
    stop(&child).await;
}

/// The process whose command line has the word.
fn processes_named(data: &Path, word: &str) -> rustix::process::Pid {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let found = all.filter_map(|process| {
        let line = std::fs::read(process.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        let id: i32 = process.file_name().to_str()?.parse().ok()?;
        (line.contains(word) && line.contains(data.to_str()?)).then_some(id)
    });
    rustix::process::Pid::from_raw(found.into_iter().next().unwrap()).unwrap()
}

#[tokio::test]
async fn children_die_with_the_stack() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().canonicalize().unwrap();
    let child = start(&data).await;
    assert!(processes(&data) >= 6);
    // Only the process itself: what a crash or an impatient user does.
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    child.wait().await;
    eventually("no child is left", async || (processes(&data) == 0).then_some(())).await;
}

#[tokio::test]
async fn the_scheduler_refuses_a_bad_configuration_before_it_listens() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scheduler.toml");
    std::fs::write(&file, format!("listen = \"{}\"\nnatz = []\n", cluster.api)).unwrap();
    let child = slipway(&["scheduler", "--config", file.to_str().unwrap()]);
    assert_eq!(child.wait().await.code(), Some(64));
    for word in ["scheduler.toml", "natz"] {
        child.output().line(|line| line.contains(word)).await.unwrap();
    }
}
