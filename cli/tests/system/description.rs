//! The description of the API, held against the server: whatever schemathesis
//! (from PyPI) makes of it, the server answers as it is described, and never
//! with a fault of its own.

use std::process::Command;
use std::time::Duration;

use slipway_testkit::stack;

use crate::cluster::{Cluster, Plan};

/// What is held against the answers.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance";
/// 501 is what is not offered, and 503 what needs a worker, of which there is none:
/// both are described, and both say so. Anything else of that kind is a fault.
const SETTINGS: &str = r#"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", "501", "503"]
"#;
/// Operations that are left to other tests. It cannot make tars; a log that is followed
/// ends with its job, and no worker runs any; and it learns names from answers, so it
/// would revoke the very key that it shows, or suspend its own organization. (One
/// option, since it leaves out only what matches all of several.)
const LEFT_OUT: &str = "^(put_api_v1_contexts_hash|get_.*logs|delete_.*api_keys_name|\
                        post_.*suspend)$";
/// Longer than this nothing is allowed to take.
const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn the_server_answers_as_its_description_says() {
    // Nothing is to be built.
    let cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    let program = stack::folder().join("clients/schemathesis/bin/schemathesis");
    assert!(program.exists(), "schemathesis is missing: run `make deps`");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("schemathesis.toml"), SETTINGS).unwrap();
    let mut command = Command::new(program);
    command
        .current_dir(folder.path())
        .arg("run")
        .arg(format!("http://{}/api/openapi.json", cluster.api))
        .args(["--header", &format!("Authorization: Bearer {}", cluster.key)])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args(["--max-examples", "20", "--seed", "7", "--generation-deterministic"])
        .args(["--suppress-health-check", "all"])
        .args(["--request-timeout", "60", "--workers", "1", "--no-color"])
        // Keys are not guessed: each request has a valid one.
        .args(["--generation-with-security-parameters", "false"])
        .args(["--exclude-operation-id-regex", LEFT_OUT])
        .env_remove("SCHEMATHESIS_HOOKS");
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(LIMIT, run).await.expect("schemathesis ends").unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{complaint}");
    // It did look, and was let in.
    assert!(told.contains("passed") && !told.contains("Authentication failed"), "{told}");
}
