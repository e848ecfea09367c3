//! Dropping a solve.

use std::time::{Duration, Instant};

use slipway_buildkit::BuildEvent;

use crate::support::{client, nonce, on_base};

/// Ids of the processes of this machine that have `word` among their arguments.
/// BuildKit's processes are seen from outside their containers.
fn processes_with(word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()) {
            found.push(id);
        }
    }
    found
}

/// Waits until no process has `word`: the end of a process of others can only
/// be looked for.
async fn assert_gone(word: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !processes_with(word).is_empty() {
        assert!(Instant::now() < deadline, "process still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn dropping_a_solve_ends_its_process() {
    let word = nonce();
    let request = on_base(&format!("RUN sh -c 'echo running; sleep 600; :' {word}"));
    let mut solve = client().await.solve(request);
    loop {
        match solve.next_event().await.expect("the process runs") {
            BuildEvent::Log { .. } => break,
            _ => continue,
        }
    }
    assert!(!processes_with(&word).is_empty());
    drop(solve);
    assert_gone(&word).await;
}

/// BuildKit before 0.15 (moby/buildkit pull request 5106) loses a cancellation
/// that comes while a container is being started; the process then runs to its
/// own end. Hence the short sleep: what is left must not be more than that.
#[tokio::test]
async fn a_solve_can_be_dropped_at_any_time() {
    let word = nonce();
    let client = client().await;
    for step in 0..20u64 {
        let request = on_base(&format!("RUN sh -c 'sleep 4; : {step}' {word}"));
        let mut solve = client.solve(request);
        let until = tokio::time::sleep(Duration::from_millis(15 * step));
        tokio::pin!(until);
        loop {
            tokio::select! {
                event = solve.next_event() => assert!(event.is_some(), "ended by itself"),
                () = &mut until => break,
            }
        }
        drop(solve);
    }
    client.solve(on_base(&format!("RUN echo {word}"))).outcome().await.unwrap();
    assert_gone(&word).await;
}

#[tokio::test]
async fn dropping_one_of_two_equal_solves_leaves_the_other() {
    let word = nonce();
    let request = on_base(&format!("RUN sh -c 'echo running; sleep 2; echo survived' {word}"));
    let client = client().await;
    let mut first = client.solve(request.clone());
    let second = client.solve(request);
    while !matches!(first.next_event().await.unwrap(), BuildEvent::Log { .. }) {}
    drop(first);
    second.outcome().await.unwrap();
    assert_gone(&word).await;
}
