//! The load test, tiny: that it measures, checks, and cleans up behind itself.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use slipway_testkit::{Child, stack};

use crate::cluster::{Cluster, LIMIT, Plan, dockerfile, eventually};

/// Runs `slipway loadtest` against a cluster.
fn loadtest(cluster: &Cluster, args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .arg("loadtest")
        .args(args)
        .env_remove("RUST_LOG")
        .env("SLIPWAY_API_URL", format!("http://{}/api", cluster.api))
        .env("SLIPWAY_API_KEY", &cluster.key)
        .env("NATS_URL", cluster.nats.url())
        .env("SLIPWAY_BASE_IMAGE", stack::base_image());
    Child::spawn(command).unwrap()
}

/// Its exit code and everything it printed.
async fn ended(child: &Child) -> (Option<i32>, String) {
    let status = tokio::time::timeout(LIMIT, child.wait()).await.unwrap();
    (status.code(), child.output().lines().join("\n"))
}

fn report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn row<'a>(report: &'a Value, list: &str, name: &str) -> &'a Value {
    let rows = report[list].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"))
}

/// How many snapshots there are that are not on their way out.
async fn left(cluster: &Cluster) -> usize {
    let all = cluster.client.list_snapshots(&Default::default()).await.unwrap();
    all.items.iter().filter(|snapshot| snapshot.state != "removing").count()
}

#[tokio::test]
async fn builds_are_timed_and_deleted() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let to = json.to_str().unwrap();
    let args = ["builds", "--count", "5", "--concurrency", "2", "--region", "us", "--rate", "20"];
    let child = loadtest(&cluster, &[&args[..], &["--json", to]].concat());
    let (code, output) = ended(&child).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("submit answer"), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "figures", "active")["value"], 5.0);
    for name in ["late start", "submit answer", "claim", "first log line", "active"] {
        assert_eq!(row(&report, "latencies", name)["count"], 5, "{name}");
    }
    let p50 = |name| row(&report, "latencies", name)["p50"].as_f64().unwrap();
    assert!(p50("submit answer") < p50("first log line"), "{report:#}");
    assert!(p50("first log line") <= p50("active"), "{report:#}");
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn builds_that_fail_are_counted_by_reason() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let failing = folder.path().join("Dockerfile");
    std::fs::write(&failing, dockerfile("RUN exit 7").dockerfile_content).unwrap();
    let args = ["builds", "--count", "2", "--dockerfile", failing.to_str().unwrap()];
    let (code, output) = ended(&loadtest(&cluster, &args)).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("build: run_failed"), "{output}");
    assert_eq!(left(&cluster).await, 0);

    let (code, output) = ended(&loadtest(
        &cluster,
        &["builds", "--count", "9", "--concurrency", "9", "--quota", "8"],
    ))
    .await;
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("may hold 8 snapshots"), "{output}");
}

#[tokio::test]
async fn ctrl_c_deletes_what_is_under_way_and_still_reports() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let slow = folder.path().join("Dockerfile");
    std::fs::write(&slow, dockerfile("RUN sleep 600").dockerfile_content).unwrap();
    let args = ["builds", "--concurrency", "3", "--dockerfile", slow.to_str().unwrap()];
    let child = loadtest(&cluster, &args);
    eventually("three builds are asked for", async || (left(&cluster).await == 3).then_some(()))
        .await;
    child.interrupt();
    let (code, output) = ended(&child).await;
    assert_eq!(code, Some(130), "{output}");
    assert!(output.contains("stopped early"), "{output}");
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn every_reader_of_a_log_gets_the_same() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let to = json.to_str().unwrap();
    let args = ["logs", "--lines", "3000", "--followers", "5", "--json", to];
    let (code, output) = ended(&loadtest(&cluster, &args)).await;
    assert_eq!(code, Some(0), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "figures", "lines")["value"], 3000.0);
    assert_eq!(row(&report, "figures", "readers to the end")["value"], 5.0);
    assert!(row(&report, "figures", "lines read, slowest")["value"].as_f64().unwrap() > 0.0);
    assert!(row(&report, "latencies", "line to reader")["count"].as_u64().unwrap() > 0);
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn a_storm_is_measured_beside_its_floor() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 4, "log_lines = 1").await;
    let folder = tempfile::tempdir().unwrap();
    let (json, plot) = (folder.path().join("report.json"), folder.path().join("storm.svg"));
    let files = ["--json", json.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let args = ["storm", "--count", "12", "--rate", "20", "--region", "us"];
    let (code, output) = ended(&loadtest(&cluster, &[&args[..], &files].concat())).await;
    assert_eq!(code, Some(0), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "figures", "active")["value"], 12.0);
    assert!(row(&report, "figures", "floor lifecycles")["value"].as_f64().unwrap() > 0.0);
    let names = ["submit answer", "submit to worker", "submit to active"];
    for name in names.iter().chain(&["floor: publish to taken", "floor: seven steps"]) {
        assert_eq!(row(&report, "latencies", name)["count"], 12, "{name}");
    }
    for series in report["timeline"].as_array().unwrap() {
        let points = series["points"].as_array().unwrap();
        let count: u64 = points.iter().map(|point| point["count"].as_u64().unwrap()).sum();
        assert_eq!(count, 12, "{series:#}");
    }
    assert!(std::fs::read_to_string(&plot).unwrap().contains("<polyline"), "no lines");
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn a_storm_counts_what_fails() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 2, "failures = 1.0").await;
    let args = ["storm", "--count", "4", "--concurrency", "2", "--no-floor"];
    let (code, output) = ended(&loadtest(&cluster, &args)).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("job: build_failed  4 "), "{output}");
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn tenants_of_two_regions_are_held_against_each_other() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    for region in ["us", "eu"] {
        cluster.add_simulated(region, 1, 4, "log_lines = 1").await;
    }
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let files = ["--json", json.to_str().unwrap()];
    let args = ["tenants", "--tenants", "3", "--count", "24", "--rate", "20"];
    // The second run finds the organizations of the first.
    for _ in 0..2 {
        let (code, output) = ended(&loadtest(&cluster, &[&args[..], &files].concat())).await;
        assert_eq!(code, Some(0), "{output}");
        let report = report(&json);
        assert_eq!(row(&report, "figures", "active")["value"], 24.0);
        let count = |name: &str| row(&report, "latencies", name)["count"].as_u64().unwrap();
        for name in ["submit answer", "submit to worker", "submit to active"] {
            let (builds, pulls) = (format!("build: {name}"), format!("pull: {name}"));
            assert_eq!(count(&builds) + count(&pulls), 24, "{name}");
        }
        assert_eq!(count("us: submit to active") + count("eu: submit to active"), 24);
        assert!(row(&report, "figures", "tenant p50, spread")["value"].as_f64().unwrap() >= 1.0);
    }
    for n in 1..=3 {
        let name = format!("loadtest-{n:03}");
        assert_eq!(cluster.client.api_keys(Some(&name)).await.unwrap(), []);
        let usage = cluster.client.organization_usage(&name).await.unwrap();
        assert_eq!(usage.current_snapshot_usage, 0, "{name}");
    }
}

#[tokio::test]
async fn signs_of_life_are_seen_and_taken_back() {
    let mut cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 4, "log_lines = 1").await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let (files, pid) = (["--json", json.to_str().unwrap()], std::process::id().to_string());
    let args = ["heartbeats", "--workers", "200", "--interval", "1s", "--part", "2s"];
    let beside = ["--jobs", "4", "--reads", "10", "--region", "us", "--scheduler-pid", &pid];
    let (code, output) = ended(&loadtest(&cluster, &[&args[..], &beside, &files].concat())).await;
    assert_eq!(code, Some(0), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "figures", "workers seen")["value"], 201.0);
    assert!(row(&report, "figures", "memory, with signs")["value"].as_f64().unwrap() > 1.0);
    assert!(row(&report, "latencies", "sign of life stored")["count"].as_u64().unwrap() >= 400);
    for part in ["quiet", "with signs"] {
        let count =
            |name: &str| row(&report, "latencies", &format!("{part}: {name}"))["count"].clone();
        assert_eq!((count("API answer"), count("submit to active")), (20.into(), 8.into()));
    }
    let alone = async || (cluster.client.workers().await.unwrap().len() == 1).then_some(());
    eventually("only the real worker is left", alone).await;
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn a_flood_is_in_nobodys_way_and_is_taken_away() {
    let tables = "[limits]\nsnapshots = 1000\n";
    let mut cluster = Cluster::with(Plan { workers: vec![], tables, ..Plan::default() }).await;
    cluster.add_simulated("us", 1, 2, "duration = \"200ms\"").await;
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let args = ["flood", "--flood", "60", "--count", "4", "--rate", "4"];
    let args = [&args[..], &["--json", json.to_str().unwrap()]].concat();
    let (code, output) = ended(&loadtest(&cluster, &args)).await;
    assert_eq!(code, Some(0), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "figures", "active")["value"], 12.0);
    assert!(row(&report, "figures", "left of all")["value"].as_f64().unwrap() > 10.0, "{output}");
    assert_eq!(row(&report, "latencies", "behind all: submit to worker")["count"], 4);
    assert_eq!(left(&cluster).await, 0);
}

#[tokio::test]
async fn kills_and_cancels_are_timed_on_a_system_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .args(["loadtest", "recovery", "--kills", "1", "--cancels", "2", "--json"])
        .arg(&json)
        .env("SLIPWAY_BUILDKIT", stack::buildkit_endpoint())
        .env("SLIPWAY_BASE_IMAGE", stack::base_image());
    let nats_server = stack::folder().join("bin/nats-server");
    if std::env::var_os("SLIPWAY_NATS_SERVER").is_none() && nats_server.exists() {
        command.env("SLIPWAY_NATS_SERVER", nats_server);
    }
    let child = Child::spawn(command).unwrap();
    let (code, output) = ended(&child).await;
    assert_eq!(code, Some(0), "{output}");
    let report = report(&json);
    assert_eq!(row(&report, "latencies", "killed to running elsewhere")["count"], 1);
    assert_eq!(row(&report, "latencies", "cancel to process gone")["count"], 2);
}
