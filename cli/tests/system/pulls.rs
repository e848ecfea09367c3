//! Snapshots of registry images.

use std::process::Command;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use slipway_api::registries::WriteDockerRegistry;
use slipway_api::types::{CreateSnapshot, Snapshot};
use slipway_domain::{FailureKind, LogEvent};
use slipway_testkit::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth, stack};

use crate::cluster::{Cluster, assert_gapless, line};
use crate::issuer::Issuer;

/// A pull into `us`.
pub fn wanted(name: &str, image: &str) -> CreateSnapshot {
    CreateSnapshot {
        name: name.into(),
        image_name: Some(image.into()),
        region_id: Some("us".into()),
        ..CreateSnapshot::default()
    }
}

/// Creates it and waits for its end.
pub async fn pulled(cluster: &Cluster, wanted: &CreateSnapshot) -> Snapshot {
    let snapshot = cluster.client.create_snapshot(wanted).await.unwrap();
    cluster.ended(&snapshot.id).await
}

fn skopeo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("skopeo").args(arguments).output();
    let output = output.expect("skopeo is there: run `make deps`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn an_image_becomes_an_active_snapshot_unchanged() {
    let cluster = Cluster::start().await;
    let image = stack::base_image();
    let snapshot = cluster.client.create_snapshot(&wanted("base", &image)).await.unwrap();
    let log = cluster.log(&snapshot).await;
    let snapshot = cluster.ended(&snapshot.id).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!((&snapshot.image_name, &snapshot.build_info), (&image, &None));
    assert_eq!(cluster.job(&snapshot).await.kind, "pull");
    assert_gapless(&log);
    let lines: Vec<_> = log.iter().filter_map(line).collect();
    assert_eq!(lines[0], format!("#1 resolve {image}"));
    let counted = log.iter().any(|entry| {
        matches!(&entry.event, LogEvent::Step(step) if step.part.is_some() && step.total.is_some())
    });
    assert!(counted, "{log:?}");

    // The bytes of the manifest, and so of everything below it, are the source's.
    let from = format!("docker://{image}");
    let source = skopeo(&["inspect", "--raw", "--tls-verify=false", &from]);
    let reference = format!("docker://{}", snapshot.reference.as_ref().unwrap());
    let creds = format!("any:{}", cluster.key);
    let ours = skopeo(&["inspect", "--raw", "--tls-verify=false", "--creds", &creds, &reference]);
    assert_eq!(ours, source);
    let manifest: Value = serde_json::from_slice(&source).unwrap();
    assert!(manifest["layers"].is_array(), "{manifest}");

    let again = CreateSnapshot {
        entrypoint: Some(vec!["sleep".into(), "7".into()]),
        ..wanted("again", &format!("{image}@{}", snapshot.digest.as_ref().unwrap()))
    };
    let again = pulled(&cluster, &again).await;
    assert_eq!((&again.state[..], &again.digest), ("active", &snapshot.digest));
    assert_eq!(again.entrypoint.as_ref().unwrap(), &["sleep", "7"]);
    let job = cluster.job(&again).await;
    assert_eq!(job.cached_steps, job.total_steps);
}

#[tokio::test]
async fn a_private_image_needs_the_credential_of_its_organization() {
    let cluster = Cluster::start().await;
    let registry = DockerRegistry::start(RegistryAuth::Password).await;
    let image = format!("{}/private/base:1", registry.address());
    let creds = format!("tester:{REGISTRY_PASSWORD}");
    let (from, to) = (format!("docker://{}", stack::base_image()), format!("docker://{image}"));
    let plain = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&plain[..], &["--dest-creds", &creds, &from, &to]].concat());

    let before = pulled(&cluster, &wanted("before", &image)).await;
    assert_eq!(before.state, "error");
    let failure = cluster.job(&before).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::RegistryUnauthorized);

    let credential = WriteDockerRegistry {
        name: "own".into(),
        url: format!("http://{}", registry.address()),
        username: "tester".into(),
        password: Some(REGISTRY_PASSWORD.to_owned().into()),
        project: None,
    };
    cluster.client.create_docker_registry(&credential).await.unwrap();
    let after = pulled(&cluster, &wanted("after", &image)).await;
    assert_eq!(after.state, "active", "{:?}", after.error_reason);
}

/// A token server for `tester` with the password of test registries.
#[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
async fn token_server(issuer: Issuer) -> String {
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("tester:{REGISTRY_PASSWORD}")));
    let issuer = std::sync::Arc::new(issuer);
    let answer = async move |headers: HeaderMap, uri: Uri| {
        let shown = headers.get("authorization").and_then(|value| value.to_str().ok());
        match shown == Some(&*login) {
            true => {
                let token = issuer.token(uri.query().unwrap_or_default());
                Json(serde_json::json!({ "token": token })).into_response()
            }
            false => StatusCode::UNAUTHORIZED.into_response(),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let routes = axum::Router::new().fallback(axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    realm
}

// The token server has to answer while skopeo pushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_opens_a_registry_that_wants_tokens() {
    let cluster = Cluster::start().await;
    let issuer = Issuer::new();
    let certificate = issuer.certificate();
    let realm = token_server(issuer).await;
    let registry = DockerRegistry::start(RegistryAuth::Token { realm, certificate }).await;
    let image = format!("{}/team/private:1", registry.address());
    let creds = format!("tester:{REGISTRY_PASSWORD}");
    let (from, to) = (format!("docker://{}", stack::base_image()), format!("docker://{image}"));
    let plain = ["copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    skopeo(&[&plain[..], &["--dest-creds", &creds, &from, &to]].concat());

    let mut credential = WriteDockerRegistry {
        name: "tokens".into(),
        url: registry.address().to_string(),
        username: "tester".into(),
        password: Some("wrong".to_owned().into()),
        project: None,
    };
    let made = cluster.client.create_docker_registry(&credential).await.unwrap();
    let refused = pulled(&cluster, &wanted("refused", &image)).await;
    let failure = cluster.job(&refused).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::RegistryUnauthorized, "{failure:?}");

    credential.password = Some(REGISTRY_PASSWORD.to_owned().into());
    cluster.client.update_docker_registry(&made.id, &credential).await.unwrap();
    let snapshot = pulled(&cluster, &wanted("opened", &image)).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
}

#[tokio::test]
async fn what_cannot_be_pulled_says_why() {
    let cluster = Cluster::start().await;
    for image in ["node:latest", "node:lts", "node", "team/App:1", ""] {
        let refused = cluster.client.create_snapshot(&wanted("x", image)).await.unwrap_err();
        assert_eq!(refused.status(), Some(400), "{image}");
    }
    let missing = format!("{}/slipway/none:1", stack::registry());
    let snapshot = pulled(&cluster, &wanted("missing", &missing)).await;
    assert_eq!(snapshot.state, "error");
    let reason = snapshot.error_reason.as_deref().unwrap();
    assert!(reason.contains("`slipway/none:1` was not found in the registry"), "{reason}");
    let job = cluster.job(&snapshot).await;
    assert_eq!(job.failure.unwrap().kind, FailureKind::ImageNotFound);
    assert_eq!(job.attempts.len(), 1);
}
