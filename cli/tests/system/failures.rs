//! Builds that fail by their own fault: typed, readable, and over.

use slipway_api::own::Job;
use slipway_api::types::{CreateBuildInfo, Snapshot};
use slipway_domain::failure::FailureKind;
use slipway_testkit::stack;

use crate::cluster::{Cluster, LIMIT, Plan, assert_gapless, dockerfile, line};

async fn fails(cluster: &Cluster, name: &str, build: CreateBuildInfo) -> (Snapshot, Job) {
    let (snapshot, log) = cluster.build(name, build).await;
    let job = cluster.job(&snapshot).await;
    assert_eq!(job.state, "failed", "{job:?}");
    assert_eq!(job.attempts.len(), 1, "the user's own fault is not tried again");
    assert_gapless(&log);
    let reason = snapshot.error_reason.clone().unwrap();
    let end = log.last().map(|entry| &entry.event);
    let Some(slipway_domain::LogEvent::End { reason: Some(told), .. }) = end else {
        panic!("{end:?}")
    };
    assert_eq!(*told, reason, "the log ends with the reason");
    (snapshot, job)
}

fn text(dockerfile: &str) -> CreateBuildInfo {
    CreateBuildInfo { dockerfile_content: dockerfile.into(), ..CreateBuildInfo::default() }
}

#[tokio::test]
async fn a_failing_step_names_line_command_and_exit_code() {
    let cluster = Cluster::start().await;
    let build = dockerfile("RUN echo fine\nRUN echo before && \\\n    exit 42");
    let (snapshot, job) = fails(&cluster, "run", build).await;
    assert_eq!(snapshot.state, "build_failed");
    let failure = job.failure.unwrap();
    assert_eq!((failure.kind, failure.exit_code), (FailureKind::RunFailed, Some(42)));
    let location = failure.location.unwrap();
    assert_eq!(location.line, 4);
    assert!(location.snippet.starts_with("RUN echo before"), "{}", location.snippet);
    let reason = snapshot.error_reason.unwrap();
    assert!(reason.contains("exit code 42") && reason.contains("echo before"), "{reason}");
}

#[tokio::test]
async fn a_syntax_error_has_line_and_column() {
    let cluster = Cluster::start().await;
    let build = text(&format!("FROM {}\nRUN true\nCOPPY a b\n", stack::base_image()));
    let (snapshot, job) = fails(&cluster, "syntax", build).await;
    assert_eq!(snapshot.state, "build_failed");
    let failure = job.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::DockerfileInvalid);
    let location = failure.location.unwrap();
    assert_eq!((location.line, location.column), (3, Some(1)));
    assert!(failure.message.contains("COPPY"), "{}", failure.message);
}

#[tokio::test]
async fn an_unknown_base_image_is_named() {
    let cluster = Cluster::start().await;
    let base = format!("{}/slipway/no-such-image:1", stack::registry());
    let (snapshot, job) = fails(&cluster, "base", text(&format!("FROM {base}\n"))).await;
    assert_eq!(snapshot.state, "build_failed");
    assert_eq!(job.failure.unwrap().kind, FailureKind::BaseImageUnavailable);
    assert!(snapshot.error_reason.unwrap().contains(&base));
}

#[tokio::test]
async fn a_copy_of_a_missing_file_names_it() {
    let cluster = Cluster::start().await;
    let (snapshot, job) = fails(&cluster, "copy", dockerfile("COPY not-there.txt /")).await;
    assert_eq!(snapshot.state, "build_failed");
    let failure = job.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::CopySourceMissing);
    assert_eq!(failure.location.unwrap().line, 3);
    assert!(failure.message.contains("not-there.txt"), "{}", failure.message);
}

#[tokio::test]
async fn a_context_that_was_never_uploaded_is_missed() {
    let cluster = Cluster::start().await;
    let hash = "ab".repeat(32);
    let build = CreateBuildInfo { context_hashes: vec![hash.clone()], ..dockerfile("RUN true") };
    let (snapshot, job) = fails(&cluster, "context", build).await;
    assert_eq!(snapshot.state, "error");
    assert_eq!(job.failure.unwrap().kind, FailureKind::ContextMissing);
    let reason = snapshot.error_reason.unwrap();
    assert!(reason.contains(&hash) && reason.contains("upload"), "{reason}");
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_stopped() {
    let cluster = Cluster::with(Plan { time_limit: "3s", ..Plan::default() }).await;
    let (snapshot, job) = fails(&cluster, "slow", dockerfile("RUN echo going; sleep 600")).await;
    assert_eq!(snapshot.state, "error");
    assert_eq!(job.failure.unwrap().kind, FailureKind::TimedOut);
    assert!(snapshot.error_reason.unwrap().contains("longer than 3 s"));
}

#[tokio::test]
async fn bad_requests_are_refused_at_the_edge() {
    let cluster = Cluster::start().await;
    let post = async |body: &str| {
        let url = format!("http://{}/api/snapshots", cluster.api);
        let request = reqwest::Client::new().post(url).bearer_auth(&cluster.key);
        let request = request.header("content-type", "application/json").body(body.to_owned());
        let response = request.timeout(LIMIT).send().await.unwrap();
        let status = response.status().as_u16();
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body["statusCode"], status);
        assert_eq!(body["path"], "/api/snapshots");
        assert!(body["timestamp"].is_string() && body["error"].is_string());
        (status, body["message"].as_str().unwrap().to_owned())
    };
    for (body, status, word) in [
        ("{", 400, "JSON"),
        (r#"{"name": "x"}"#, 400, "buildInfo"),
        (r#"{"name": "no good", "buildInfo": {"dockerfileContent": "FROM a"}}"#, 400, "name"),
        (r#"{"name": "x", "buildInfo": {"dockerfileContent": " "}}"#, 400, "empty"),
        (r#"{"name": "x", "cpu": 99, "buildInfo": {"dockerfileContent": "FROM a"}}"#, 400, "CPU"),
        (
            r#"{"name": "x", "entrypoint": ["a"], "buildInfo": {"dockerfileContent": "FROM a"}}"#,
            400,
            "ENTRYPOINT",
        ),
    ] {
        let (got, message) = post(body).await;
        assert_eq!(got, status, "{body}: {message}");
        assert!(message.contains(word), "{body}: {message}");
    }
    cluster.submit("taken", dockerfile("RUN true")).await;
    let taken = r#"{"name": "taken", "buildInfo": {"dockerfileContent": "FROM a"}}"#;
    assert_eq!(post(taken).await.0, 409);
}

#[tokio::test]
async fn control_sequences_and_carriage_returns_are_made_safe() {
    let cluster = Cluster::start().await;
    let build = dockerfile(
        r#"RUN printf 'a\033[31mred\033[0m\033]0;title\007\n 10%%\r 50%%\r100%%\nbell\007 tab\tend\n'"#,
    );
    let (snapshot, log) = cluster.build("control", build).await;
    assert_eq!(snapshot.state, "active");
    for text in log.iter().filter_map(line) {
        assert!(!text.chars().any(|c| c.is_control() && c != '\t'), "{text:?}");
    }
    let text: Vec<_> = log.iter().filter_map(line).collect();
    assert!(text.iter().any(|line| line.ends_with("ared")), "{text:?}");
    assert!(text.iter().any(|line| line.ends_with("100%")), "{text:?}");
}
