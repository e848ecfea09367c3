//! The chaos harness, for a short time: three seeds with every promise kept, and
//! runs in which a promise is broken on purpose.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use slipway_testkit::Child;
use tempfile::TempDir;

/// What the command said: its exit code, and the outcome that it printed.
struct Said {
    code: Option<i32>,
    outcome: Value,
    text: String,
    folder: TempDir,
}

impl Said {
    fn history(&self) -> PathBuf {
        self.folder.path().join("run/history.jsonl")
    }

    /// The names of the promises that were broken.
    fn broken(&self) -> Vec<&str> {
        let violations = self.outcome["violations"].as_array().unwrap();
        let mut names: Vec<_> =
            violations.iter().map(|broken| broken["invariant"].as_str().unwrap()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn count(&self, list: &str, name: &str) -> u64 {
        self.outcome[list][name].as_u64().unwrap_or_default()
    }
}

/// Runs `slipway loadtest chaos` to its end. How long that takes is for the
/// harness to bound; nextest ends what hangs.
async fn chaos(seed: u64, minutes: &str, more: &[&str]) -> Said {
    let folder = TempDir::with_prefix("slipway-chaos-test-").unwrap();
    let run = folder.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .args(["loadtest", "chaos", "--json", "--seed", &seed.to_string(), "--minutes", minutes])
        .args(["--settle", "3min", "--folder", run.to_str().unwrap()])
        .args(more)
        .env_remove("RUST_LOG");
    let nats_server = slipway_testkit::stack::folder().join("bin/nats-server");
    if std::env::var_os("SLIPWAY_NATS_SERVER").is_none() && nats_server.exists() {
        command.env("SLIPWAY_NATS_SERVER", nats_server);
    }
    let child = Child::spawn(command).unwrap();
    let code = child.wait().await.code();
    // The pipes end a moment after the process.
    let text = child.output().line(|_| false).await.unwrap_err().printed;
    // The two pipes are mixed, line by line.
    let json: String = text.lines().filter(|line| !line.starts_with("chaos:")).collect();
    let outcome = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {text}"));
    Said { code, outcome, text, folder }
}

/// What a failed run leaves: the end of every log, since the folder goes.
fn logs(run: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(run.join("logs")).into_iter().flatten().flatten() {
        let log = String::from_utf8_lossy(&std::fs::read(entry.path()).unwrap()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(30)..].join("\n");
        text.push_str(&format!("\n== {}\n{last}", entry.path().display()));
    }
    text
}

async fn every_promise_is_kept(seed: u64) {
    let said = chaos(seed, "0.2", &[]).await;
    if said.code != Some(0) {
        let history = std::fs::read_to_string(said.history()).unwrap_or_default();
        panic!("seed {seed}\n{history}\n{}\n{}", logs(&said.folder.path().join("run")), said.text);
    }
    assert_eq!(said.broken(), [""; 0]);
    assert!(said.count("answers", "acknowledged") > 0, "{}", said.text);
    let blows = said.outcome["blows"].as_object().unwrap();
    assert!(!blows.is_empty(), "{}", said.text);
    assert!(said.outcome["settled_ms"].is_u64(), "{}", said.text);
}

#[tokio::test]
async fn every_promise_is_kept_whatever_seed_1_brings() {
    every_promise_is_kept(1).await;
}

#[tokio::test]
async fn every_promise_is_kept_whatever_seed_2_brings() {
    every_promise_is_kept(2).await;
}

#[tokio::test]
async fn every_promise_is_kept_whatever_seed_3_brings() {
    every_promise_is_kept(3).await;
}

/// A second without many blows, and a promise that is broken by hand.
async fn broken_by_hand(what: &str, promise: &str) {
    let said = chaos(11, "0.05", &["--spoil", what]).await;
    assert_eq!(said.code, Some(1), "{}", said.text);
    assert_eq!(said.broken(), [promise], "{}", said.text);
    assert!(said.text.contains("--seed 11"), "{}", said.text);
    let history = std::fs::read_to_string(said.history()).unwrap();
    assert!(history.lines().count() > 10 && said.text.contains("history.jsonl"), "{}", said.text);
}

#[tokio::test]
async fn a_blob_that_was_deleted_is_found_missing() {
    broken_by_hand("blob", "blobs_present").await;
}

#[tokio::test]
async fn a_log_that_was_deleted_is_found_missing() {
    broken_by_hand("log", "logs_whole").await;
}
