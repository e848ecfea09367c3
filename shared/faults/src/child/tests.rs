#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::time::timeout;

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// A process of someone else sends no event when it dies.
async fn wait_until_dead(pid: &str) {
    let dead = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(60), dead).await.unwrap();
}

#[tokio::test]
async fn exit_code_is_reported_more_than_once() {
    let child = Child::spawn(shell("exit 7")).unwrap();
    assert_eq!(child.wait().await.code(), Some(7));
    assert_eq!(child.wait().await.code(), Some(7));
    assert_eq!(child.status().unwrap().code(), Some(7));
}

#[tokio::test]
async fn kill9_is_reported_as_the_signal() {
    let child = Child::spawn(shell("sleep 60")).unwrap();
    child.kill9().await;
    assert_eq!(child.wait().await.signal(), Some(9));
}

#[tokio::test]
async fn lines_of_both_pipes_are_waited_for() {
    let child = Child::spawn(shell("echo one; echo two >&2; sleep 60")).unwrap();
    assert_eq!(child.output().line(|line| line == "two").await.unwrap(), "two");
    assert_eq!(child.output().line(|line| line.starts_with('o')).await.unwrap(), "one");
}

#[tokio::test]
async fn end_of_output_is_an_error_with_the_output_in_it() {
    let child = Child::spawn(shell("echo only this")).unwrap();
    let ended = child.output().line(|line| line == "that").await.unwrap_err();
    assert_eq!(ended.printed, "only this");
}

#[tokio::test]
async fn output_goes_to_a_file_that_a_second_start_appends_to() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for word in ["one", "two"] {
        let child = Child::spawn_into(shell(&format!("echo {word}; echo {word}! >&2")), &log);
        assert!(child.unwrap().wait().await.success());
    }
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "one\none!\ntwo\ntwo!\n");
}

#[tokio::test]
async fn drop_kills_the_whole_group() {
    let child = Child::spawn(shell("sleep 60 & echo grandchild $!; wait")).unwrap();
    let line = child.output().line(|line| line.starts_with("grandchild")).await.unwrap();
    let grandchild = line.split_once(' ').unwrap().1.to_owned();
    assert!(is_alive(&grandchild));
    let output = child.output().clone();
    drop(child);
    // The output ends when the last process that holds the pipe is gone.
    output.line(|_| false).await.unwrap_err();
    wait_until_dead(&grandchild).await;
}

#[tokio::test]
async fn paused_child_stands_still_until_it_is_resumed() {
    let child = Child::spawn(shell(
        "trap 'echo woken; exit 0' TERM; echo set; while :; do sleep 0.05; done",
    ))
    .unwrap();
    child.output().line(|line| line == "set").await.unwrap();
    child.pause();
    child.terminate();
    let quiet = Duration::from_millis(300);
    assert!(timeout(quiet, child.wait()).await.is_err());
    child.resume();
    assert!(child.wait().await.success());
    child.output().line(|line| line == "woken").await.unwrap();
}

#[tokio::test]
async fn child_outlives_the_thread_that_asked_for_it() {
    let child = thread::spawn(|| Child::spawn(shell("sleep 60")).unwrap()).join().unwrap();
    let quiet = Duration::from_millis(200);
    assert!(timeout(quiet, child.wait()).await.is_err());
}

/// Runs itself again as a process that starts a child and is killed.
#[tokio::test]
async fn child_dies_when_the_test_process_is_killed() {
    if std::env::var_os("FAULTS_PARENT").is_some() {
        let child = Child::spawn(shell("echo up; sleep 60")).unwrap();
        child.output().line(|line| line == "up").await.unwrap();
        println!("child {} ends here", child.id());
        child.wait().await;
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "child::tests::child_dies_when_the_test_process_is_killed",
            "--nocapture",
        ])
        .env("FAULTS_PARENT", "1");
    let parent = Child::spawn(command).unwrap();
    let line = parent.output().line(|line| line.contains("ends here")).await.unwrap();
    let pid = line.split_once("child ").unwrap().1.split(' ').next().unwrap().to_owned();
    assert!(is_alive(&pid));
    parent.kill9().await;
    wait_until_dead(&pid).await;
}
