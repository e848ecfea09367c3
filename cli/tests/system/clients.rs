//! Daytona's own clients, unmodified from PyPI and npm, against a whole Slipway.
//!
//! Each runs with the cluster's authority on its list of authorities, in a mount
//! namespace of its own: the machine's list stays as it is. A client has to end by
//! itself, say nothing on standard error, and see what the snapshots of these tests
//! say.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use slipway_testkit::stack;
use tokio::io::AsyncWriteExt as _;

use crate::cluster::{Cluster, Plan};
use crate::door;

/// A client that does not end by then hangs. On a busy machine the first build on
/// Debian, with what it fetches, takes minutes.
const LIMIT: Duration = Duration::from_secs(540);

/// The kinds of clients, as their scripts name them.
#[derive(Clone, Copy)]
pub enum Kind {
    Blocking,
    Asynchronous,
    TypeScript,
}

impl Kind {
    /// The SDK, as the snapshots are called after it.
    fn sdk(self) -> &'static str {
        match self {
            Self::Blocking | Self::Asynchronous => "python",
            Self::TypeScript => "typescript",
        }
    }

    /// The program, the script and what comes before the scenario's name.
    fn command(self, clients: &Path) -> Vec<OsString> {
        let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
        let python = |mode: &str| {
            let program = clients.join("python/bin/python").into_os_string();
            vec![program, "-I".into(), format!("{tests}/scenarios.py").into(), mode.into()]
        };
        match self {
            Self::Blocking => python("sync"),
            Self::Asynchronous => python("async"),
            Self::TypeScript => vec!["node".into(), format!("{tests}/scenarios.cjs").into()],
        }
    }
}

/// Runs a scenario and returns what the client saw.
async fn run(cluster: &Cluster, kind: Kind, scenario: &str) -> Value {
    run_trusting(cluster.folder(), cluster, kind, scenario).await
}

/// The same with the authority of another folder.
async fn run_trusting(authority: &Path, cluster: &Cluster, kind: Kind, scenario: &str) -> Value {
    let clients = stack::folder().join("clients");
    assert!(clients.join("node/.complete").exists(), "no clients here. Remedy: `make deps`");
    let mut command = tokio::process::Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$1\" \"$2\" && shift 2 && exec \"$@\""]);
    command.arg("sh").arg(door::list(authority)).arg(door::LIST);
    command.args(kind.command(&clients)).arg(scenario).current_dir(cluster.folder());
    // Amazon's client has opinions about the age of Node; they are not ours to test.
    command.env("AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED", "true");
    // Node has a list of its own, and adds this one.
    command.env("NODE_EXTRA_CA_CERTS", authority.join("authority.pem"));
    for (name, _) in std::env::vars() {
        if ["AWS_", "DAYTONA_", "SLIPWAY_"].iter().any(|prefix| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let told = json!({
        "api": format!("http://{}/api", cluster.api),
        "key": cluster.key,
        "image": stack::base_image(),
        "modules": clients.join("node"),
        "marker": uuid::Uuid::new_v4().to_string(),
    });
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(told.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
    let output = ended.expect("the client ends by itself").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{scenario}: {errors}");
    assert_eq!(errors, "", "{scenario}: a client has nothing to complain about");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Takes what differs between runs out of texts.
fn settled(value: &mut Value) {
    match value {
        Value::String(text) => *text = text.replace(&stack::registry(), "REGISTRY"),
        Value::Array(items) => items.iter_mut().for_each(settled),
        Value::Object(fields) => fields.values_mut().for_each(settled),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

async fn check(kind: Kind, scenario: &str, plan: Plan) {
    let cluster = Cluster::with(plan).await;
    check_on(&cluster, cluster.folder(), kind, scenario).await;
}

/// Runs a scenario against a cluster, whose uploads this folder's authority vouches for.
pub async fn check_on(cluster: &Cluster, authority: &Path, kind: Kind, scenario: &str) {
    let mut seen = run_trusting(authority, cluster, kind, scenario).await;
    settled(&mut seen);
    insta::assert_json_snapshot!(format!("{}-{scenario}", kind.sdk()), seen);
}

/// The stack's registry stands for Docker Hub, with an image under the name that this
/// client's `debian_slim` asks for. pip fetches from PyPI itself.
async fn check_debian_slim(kind: Kind) {
    let mirrors = format!("[source]\nmirrors = {{ \"docker.io\" = [{:?}] }}\n", stack::registry());
    let cluster = Cluster::with(Plan { worker_tables: mirrors, ..Plan::default() }).await;
    let name = run(&cluster, kind, "debian_slim_name").await;
    let tag = name.as_str().and_then(|name| name.strip_prefix("python:"));
    tag_python(tag.unwrap_or_else(|| panic!("{name} is an image of Docker Hub"))).await;
    let mut seen = run(&cluster, kind, "debian_slim").await;
    settled(&mut seen);
    insta::assert_json_snapshot!(format!("{}-debian_slim", kind.sdk()), seen);
}

/// Gives the stack's image with Python another tag.
async fn tag_python(tag: &str) {
    let http = reqwest::Client::new();
    let from = stack::python_manifest();
    let (all, _) = from.rsplit_once('/').unwrap();
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let there = http.get(&from).header("accept", manifest).send().await.unwrap();
    let there =
        there.error_for_status().expect("the image is there. Remedy: `deploy/dev/stack start`");
    let body = there.bytes().await.unwrap();
    let put = http.put(format!("{all}/{tag}")).header("content-type", manifest).body(body);
    put.send().await.unwrap().error_for_status().unwrap();
}

fn gpus() -> Plan {
    Plan { workers: vec![("us", 1), ("us-east-1", 1)], ..Plan::default() }
}

fn one_snapshot() -> Plan {
    Plan { tables: "[limits]\nsnapshots = 1\n", ..Plan::default() }
}

macro_rules! scenarios {
    ($module:ident, $kind:expr) => {
        mod $module {
            use super::{Kind, Plan, check, check_debian_slim, gpus, one_snapshot};

            #[tokio::test]
            async fn an_image_becomes_a_snapshot_and_goes() {
                check($kind, "images", Plan::default()).await;
            }

            #[tokio::test]
            async fn a_declared_image_brings_files_and_folders() {
                check($kind, "declared", Plan::default()).await;
            }

            #[tokio::test]
            async fn a_dockerfile_brings_what_it_copies() {
                check($kind, "dockerfile", Plan::default()).await;
            }

            #[tokio::test]
            async fn debian_slim_comes_from_a_mirror_and_pip_installs() {
                check_debian_slim($kind).await;
            }

            #[tokio::test]
            async fn lists_have_pages() {
                check($kind, "pages", Plan::default()).await;
            }

            #[tokio::test]
            async fn what_rests_is_activated() {
                check($kind, "activate", Plan::default()).await;
            }

            #[tokio::test]
            async fn a_gpu_is_there_where_it_is() {
                check($kind, "gpu", gpus()).await;
            }

            #[tokio::test]
            async fn a_quota_is_a_quota() {
                check($kind, "quota", one_snapshot()).await;
            }

            #[tokio::test]
            async fn every_error_is_an_error_of_the_client() {
                check($kind, "errors", Plan::default()).await;
            }
        }
    };
}

/// Its contexts are archives without an end, beside empty objects for their folders.
#[tokio::test]
async fn what_the_command_line_uploads_is_united() {
    check(Kind::TypeScript, "command_line", Plan::default()).await;
}

scenarios!(python_blocking, Kind::Blocking);
scenarios!(python_asynchronous, Kind::Asynchronous);
scenarios!(typescript, Kind::TypeScript);
