//! What a machine does to those on it: stores that fail, dawdle or are full, BuildKit
//! that dies, clocks that jump, and everything being restarted while it is used.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use slipway_api::types::Snapshot;
use slipway_testkit::{Child, Disk, JumpingClock};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::cluster::{
    Cluster, LIMIT, Plan, Stores, assert_gapless, dockerfile, eventually, line, ticking,
};

/// Lets the stores of a cluster fail or dawdle from now on.
fn let_stores(cluster: &Cluster, do_what: &str) {
    std::fs::write(Stores::faults(cluster.folder()), do_what).unwrap();
}

async fn active_after(cluster: &Cluster, snapshot: &Snapshot, attempts: usize) {
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let job = cluster.job(&ended).await;
    assert_eq!(job.attempts.len(), attempts, "{job:?}");
    assert_gapless(&cluster.log(&ended).await);
}

/// The reason of the first attempt that failed.
async fn first_failure(cluster: &Cluster, snapshot: &Snapshot) -> (String, String) {
    let failure = eventually("an attempt failed", async || {
        cluster.job(snapshot).await.attempts.first()?.failure.clone()
    })
    .await;
    (failure.kind.as_str().to_owned(), failure.message)
}

#[tokio::test]
async fn a_build_waits_for_a_store_that_fails_and_bears_one_that_is_slow() {
    let cluster = Cluster::with(Plan { stores: Stores::Faulty, ..Plan::default() }).await;
    let_stores(&cluster, r#"{"fail_percent": 100}"#);
    let snapshot = cluster.submit("patient", dockerfile("RUN echo x > /x")).await;
    let (kind, message) = first_failure(&cluster, &snapshot).await;
    assert_eq!(kind, "store_unavailable", "{message}");
    let_stores(&cluster, "{}");
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_gapless(&cluster.log(&ended).await);

    let_stores(&cluster, r#"{"delay_ms": 150}"#);
    let slow = cluster.submit("slow", dockerfile("RUN echo y > /y")).await;
    active_after(&cluster, &slow, 1).await;
}

#[tokio::test]
async fn a_store_without_room_is_said_and_the_build_goes_on_when_there_is_some() {
    let disk = Arc::new(Disk::new(64).await);
    let plan = Plan { store_disk: Some(disk.clone()), ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let filler = fill(&disk.seen_from_outside(), 0);
    let random = dockerfile("RUN head -c 3000000 /dev/urandom > /noise");
    let snapshot = cluster.submit("large", random).await;
    let (kind, message) = first_failure(&cluster, &snapshot).await;
    assert_eq!(kind, "store_unavailable", "{message}");
    // The operator reads why.
    let output = cluster.worker("us-1").output();
    output.line(|line| line.contains("No space left on device")).await.unwrap();
    std::fs::remove_file(filler).unwrap();
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
}

/// Leaves so much room on a disk.
fn fill(disk: &Path, room: u64) -> PathBuf {
    let path = disk.join("filler");
    let mut file = File::create(&path).unwrap();
    for piece in [1 << 20, 4096] {
        while file.write_all(&vec![1; piece]).is_ok() && file.sync_data().is_ok() {}
    }
    file.set_len(file.metadata().unwrap().len().checked_sub(room).unwrap()).unwrap();
    path
}

/// A BuildKit of its own, which keeps everything in a folder.
struct Engine(Child);

impl Engine {
    /// Starts it and waits until it serves; `command` makes commands.
    async fn start(folder: &Path, command: impl Fn(PathBuf) -> Command) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev/engine");
        let mut command = command(script);
        command.arg(folder);
        let engine = Child::spawn(command).unwrap();
        engine.output().line(|line| line.contains("API listen on")).await.unwrap();
        Self(engine)
    }

    /// How workers reach it.
    fn endpoint(folder: &Path) -> Option<String> {
        Some(format!("docker://{}", folder.join("docker.sock").display()))
    }

    async fn stop(self) {
        self.0.terminate();
        let status = tokio::time::timeout(LIMIT, self.0.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

#[tokio::test]
async fn a_build_whose_buildkit_is_killed_in_the_middle_runs_again_when_there_is_one() {
    let folder = TempDir::with_prefix("slipway-engine-").unwrap();
    let first = Engine::start(folder.path(), Command::new).await;
    let buildkit = Engine::endpoint(folder.path());
    let cluster = Cluster::with(Plan { buildkit, attempts: 50, ..Plan::default() }).await;
    let snapshot = cluster.submit("interrupted", ticking(25)).await;
    cluster.log_until(&snapshot, "tick 3").await;
    first.0.kill9().await;
    let (kind, message) = first_failure(&cluster, &snapshot).await;
    assert_eq!(kind, "buildkit_unavailable", "{message}");

    let second = Engine::start(folder.path(), Command::new).await;
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    let log = cluster.log(&ended).await;
    assert_gapless(&log);
    let last = log.iter().filter_map(line).filter(|line| line.contains("tick 25"));
    assert_eq!(last.count(), 1, "{log:?}");
    second.stop().await;
}

#[tokio::test]
async fn a_buildkit_without_room_is_no_fault_of_the_dockerfile() {
    let disk = Disk::new(300).await;
    let engine = Engine::start(&disk.path(), |script| disk.command(script)).await;
    let buildkit = Engine::endpoint(&disk.seen_from_outside());
    let cluster = Cluster::with(Plan { buildkit, attempts: 50, ..Plan::default() }).await;
    // Room for the noise once, but not for its copy.
    cluster.build("first", dockerfile("RUN true")).await;
    let filler = fill(&disk.seen_from_outside(), 60 << 20);
    let steps =
        "RUN head -c 40000000 /dev/urandom > /noise\nFROM scratch\nCOPY --from=0 /noise /copy";
    let snapshot = cluster.submit("roomy", dockerfile(steps)).await;
    let (kind, message) = first_failure(&cluster, &snapshot).await;
    assert_eq!(kind, "buildkit_unavailable", "{message}");
    assert!(message.contains("no space left on device"), "{message}");
    std::fs::remove_file(filler).unwrap();
    let ended = cluster.ended(&snapshot.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    engine.stop().await;
}

#[tokio::test]
async fn clocks_that_jump_in_the_middle_of_a_build_do_it_no_harm() {
    let clock = JumpingClock::right();
    let env = clock.environment();
    let mut cluster = Cluster::with(Plan { env, lease: "3s", ..Plan::default() }).await;
    for (name, jump) in [("ahead", 5400), ("back", -5400)] {
        let snapshot = cluster.submit(name, ticking(25)).await;
        let log = cluster.log_until(&snapshot, "tick 3").await;
        let before = log.last().unwrap().time;
        clock.set(jump);
        let log = cluster.log_until(&snapshot, "tick 20").await;
        let apart = log.last().unwrap().time.duration_since(before);
        assert!(apart.unsigned_abs() > Duration::from_secs(3600), "the clock jumped: {apart}");
        active_after(&cluster, &snapshot, 1).await;
        clock.set(0);
    }
    // A pause before the next attempt does not last until the clock is where it was.
    let snapshot = cluster.submit("retried", ticking(25)).await;
    cluster.log_until(&snapshot, "tick 3").await;
    cluster.kill_worker("us-1").await;
    clock.set(-5400);
    cluster.start_worker("us-1").await;
    active_after(&cluster, &snapshot, 2).await;
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing_and_repeats_nothing() {
    let plan = Plan {
        workers: vec![],
        drain_grace: "1min",
        tables: "[limits]\nsnapshots = 1000\n",
        ..Plan::default()
    };
    let mut cluster = Cluster::with(plan).await;
    for n in 1..=2 {
        cluster.add_simulated("us", n, 4, "duration = \"400ms\"\nlog_lines = 5").await;
    }
    let (second, _) = cluster.second_scheduler().await;
    let client = cluster.client.clone();
    let mut load = JoinSet::new();
    load.spawn(async move {
        let mut asked = vec![];
        for n in 0..80 {
            asked.push(submitted(&client, n).await);
            tokio::time::sleep(Duration::from_millis(120)).await;
        }
        asked
    });
    for n in [1, 2] {
        let name = format!("us-{n}");
        cluster.worker(&name).terminate();
        assert!(cluster.worker(&name).wait().await.success());
        cluster.start_worker(&name).await;
    }
    second.terminate();
    assert!(second.wait().await.success());
    let (_third, _) = cluster.second_scheduler().await;
    cluster.nats.kill9().await;
    cluster.nats.restart().await;
    for snapshot in load.join_next().await.unwrap().unwrap() {
        let ended = cluster.ended(&snapshot.id).await;
        assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
        let job = cluster.job(&ended).await;
        assert_eq!(job.attempts.len(), 1, "{job:?}");
        let lines = cluster.log(&ended).await;
        assert_gapless(&lines);
        assert!(lines.iter().filter_map(line).count() >= 5);
    }
}

/// Asks for a snapshot until the answer is that it is there, as clients do that have
/// a key for the request.
async fn submitted(client: &slipway_api::Client, n: usize) -> Snapshot {
    let wanted = slipway_api::types::CreateSnapshot {
        name: format!("rolling-{n}"),
        region_id: Some("us".into()),
        build_info: Some(dockerfile("RUN true")),
        ..slipway_api::types::CreateSnapshot::default()
    };
    eventually("the request is taken", async || match client.create_snapshot(&wanted).await {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.status() == Some(409) => client.snapshot(&wanted.name).await.ok(),
        Err(error) => {
            assert!(matches!(error.status(), None | Some(503)), "{error}");
            None
        }
    })
    .await
}
