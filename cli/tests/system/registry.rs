//! The regional registry as clients use it: pushes with a token, pulls with a
//! key, over TLS, and what a pull says about a snapshot.

use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::StatusCode;
use slipway_api::types::RegistryPushAccess;
use slipway_bus::topology::{BucketName, keys};
use slipway_domain::organization::{ApiKeyRecord, key_hash};
use slipway_domain::push_token::PushTokenRecord;
use slipway_testkit::{Child, stack};

use crate::cluster::{Cluster, dockerfile, eventually, slipway};

async fn ask(cluster: &Cluster, key: &str, query: &str) -> reqwest::Response {
    let path = "docker-registry/registry-push-access";
    let url = format!("http://{}/api/{path}{query}", cluster.api);
    reqwest::Client::new().get(url).bearer_auth(key).send().await.unwrap()
}

pub async fn push_access(cluster: &Cluster) -> RegistryPushAccess {
    let answer = ask(cluster, &cluster.key, "?regionId=us").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["cache-control"], "no-store");
    answer.json().await.unwrap()
}

/// The docker client of the dev stack's engine, with a login of its own.
pub fn docker(config: &Path, arguments: &[&str]) -> Result<String, String> {
    let socket = stack::buildkit_endpoint();
    let socket = socket.strip_prefix("docker://").expect("the dev stack's BuildKit is an engine");
    let mut command = Command::new("docker");
    command.env("DOCKER_CONFIG", config).env("DOCKER_HOST", format!("unix://{socket}"));
    finish(command.args(arguments))
}

pub fn skopeo(arguments: &[&str]) -> Result<String, String> {
    finish(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

pub fn finish(command: &mut Command) -> Result<String, String> {
    let output = command.output().expect("docker and skopeo are there: run `make deps`");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[tokio::test]
async fn docker_logs_in_with_a_token_pushes_and_pulls() {
    let cluster = Cluster::start().await;
    let access = push_access(&cluster).await;
    let left = access.expires_at.as_second() - jiff::Timestamp::now().as_second();
    assert!((3500..=3600).contains(&left), "{left}");
    assert_eq!(access.registry_id, "us");

    let config = tempfile::tempdir().unwrap();
    let login = ["login", "-u", &access.username, "-p", &access.secret, &access.registry_url];
    docker(config.path(), &login).unwrap();
    let image = format!("{}/{}/team/app:20260101", access.registry_url, access.project);
    docker(config.path(), &["pull", "-q", &stack::base_image()]).unwrap();
    docker(config.path(), &["tag", &stack::base_image(), &image]).unwrap();
    docker(config.path(), &["push", "-q", &image]).unwrap();
    docker(config.path(), &["rmi", &image]).unwrap();
    docker(config.path(), &["pull", "-q", &image]).unwrap();
    docker(config.path(), &["rmi", &image]).unwrap();

    // The organization's key reads it, without a login on another machine.
    let reference = format!("docker://{image}");
    let key = format!("x:{}", cluster.key);
    skopeo(&["inspect", "--tls-verify=false", "--creds", &key, &reference]).unwrap();
    let (_, _, foreign) = cluster.foreign().await;
    for stranger in [format!("x:{foreign}"), "x:wrong".to_owned()] {
        skopeo(&["inspect", "--tls-verify=false", "--creds", &stranger, &reference]).unwrap_err();
    }
}

#[tokio::test]
async fn a_token_opens_its_folder_in_its_region_and_nothing_else() {
    let cluster = Cluster::start().await;
    let access = push_access(&cluster).await;
    let organization = access.project.strip_suffix("/push").unwrap();
    let http = reqwest::Client::new();
    let begin = async |host: &str, repository: &str, secret: &str| {
        let url = format!("http://{host}/v2/{repository}/blobs/uploads/");
        http.post(url).basic_auth("slipway", Some(secret)).send().await.unwrap().status()
    };
    let (host, secret) = (access.registry_url.as_str(), access.secret.as_str());
    let inside = format!("{}/app", access.project);
    assert_eq!(begin(host, &inside, secret).await, StatusCode::ACCEPTED);
    assert_eq!(begin(host, &inside, &cluster.key).await, StatusCode::FORBIDDEN);
    let (theirs, _, foreign_key) = cluster.foreign().await;
    for outside in [
        format!("{organization}/snapshots"),
        format!("{organization}/push"),
        format!("{organization}/pushed/app"),
        format!("{theirs}/push/app"),
    ] {
        assert_eq!(begin(host, &outside, secret).await, StatusCode::FORBIDDEN, "{outside}");
    }
    let snapshots = format!("http://{host}/v2/{organization}/snapshots/tags/list");
    let read = http.get(snapshots).bearer_auth(secret).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::NOT_FOUND);

    // It is no key of the API, and not for another region, nor for none.
    assert_eq!(ask(&cluster, secret, "").await.status(), StatusCode::UNAUTHORIZED);
    for region in [&["--region", "eu"][..], &[]] {
        let (_registry, elsewhere) = registry(&cluster, region).await;
        assert_eq!(begin(&elsewhere, &inside, secret).await, StatusCode::UNAUTHORIZED);
    }
    let (_registry, same) = registry(&cluster, &["--region", "us"]).await;
    assert_eq!(begin(&same, &inside, secret).await, StatusCode::ACCEPTED);

    assert_eq!(ask(&cluster, &foreign_key, "?regionId=mars").await.status(), StatusCode::NOT_FOUND);
    let nobody_there = ask(&cluster, &foreign_key, "?regionId=eu").await;
    assert_eq!(nobody_there.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tokens_end_and_need_the_permission_to_write() {
    let cluster = Cluster::start().await;
    let bus = cluster.bus().await;
    let access = push_access(&cluster).await;
    let organization = access.project.strip_suffix("/push").unwrap().parse().unwrap();
    let now = jiff::Timestamp::now();
    // The scheduler's clock decides, even where the bucket still has the token.
    let record = PushTokenRecord {
        version: 1,
        organization,
        region: "us".parse().unwrap(),
        folder: "push".into(),
        created_at: now,
        expires_at: now,
    };
    let slot = keys::push_token(&key_hash("an old token"));
    bus.bucket(&BucketName::PushTokens).create(&slot, &record, None).await.unwrap();
    let ping = async |secret: &str| {
        let url = format!("http://{}/v2/", access.registry_url);
        reqwest::Client::new().get(url).bearer_auth(secret).send().await.unwrap().status()
    };
    assert_eq!(ping("an old token").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ping(&access.secret).await, StatusCode::OK);

    let record = ApiKeyRecord {
        version: 1,
        organization,
        name: "reader".into(),
        permissions: vec![],
        created_at: now,
        expires_at: None,
        hint: String::new(),
    };
    let slot = keys::api_key(&key_hash("a key that only reads, and is long enough"));
    bus.bucket(&BucketName::ApiKeys).create(&slot, &record, None).await.unwrap();
    let status = eventually("the key is known", async || {
        let answer = ask(&cluster, "a key that only reads, and is long enough", "").await;
        (answer.status() != StatusCode::UNAUTHORIZED).then_some(answer.status())
    });
    assert_eq!(status.await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_pull_is_noted_as_a_use_of_the_snapshot() {
    let cluster = Cluster::start().await;
    let (snapshot, _) = cluster.build("used", dockerfile("RUN echo hello")).await;
    let before = snapshot.last_used_at;
    let reference = format!("docker://{}", snapshot.reference.clone().unwrap());
    let (_, _, foreign) = cluster.foreign().await;
    let inspect = |key: &str| {
        let key = format!("x:{key}");
        skopeo(&["inspect", "--raw", "--tls-verify=false", "--creds", &key, &reference])
    };
    inspect(&foreign).unwrap_err();
    inspect(&cluster.key).unwrap();
    let used = eventually("the use is noted", async || {
        let now = cluster.client.snapshot(&snapshot.id).await.unwrap();
        now.last_used_at.filter(|_| now.last_used_at != before)
    })
    .await;
    // More of them within a minute are the same one.
    for _ in 0..3 {
        inspect(&cluster.key).unwrap();
    }
    let after = cluster.client.snapshot(&snapshot.id).await.unwrap();
    assert_eq!(after.last_used_at, Some(used));
    assert_eq!((after.state.as_str(), after.updated_at), ("active", snapshot.updated_at));
}

/// `slipway registry` over the store of `us`, and where it listens.
async fn registry(cluster: &Cluster, arguments: &[&str]) -> (Child, String) {
    let store = format!("file://{}", cluster.store("us").display());
    let nats = cluster.nats.url();
    let fixed = ["registry", "--listen", "127.0.0.1:0", "--store", &store, "--nats", &nats];
    let child = slipway(&[&fixed[..], arguments].concat());
    let line = child.output().line(|line| line.contains("the registry serves")).await.unwrap();
    let address = line.split_once("address=").unwrap().1;
    (child, address.split_whitespace().next().unwrap().to_owned())
}

/// An authority in `ca.crt`, and a certificate for loopback that it signed.
fn write_certificate(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::create_dir(folder.join("authority")).unwrap();
    std::fs::write(folder.join("authority/ca.crt"), authority.pem()).unwrap();
    std::fs::write(folder.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn the_registry_speaks_tls_alone_and_in_a_worker() {
    let cluster = Cluster::start().await;
    let access = push_access(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (authority, certificate, key) = (file("authority"), file("server.pem"), file("server.key"));
    let arguments = ["--region", "us", "--tls-cert", &certificate, "--tls-key", &key];
    let (_registry, alone) = registry(&cluster, &arguments).await;

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let in_worker = free.local_addr().unwrap().to_string();
    drop(free);
    let stores = cluster.store("us");
    let text = format!(
        "id = \"us-tls\"\nregion = \"us\"\nnats = [{:?}]\nbuildkit = {:?}\n\
         store = \"file://{}\"\ncontexts = \"file://{}\"\nadvertise = {in_worker:?}\n\
         [tls]\nlisten = {in_worker:?}\ncert = {certificate:?}\nkey = {key:?}\n",
        cluster.nats.url(),
        stack::buildkit_endpoint(),
        stores.display(),
        stores.parent().unwrap().join("contexts").display(),
    );
    std::fs::write(file("worker.toml"), text).unwrap();
    let worker = slipway(&["worker", "run", "--config", &file("worker.toml")]);
    worker.output().line(|line| line.contains("the worker serves")).await.unwrap();

    let login = format!("{}:{}", access.username, access.secret);
    let source = format!("docker://{}", stack::base_image());
    for (number, host) in [&alone, &in_worker].into_iter().enumerate() {
        let target = format!("docker://{host}/{}/tls:{number}", access.project);
        let to = ["--dest-cert-dir", &authority, "--dest-creds", &login];
        let copy = ["copy", "--src-tls-verify=false", &source, &target];
        skopeo(&[&copy[..], &to].concat()).unwrap();
        let with = ["--creds", &login, &target];
        skopeo(&[&["inspect", "--cert-dir", &authority][..], &with].concat()).unwrap();
        let error = skopeo(&[&["inspect"][..], &with].concat()).unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }
}
