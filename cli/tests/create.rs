//! The commands against a server that plays its part: what reaches it, what is
//! printed, and the exit codes.

#![allow(clippy::unwrap_used)]

mod server;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use server::{Behaviour, Server};
use tempfile::TempDir;

fn slipway(server: &Server, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .args(args)
        .env_clear()
        .env("SLIPWAY_API_URL", server.url())
        .env("SLIPWAY_API_KEY", "dtn_key")
        .env("FROM_ENVIRONMENT", "value")
        .stdin(Stdio::null());
    command
}

fn run(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    finish(slipway(server, args).output().unwrap())
}

fn finish(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A context with something to ignore.
fn context() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write =
        |path: &str, content: &str| std::fs::write(folder.path().join(path), content).unwrap();
    write("Dockerfile", "FROM scratch\nCOPY app /app\n");
    write(".dockerignore", "secret\n");
    write("app", "hello");
    write("secret", "not for others");
    folder
}

fn create<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let folder = folder.to_str().unwrap();
    [&["snapshot", "create", "team/app:1", "--context", folder], more].concat()
}

/// Times, ids and sizes that differ from run to run.
fn steady(text: &str) -> String {
    let time = |line: &str| match line.trim_start().starts_with("time") {
        true => "  time    (time)".to_owned(),
        false => line.to_owned(),
    };
    text.lines().map(time).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_build_is_submitted_followed_and_summed_up() {
    let server = Server::start(Behaviour::default());
    let folder = context();
    let args = create(
        folder.path(),
        &[
            "--build-arg",
            "A=1",
            "--build-arg",
            "FROM_ENVIRONMENT",
            "--build-arg",
            "UNSET",
            "--target",
            "final",
            "--label",
            "who=me",
            "--region",
            "eu",
            "--cpu",
            "2",
            "--no-cache",
        ],
    );
    let (code, out, err) = run(&server, &args);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    insta::assert_snapshot!("plain success", steady(&out));

    let requests = server.seen();
    let mut wanted = requests.created[0].clone();
    let hashes = wanted["buildInfo"]["contextHashes"].take();
    insta::assert_json_snapshot!("request", wanted);
    let (hash, archive) = requests.contexts.iter().next().unwrap();
    assert_eq!(hashes, serde_json::json!([hash]));
    let names = archive.windows(6).filter(|window| window == b"secret").count();
    // Once in `.dockerignore`, never as an entry.
    assert_eq!(names, 1);
}

#[test]
fn an_image_is_asked_for_without_a_context() {
    let server = Server::start(Behaviour::default());
    let image = "ghcr.io/team/app:1.2";
    let args = ["snapshot", "create", "app", "--image", image, "--entrypoint", "sleep infinity"];
    let (code, out, err) = run(&server, &args);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let requests = server.seen();
    let wanted = serde_json::json!({
        "name": "app", "imageName": image, "entrypoint": ["sleep", "infinity"],
    });
    assert_eq!((requests.created[0].clone(), requests.uploads), (wanted, 0));
    for more in [["--context", "."], ["--target", "x"], ["-f", "Dockerfile"]] {
        let args = [&["snapshot", "create", "app", "--image", image][..], &more].concat();
        assert_eq!(run(&server, &args).0, Some(64), "{more:?}");
    }
    assert_eq!(run(&server, &["snapshot", "create", "app", "--entrypoint", "x"]).0, Some(64));
}

#[test]
fn a_context_that_the_server_has_is_not_sent_again() {
    let server = Server::start(Behaviour::default());
    let folder = context();
    let (_, first, _) = run(&server, &create(folder.path(), &[]));
    let (_, second, _) = run(&server, &create(folder.path(), &[]));
    assert!(first.contains("uploaded") && second.contains("the server has it already"), "{second}");
    assert_eq!(server.seen().uploads, 1);
}

#[test]
fn json_is_one_object_per_line() {
    let server = Server::start(Behaviour::default());
    let folder = context();
    let (code, out, err) = run(&server, &create(folder.path(), &["--json"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        ["context", "submitted", "job", "job", "log", "log", "log", "log", "result"]
    );
    let mut result = lines.last().unwrap().clone();
    result["seconds"].take();
    insta::assert_json_snapshot!("json result", result);
}

#[test]
fn a_build_that_fails_says_why_and_gives_1() {
    let server = Server::start(Behaviour { fails: true, ..Behaviour::default() });
    let folder = context();
    let (code, out, err) = run(&server, &create(folder.path(), &[]));
    assert_eq!(code, Some(1));
    assert!(out.contains("#3 hello from the build"));
    insta::assert_snapshot!("failure", steady(&err));
}

#[test]
fn a_cut_log_is_printed_without_gap_or_duplicate() {
    let whole = Server::start(Behaviour::default());
    let folder = context();
    let log = |out: String| -> Vec<String> {
        out.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect()
    };
    let (_, expected, _) = run(&whole, &create(folder.path(), &[]));
    let cut = Server::start(Behaviour { cuts_log: true, ..Behaviour::default() });
    let (code, out, err) = run(&cut, &create(folder.path(), &[]));
    assert_eq!(code, Some(0));
    assert_eq!(log(out), log(expected));
    assert!(err.contains("connection lost"), "{err}");
}

#[test]
fn detached_builds_print_their_id_last() {
    let server = Server::start(Behaviour::default());
    let folder = context();
    let (code, out, _) = run(&server, &create(folder.path(), &["--detach"]));
    assert_eq!((code, out.lines().last()), (Some(0), Some(server::SNAPSHOT)));
}

#[test]
fn ctrl_c_says_that_the_build_goes_on() {
    let server = Server::start(Behaviour { never_ends: true, ..Behaviour::default() });
    let folder = context();
    let mut command = slipway(&server, &create(folder.path(), &[]));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    server.wait_until_followed(Duration::from_secs(20));
    interrupt(child.id());
    let (code, _, err) = finish(child.wait_with_output().unwrap());
    assert_eq!(code, Some(130));
    insta::assert_snapshot!("interrupted", err);
}

#[test]
fn ctrl_c_before_the_request_leaves_nothing() {
    let server = Server::start(Behaviour::default());
    let mut command = slipway(&server, &["snapshot", "create", "x", "--dockerfile", "-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    // The handler is there once the signal no longer has its default effect.
    let status = format!("/proc/{}/status", child.id());
    let catches_it = || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & 0b10 != 0
    };
    while !catches_it() {
        std::thread::yield_now();
    }
    interrupt(child.id());
    let (code, _, err) = finish(child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!((code, err.as_str()), (Some(130), "\ninterrupted; nothing was submitted\n"));
    assert!(server.seen().created.is_empty());
}

fn interrupt(process: u32) {
    let process = Pid::from_raw(process.cast_signed()).unwrap();
    kill_process(process, Signal::INT).unwrap();
}

#[test]
fn exit_codes_tell_failures_apart() {
    let folder = context();
    for (status, expected) in [(401, 77), (403, 77), (409, 1), (400, 1), (503, 69)] {
        let server = Server::start(Behaviour { refuses: Some(status), ..Behaviour::default() });
        let (code, _, err) = run(&server, &create(folder.path(), &[]));
        assert_eq!(code, Some(expected), "{err}");
        assert!(err.contains(&format!("error: refused with {status}")), "{err}");
    }
    let server = Server::start(Behaviour::default());
    for args in [
        &["snapshot", "create", "x", "--context", "/does/not/exist", "-f", "/etc/hostname"][..],
        &["snapshot", "create", "x", "-f", "/does/not/exist"],
        &["snapshot", "create", "x", "-f", "/etc/hostname", "--label", "nonsense"],
        &["snapshot", "get", ".."],
    ] {
        let (code, _, err) = run(&server, args);
        assert_eq!(code, Some(64), "{err}");
    }
}

#[test]
fn a_server_that_is_away_gives_69() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(["region", "list"]).env_clear();
    command.env("DAYTONA_API_URL", &url).env("DAYTONA_API_KEY", "k");
    let (code, _, err) = finish(command.output().unwrap());
    assert_eq!(code, Some(69));
    assert!(err.starts_with(&format!("error: `{url}/api` cannot be reached\n")), "{err}");
    assert!(err.contains("hint: is the server running"), "{err}");
}

#[test]
fn lists_and_details_are_printed() {
    let server = Server::start(Behaviour::default());
    for (name, args) in [
        ("snapshot list", &["snapshot", "list"][..]),
        ("snapshot get json", &["snapshot", "get", "team/app:1", "--json"]),
        ("snapshot get", &["snapshot", "get", "team/app:1"]),
        ("job show", &["job", "show", server::JOB]),
        ("job list", &["job", "list"]),
        ("job dead list", &["job", "dead", "list"]),
        ("worker list", &["worker", "list"]),
        ("region list", &["region", "list"]),
        ("snapshot delete", &["snapshot", "delete", "team/app:1"]),
    ] {
        let (code, out, err) = run(&server, args);
        assert_eq!(code, Some(0), "{err}");
        insta::assert_snapshot!(name, out);
    }
}

#[test]
fn jobs_are_cancelled_redriven_and_dropped() {
    let server = Server::start(Behaviour::default());
    for (args, said) in [
        (&["job", "cancel"][..], "cancelled"),
        (&["job", "dead", "redrive"], "redriven"),
        (&["job", "dead", "drop"], "dropped"),
    ] {
        let (code, out, err) = run(&server, &[args, &[server::JOB]].concat());
        assert_eq!((code, out), (Some(0), format!("{said} {}\n", server::JOB)), "{err}");
        // One mistake does not keep the others.
        let (code, out, err) = run(&server, &[args, &["other", server::JOB]].concat());
        assert_eq!((code, out), (Some(1), format!("{said} {}\n", server::JOB)), "{err}");
        assert!(err.contains("error: other: job `other` is running"), "{err}");
    }
    let changed = ["cancel", "cancel", "redrive", "redrive", "drop", "drop"];
    assert_eq!(server.seen().changed, changed);
}

#[test]
fn workers_are_drained_and_used_again() {
    let server = Server::start(Behaviour::default());
    for (args, said) in [
        (&["eu-1"][..], "eu-1 is draining (1 running)\n"),
        (&["us-east-1-1", "--region", "us-east-1"], "us-east-1-1 is draining (1 running)\n"),
        (&["eu-1", "--undo"], "eu-1 takes jobs again\n"),
    ] {
        let (code, out, err) = run(&server, &[&["worker", "drain"], args].concat());
        assert_eq!((code, out.as_str(), err.as_str()), (Some(0), said, ""));
    }
    let changed = ["drain eu-1 -", "drain us-east-1-1 region=us-east-1", "undrain eu-1"];
    assert_eq!(server.seen().changed, changed);
}

#[test]
fn logs_are_printed_bare() {
    let server = Server::start(Behaviour::default());
    for args in
        [&["snapshot", "logs", "team/app:1"][..], &["snapshot", "logs", "-f", server::SNAPSHOT]]
    {
        let (code, out, _) = run(&server, args);
        assert_eq!(code, Some(0));
        assert_eq!(out, "#1 [1/2] FROM scratch\n#3 hello from the build\n#3 DONE 0.1s\n");
    }
    let from = ((1_u64 << 32) + 3).to_string();
    let (_, out, _) = run(&server, &["snapshot", "logs", "team/app:1", "--from", &from]);
    assert_eq!(out, "#3 DONE 0.1s\n");
    let (_, out, _) = run(&server, &["snapshot", "logs", "team/app:1", "--json"]);
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "end");
}

#[test]
fn on_a_terminal_the_build_is_shown_live() {
    let folder = context();
    for (fails, code, last) in [(false, 0, "is active"), (true, 1, "RUN make failed")] {
        let server = Server::start(Behaviour { fails, ..Behaviour::default() });
        let args = create(folder.path(), &[]).join(" ");
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("{} {args}", env!("CARGO_BIN_EXE_slipway")), "/dev/null"]);
        command.env("SLIPWAY_API_URL", server.url()).env("SLIPWAY_API_KEY", "dtn_key");
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdin(Stdio::null());
        let (exit, shown, _) = finish(command.output().unwrap());
        assert_eq!(exit, Some(code), "{shown}");
        assert!(shown.contains("\u{1b}["), "{shown}");
        for part in ["context: 3 entries", "#3 hello from the build", last] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}

#[test]
fn nobody_reading_ends_the_command_quietly() {
    let server = Server::start(Behaviour::default());
    let mut command = slipway(&server, &["snapshot", "logs", "team/app:1"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    let (code, _, err) = finish(output);
    assert_eq!((code, err.as_str()), (Some(141), ""));
}
