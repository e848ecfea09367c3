//! The help texts, as users see them, and what wrong usage gives.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn slipway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slipway"))
        .args(args)
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn help_teaches() {
    for command in [
        "",
        "snapshot",
        "snapshot create",
        "snapshot list",
        "snapshot get",
        "snapshot logs",
        "snapshot activate",
        "snapshot deactivate",
        "snapshot delete",
        "job",
        "job list",
        "job show",
        "job cancel",
        "job dead",
        "job dead list",
        "job dead show",
        "job dead redrive",
        "job dead drop",
        "worker",
        "worker list",
        "region",
        "region list",
        "region rotate-key",
        "registry-credential",
        "registry-credential create",
        "registry-credential list",
        "registry-credential get",
        "registry-credential update",
        "registry-credential delete",
        "registry-credential test",
        "organization",
        "organization create",
        "organization list",
        "organization show",
        "organization set-limits",
        "organization suspend",
        "organization resume",
        "api-key",
        "api-key create",
        "api-key list",
        "api-key revoke",
        "loadtest",
        "loadtest builds",
        "loadtest chaos",
        "loadtest list",
        "loadtest logs",
        "completions",
    ] {
        let args: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let output = slipway(&args);
        assert!(output.status.success());
        let name = if command.is_empty() { "slipway" } else { command };
        insta::assert_snapshot!(format!("help {name}"), text(output.stdout));
    }
}

#[test]
fn wrong_usage_gives_64_and_says_what_is_wrong() {
    for (args, part) in [
        (&["snapshot", "create"][..], "<NAME>"),
        (&["snapshot", "create", "x", "--cpu", "many"], "invalid value 'many' for '--cpu"),
        (&["snapshots"], "unrecognized subcommand"),
        (&["snapshot", "delete"], "<NAME|ID>..."),
        (&[], "Usage: slipway <COMMAND>"),
    ] {
        let output = slipway(args);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        let complaint = text(output.stderr);
        assert!(complaint.contains(part), "{complaint}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_missing_setting_gives_64_and_the_remedy() {
    let output = slipway(&["snapshot", "list"]);
    assert_eq!(output.status.code(), Some(64));
    insta::assert_snapshot!("no server", text(output.stderr));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = slipway(&["completions", shell]);
        assert!(output.status.success());
        assert!(text(output.stdout).contains("build-arg"), "{shell}");
    }
}

#[test]
fn the_version_is_told() {
    let output = slipway(&["--version"]);
    let version = concat!("slipway ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(text(output.stdout), version);
}
