//! A pull from a private registry of Amazon ECR: moto plays STS and ECR, and a
//! real registry stands behind a proxy that knows its name.

use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use slipway_api::registries::WriteDockerRegistry;
use slipway_api::types::{CreateSnapshot, Snapshot};
use slipway_domain::FailureKind;
use slipway_testkit::{Child, DockerRegistry, RegistryAuth, stack};

use crate::amazon;
use crate::cluster::{Cluster, Plan, eventually};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/pull";
/// What moto's tokens hold.
const LOGIN: &str = "AWS:123456789012-auth-token";

/// AWS and its registry, by plain HTTP: what asks for `HOST` gets the registry,
/// if it shows the password, and the rest is moto's.
#[derive(Clone)]
struct Amazon {
    moto: String,
    registry: String,
    /// Bodies of what was sent to STS and ECR.
    calls: Arc<Mutex<Vec<String>>>,
}

impl Amazon {
    #[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
    async fn start(registry: &DockerRegistry) -> (Self, String) {
        let moto = amazon::moto();
        let registry = format!("http://{}", registry.address());
        let amazon = Self { moto, registry, calls: Arc::default() };
        let routes = axum::Router::new().fallback(forward).with_state(amazon.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (amazon, url)
    }
}

async fn forward(
    State(amazon): State<Amazon>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    // The client tries TLS first, which this proxy does not tunnel.
    if method == Method::CONNECT {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let is_registry = headers["host"] == HOST;
    let upstream = if is_registry { &amazon.registry } else { &amazon.moto };
    if is_registry {
        let login = format!("Basic {}", BASE64_STANDARD.encode(LOGIN));
        if headers.get("authorization").is_none_or(|shown| shown != &login) {
            let challenge = [("www-authenticate", "Basic realm=\"https://ecr\",service=\"ecr\"")];
            return (StatusCode::UNAUTHORIZED, challenge).into_response();
        }
    } else {
        amazon.calls.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
    }
    let left_out = if is_registry { &["host", "authorization"][..] } else { &["host"] };
    amazon::pass_on(upstream, method, &uri, &headers, left_out, body).await
}

/// A worker of `us` for which AWS, and nothing else, lies behind `amazon`.
async fn worker(cluster: &Cluster, amazon: &str) -> Child {
    let file = |name: &str| cluster.folder().join(name).display().to_string();
    std::fs::write(file("aws-secret"), "worker-secret").unwrap();
    let stores = cluster.store("us");
    let text = format!(
        "id = \"us-aws\"\nregion = \"us\"\nnats = [{:?}]\nbuildkit = {:?}\n\
         store = \"file://{}\"\ncontexts = \"file://{}\"\nidentity_file = {:?}\n\
         [source]\ninsecure = [{HOST:?}]\n\
         [ecr]\naccess_key_id = \"test\"\nsecret_access_key_file = {:?}\n\
         sts_endpoint = {amazon:?}\necr_endpoint = {amazon:?}\n",
        cluster.nats.url(),
        stack::buildkit_endpoint(),
        stores.display(),
        stores.parent().unwrap().join("contexts").display(),
        cluster.identities("us"),
        file("aws-secret"),
    );
    std::fs::write(file("worker-aws.toml"), text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(["worker", "run", "--config", &file("worker-aws.toml")]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, amazon);
    }
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").env_remove("RUST_LOG");
    let worker = Child::spawn(command).unwrap();
    worker.output().line(|line| line.contains("the worker serves")).await.unwrap();
    eventually("the worker is listed", async || {
        let workers = cluster.client.workers().await.unwrap();
        workers.iter().any(|worker| worker.id == "us-aws").then_some(())
    })
    .await;
    worker
}

async fn pulled(cluster: &Cluster, name: &str) -> Snapshot {
    let wanted = CreateSnapshot {
        name: name.into(),
        image_name: Some(format!("{HOST}/team/app:1")),
        region_id: Some("us".into()),
        ..CreateSnapshot::default()
    };
    let snapshot = cluster.client.create_snapshot(&wanted).await.unwrap();
    cluster.ended(&snapshot.id).await
}

#[tokio::test]
async fn an_image_of_amazon_ecr_is_pulled_by_the_role_of_its_owner() {
    let cluster = Cluster::with(Plan { workers: vec![], ..Plan::default() }).await;
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let copied = Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false"])
        .arg(format!("docker://{}", stack::base_image()))
        .arg(format!("docker://{}/team/app:1", registry.address()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let (amazon, url) = Amazon::start(&registry).await;
    let worker = worker(&cluster, &url).await;

    // The worker's own identity is nobody's credential.
    let before = pulled(&cluster, "before").await;
    let failure = cluster.job(&before).await.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::RegistryUnauthorized, "{failure:?}");
    assert_eq!(amazon.calls.lock().unwrap().len(), 0);

    let credential = WriteDockerRegistry {
        name: "ecr".into(),
        url: HOST.into(),
        username: ROLE.into(),
        password: None,
        project: None,
    };
    let made = cluster.client.create_docker_registry(&credential).await.unwrap();
    let snapshot = pulled(&cluster, "after").await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let tested = cluster.client.test_docker_registry(&made.id, Some("us")).await.unwrap();
    assert!(tested.works, "{tested:?}");

    let calls = amazon.calls.lock().unwrap().clone();
    let form: std::collections::BTreeMap<_, _> =
        url::form_urlencoded::parse(calls[0].as_bytes()).into_owned().collect();
    assert_eq!(form["Action"], "AssumeRole", "{calls:?}");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["ExternalId"], snapshot.organization_id);
    assert_eq!(form["RoleSessionName"], format!("daytona-{}-pull", snapshot.organization_id));
    for secret in ["worker-secret", "123456789012-auth-token"] {
        let said = worker.output().lines().join("\n");
        assert!(!said.contains(secret), "{said}");
        assert!(calls.iter().all(|call| !call.contains(secret)));
    }
}
