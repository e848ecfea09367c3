//! The arrows between crates: which may import which.
//!
//! `deny.toml` says the same to `cargo deny`; this test needs no tool beyond
//! cargo and names the rule that is broken.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

const SHARED: &[&str] = &[
    "slipway-api",
    "slipway-aws",
    "slipway-blobstore",
    "slipway-bus",
    "slipway-context",
    "slipway-domain",
    "slipway-oci",
    "slipway-runtime",
    "slipway-seal",
    "slipway-tls",
];

/// What each crate may import of the workspace. Arrows point only towards
/// `shared`, and within it towards the pure crates; scheduler and worker meet
/// in the messages of `slipway-domain` and never import each other.
fn allowed(package: &str) -> Option<Vec<&'static str>> {
    Some(match package {
        "slipway-aws" | "slipway-faults" | "slipway-oci" | "slipway-runtime" | "slipway-tls" => {
            vec![]
        }
        "slipway-testkit" => vec!["slipway-faults"],
        "slipway-domain" | "slipway-blobstore" | "slipway-context" | "slipway-source" => {
            vec!["slipway-oci"]
        }
        "slipway-seal" => vec!["slipway-domain"],
        "slipway-ecr" => vec!["slipway-aws"],
        "slipway-api" | "slipway-bus" => vec!["slipway-domain", "slipway-oci"],
        "slipway-registry" | "slipway-buildkit" | "slipway-uploads" => SHARED.to_vec(),
        "slipway-scheduler" => [SHARED, &["slipway-uploads"]].concat(),
        "slipway-worker" => {
            [SHARED, &["slipway-buildkit", "slipway-ecr", "slipway-registry", "slipway-source"]]
                .concat()
        }
        "slipway-chaos" => [SHARED, &["slipway-faults"]].concat(),
        "slipway-loadtest" => {
            vec!["slipway-api", "slipway-bus", "slipway-domain", "slipway-faults", "slipway-oci"]
        }
        "slipway" => [
            SHARED,
            &["slipway-buildkit", "slipway-registry", "slipway-scheduler", "slipway-worker"],
            &["slipway-chaos", "slipway-loadtest"],
        ]
        .concat(),
        _ => return None,
    })
}

/// Libraries with one door: only these crates may depend on them. Everyone
/// else speaks through the crate, so that its rules hold everywhere.
const DOORS: &[(&str, &str)] = &[
    ("age", "slipway-seal"),
    ("aws-sigv4", "slipway-aws"),
    ("async-nats", "slipway-bus"),
    ("object_store", "slipway-blobstore"),
    ("s3s", "slipway-uploads"),
    ("tonic", "slipway-buildkit"),
    ("bollard-buildkit-proto", "slipway-buildkit"),
    ("prost", "slipway-buildkit"),
    ("opentelemetry-otlp", "slipway-runtime"),
    ("opentelemetry-prometheus", "slipway-runtime"),
    ("tracing-opentelemetry", "slipway-runtime"),
    ("anyhow", "slipway"),
];

/// What the pure crates may depend on: types, and functions of their arguments.
const PURE: &[&str] =
    &["hex", "jiff", "serde", "serde_json", "sha2", "slipway-oci", "thiserror", "uuid"];

/// Words of clock, randomness and input or output, which pure crates do not say.
const IMPURE: &[&str] = &[
    "::now(",
    "::now_v7(",
    "::new_v4(",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

fn workspace() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
    let mut command = MetadataCommand::new();
    command
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--locked".into(), "--offline".into()]);
    command.exec().unwrap()
}

/// The names of what a package depends on when it is built for use.
fn imports(package: &Package) -> impl Iterator<Item = &str> {
    let used = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
    used.map(|dependency| dependency.name.as_str())
}

fn ours(name: &str) -> bool {
    name == "slipway" || name.starts_with("slipway-")
}

fn assert_none(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_crate_has_its_arrows_named() {
    let workspace = workspace();
    let unnamed =
        workspace.workspace_packages().into_iter().map(|package| package.name.to_string());
    let unnamed = unnamed.filter(|name| allowed(name).is_none());
    let text = |name| format!("{name}: say in `allowed` of this test what it may import");
    assert_none(&unnamed.map(text).collect::<Vec<_>>());
}

#[test]
fn arrows_point_only_towards_shared() {
    let mut broken = Vec::new();
    for package in workspace().workspace_packages() {
        let allowed = allowed(&package.name).unwrap_or_default();
        for import in imports(package).filter(|name| ours(name) && !allowed.contains(name)) {
            broken.push(format!("{} must not import {import}", package.name));
        }
    }
    assert_none(&broken);
}

#[test]
fn tests_import_no_other_role() {
    let mut broken = Vec::new();
    for package in workspace().workspace_packages() {
        let development = package.dependencies.iter();
        let development = development.filter(|d| d.kind == DependencyKind::Development);
        for dependency in development.filter(|dependency| ours(&dependency.name)) {
            let name = dependency.name.as_str();
            let role = matches!(name, "slipway" | "slipway-scheduler" | "slipway-worker");
            if role && package.name.as_str() != "slipway" {
                broken.push(format!("the tests of {} must not import {name}", package.name));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn testkit_is_for_tests_only() {
    let mut broken = Vec::new();
    for package in workspace().workspace_packages() {
        if imports(package).any(|name| name == "slipway-testkit") {
            broken.push(format!("{} must have slipway-testkit in dev-dependencies", package.name));
        }
    }
    assert_none(&broken);
}

#[test]
fn libraries_with_one_door_have_no_other() {
    let mut broken = Vec::new();
    for package in workspace().workspace_packages() {
        for import in imports(package) {
            let door = DOORS.iter().find(|(library, _)| *library == import);
            if let Some((library, door)) = door.filter(|(_, door)| package.name.as_str() != *door) {
                broken.push(format!("{} must not import {library}: only {door} may", package.name));
            }
        }
    }
    assert_none(&broken);
}

#[test]
fn pure_crates_depend_on_nothing_impure() {
    let mut broken = Vec::new();
    for package in pure(&workspace()) {
        for import in imports(&package).filter(|import| !PURE.contains(import)) {
            broken.push(format!("{} is pure and must not import {import}", package.name));
        }
    }
    assert_none(&broken);
}

#[test]
fn pure_crates_use_no_clock_randomness_or_files() {
    let mut broken = Vec::new();
    for package in pure(&workspace()) {
        let source = package.manifest_path.parent().unwrap().join("src");
        for file in rust_files(source.as_std_path()) {
            let text = fs::read_to_string(&file).unwrap();
            // Tests of pure code may read sample files.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| code.contains(**word)) {
                broken.push(format!("{} is pure and must not use `{word}`", file.display()));
            }
        }
    }
    assert_none(&broken);
}

fn pure(workspace: &Metadata) -> Vec<Package> {
    let packages = workspace.workspace_packages().into_iter();
    let pure = packages.filter(|p| matches!(p.name.as_str(), "slipway-domain" | "slipway-oci"));
    pure.cloned().collect()
}

/// The Rust files under a folder, without those that are only tests.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
    found
}
