//! Registry credentials: kept, sealed, used by builds, and never seen again.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use slipway_api::Client;
use slipway_api::registries::WriteDockerRegistry;
use slipway_api::types::CreateBuildInfo;
use slipway_testkit::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth, stack};
use tokio::io::AsyncReadExt as _;

use crate::cluster::{Cluster, Plan, eventually, line};

fn wanted(name: &str, url: &str, password: &str) -> WriteDockerRegistry {
    WriteDockerRegistry {
        name: name.into(),
        url: url.into(),
        username: "tester".into(),
        password: Some(password.to_owned().into()),
        project: None,
    }
}

fn status<T: std::fmt::Debug>(outcome: Result<T, slipway_api::client::Error>) -> Option<u16> {
    outcome.unwrap_err().status()
}

/// A registry that asks for a password and has a base image, `private/base:1`.
async fn private_registry() -> DockerRegistry {
    let registry = DockerRegistry::start(RegistryAuth::Password).await;
    let to = format!("docker://{}/private/base:1", registry.address());
    let copied = Command::new("skopeo")
        .args(["copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds"])
        .arg(format!("tester:{REGISTRY_PASSWORD}"))
        .arg(format!("docker://{}", stack::base_image()))
        .arg(to)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    registry
}

fn build_from(registry: &DockerRegistry, steps: &str) -> CreateBuildInfo {
    let marker = uuid::Uuid::new_v4();
    CreateBuildInfo {
        dockerfile_content: format!(
            "ARG HOST={}\nFROM ${{HOST}}/private/base:1\nENV MARKER={marker}\n{steps}\n",
            registry.address()
        ),
        ..CreateBuildInfo::default()
    }
}

#[tokio::test]
async fn credentials_are_kept_without_showing_their_password() {
    let cluster = Cluster::start().await;
    let client = &cluster.client;
    let made = client.create_docker_registry(&wanted("hub", "", "hunter2-a")).await.unwrap();
    assert_eq!((made.url.as_str(), made.registry_type.as_str()), ("docker.io", "organization"));
    let other = wanted("ghcr", "https://GHCR.io/acme/", "hunter2-b");
    let newer = client.create_docker_registry(&other).await.unwrap();
    assert_eq!(newer.url, "https://ghcr.io/acme");
    let names = |all: Vec<slipway_api::registries::DockerRegistry>| {
        all.into_iter().map(|one| one.name).collect::<Vec<_>>()
    };
    assert_eq!(names(client.docker_registries().await.unwrap()), ["ghcr", "hub"]);

    // What is not given stays, and a password stays with its host.
    let mut change = wanted("ghcr 2", "ghcr.io", "");
    change.password = None;
    let changed = client.update_docker_registry(&newer.id, &change).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.url.as_str()), ("ghcr 2", "ghcr.io"));
    change.url = "evil.example".into();
    assert_eq!(status(client.update_docker_registry(&newer.id, &change).await), Some(400));
    for (name, url, password) in
        [("", "", "p"), ("x", "ftp://x", "p"), ("x", "", ""), ("<b>", "", "p")]
    {
        let made = client.create_docker_registry(&wanted(name, url, password)).await;
        assert_eq!(status(made), Some(400), "{name} {url}");
    }

    // Another organization sees nothing of it, and reading needs no right.
    let (_, foreign, _) = cluster.foreign().await;
    assert_eq!(foreign.docker_registries().await.unwrap(), []);
    assert_eq!(status(foreign.docker_registry(&made.id).await), Some(404));
    assert_eq!(status(foreign.create_docker_registry(&wanted("x", "", "p")).await), Some(403));
    assert_eq!(status(foreign.update_docker_registry(&made.id, &change).await), Some(403));
    assert_eq!(status(foreign.delete_docker_registry(&made.id).await), Some(403));

    client.delete_docker_registry(&made.id).await.unwrap();
    assert_eq!(status(client.docker_registry(&made.id).await), Some(404));
    assert_eq!(status(client.delete_docker_registry(&made.id).await), Some(404));
    assert_eq!(names(client.docker_registries().await.unwrap()), ["ghcr 2"]);
}

#[tokio::test]
async fn a_private_base_image_is_built_upon_and_the_password_is_nowhere() {
    let mut cluster = Cluster::start().await;
    let registry = private_registry().await;
    let address = registry.address().to_string();

    // Nobody may read it without a credential.
    let (before, _) = cluster.build("before", build_from(&registry, "RUN true")).await;
    assert_eq!(before.state, "build_failed", "{before:?}");

    let part = format!("http://{address}/private");
    let own = wanted("own", &part, REGISTRY_PASSWORD);
    let made = cluster.client.create_docker_registry(&own).await.unwrap();
    let tested = cluster.client.test_docker_registry(&made.id, Some("us")).await.unwrap();
    assert!(tested.works, "{tested:?}");

    let (image, log) = cluster.build("private", build_from(&registry, "RUN echo built")).await;
    assert_eq!(image.state, "active", "{image:?} {log:?}");
    let copy = format!("COPY --from={address}/private/base:1 /etc /copied");
    let scratch = CreateBuildInfo {
        dockerfile_content: format!("FROM {}\n{copy}\n", stack::base_image()),
        ..CreateBuildInfo::default()
    };
    let (image, _) = cluster.build("copied", scratch).await;
    assert_eq!(image.state, "active", "{image:?}");

    // The credential is for `/private` only: the build keeps to it.
    let outside = CreateBuildInfo {
        dockerfile_content: format!(
            "FROM {address}/private/base:1\nCOPY --from={address}/public/x:1 / /\n"
        ),
        ..CreateBuildInfo::default()
    };
    let (refused, _) = cluster.build("outside", outside).await;
    let reason = refused.error_reason.unwrap_or_default();
    assert!(reason.contains("`own`") && reason.contains("only one credential"), "{reason}");

    // Another organization does not get it.
    let (_, foreign, _) = cluster.foreign().await;
    let theirs = slipway_api::types::CreateSnapshot {
        name: "theirs".into(),
        build_info: Some(build_from(&registry, "RUN false")),
        ..Default::default()
    };
    let theirs = foreign.create_snapshot(&theirs).await.unwrap();
    let ended = eventually("the foreign build has ended", async || {
        let snapshot = foreign.snapshot(&theirs.id).await.unwrap();
        matches!(snapshot.state.as_str(), "active" | "error" | "build_failed").then_some(snapshot)
    })
    .await;
    assert_eq!(ended.state, "build_failed", "{ended:?}");

    // A wrong password says so, and is not repeated to anybody.
    let wrong = "wrong-battery-staple";
    let change = wanted("own", &part, wrong);
    cluster.client.update_docker_registry(&made.id, &change).await.unwrap();
    let tested = cluster.client.test_docker_registry(&made.id, None).await.unwrap();
    assert!(!tested.works && tested.message.contains("does not allow"), "{tested:?}");
    let (denied, log) = cluster.build("denied", build_from(&registry, "RUN echo denied")).await;
    assert_eq!(denied.state, "build_failed", "{denied:?}");
    let reason = denied.error_reason.clone().unwrap_or_default().to_lowercase();
    assert!(reason.contains("refused the credentials"), "{reason}");

    let mut answers = serde_json::to_string(&tested).unwrap();
    answers += &serde_json::to_string(&cluster.client.docker_registries().await.unwrap()).unwrap();
    answers += &serde_json::to_string(&denied).unwrap();
    answers += &log.iter().filter_map(line).collect::<String>();
    let outputs =
        [&cluster.scheduler, cluster.worker("us-1")].map(|child| child.output().lines().join("\n"));
    let store = cluster.nats.folder().to_owned();
    cluster.kill_worker("us-1").await;
    cluster.scheduler.kill9().await;
    for secret in [REGISTRY_PASSWORD, wrong] {
        for text in outputs.iter().chain([&answers]) {
            assert_absent(text.as_bytes(), secret, "an output");
        }
        let seen = grep(&store, secret) + grep(cluster.folder(), secret);
        assert!(seen > 10, "only {seen} files were looked at");
    }
}

/// Neither as it is, nor as `Basic` sends it, in base64 of the password alone or
/// in JSON's or a URL's clothes.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let pair = BASE64_STANDARD.encode(format!("tester:{secret}"));
    let alone = BASE64_STANDARD.encode(secret);
    let url = secret.replace(' ', "%20");
    [secret.to_owned(), pair, alone, url].map(String::into_bytes).to_vec()
}

fn assert_absent(bytes: &[u8], secret: &str, place: &str) {
    for form in forms(secret) {
        let found = bytes.windows(form.len()).any(|window| window == form);
        assert!(!found, "`{}` is in {place}", String::from_utf8_lossy(&form));
    }
}

/// Looks through every file below a folder; returns how many there were. Archives
/// of logs are opened.
fn grep(folder: &Path, secret: &str) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            count += grep(&path, secret);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        assert_absent(&bytes, secret, &path.display().to_string());
        if path.extension().is_some_and(|extension| extension == "zst") {
            assert_absent(&unpacked(&bytes), secret, &path.display().to_string());
        }
        count += 1;
    }
    count
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    let mut decoder = async_compression::tokio::bufread::ZstdDecoder::new(bytes);
    // It reads from memory and waits for nothing.
    futures::executor::block_on(decoder.read_to_end(&mut plain)).unwrap();
    plain
}

#[tokio::test]
async fn a_later_region_and_a_new_key_open_what_was_sealed_before() {
    let plan = Plan { workers: vec![("us", 2)], ..Plan::default() };
    let mut cluster = Cluster::with(plan).await;
    let registry = private_registry().await;
    let address = registry.address().to_string();
    let own = wanted("own", &address, REGISTRY_PASSWORD);
    let made = cluster.client.create_docker_registry(&own).await.unwrap();

    // The scheduler cannot read it: a worker of `us` seals it for `eu`.
    cluster.add("eu", 1).await;
    works(&cluster.client, &made.id, "eu").await;

    let before = fs::read_to_string(cluster.identities("us")).unwrap();
    let rotated = cluster.client.rotate_key("us").await.unwrap();
    assert_eq!((rotated.resealed, rotated.failed, rotated.keys.len()), (1, 0, 1), "{rotated:?}");
    let after = fs::read_to_string(cluster.identities("us")).unwrap();
    assert_eq!(after.lines().count(), 1);
    assert_ne!(before, after, "the old identity is gone");
    works(&cluster.client, &made.id, "us").await;

    // Kept over a restart of everything that could have remembered it.
    cluster.restart_scheduler().await;
    for worker in ["us-1", "us-2"] {
        cluster.kill_worker(worker).await;
        cluster.start_worker(worker).await;
    }
    works(&cluster.client, &made.id, "us").await;
    let (image, log) = cluster.build("private", build_from(&registry, "RUN echo x")).await;
    assert_eq!(image.state, "active", "{log:?}");

    let (_, foreign, _) = cluster.foreign().await;
    assert_eq!(status(foreign.rotate_key("us").await), Some(403));
    assert_eq!(status(cluster.client.rotate_key("mars").await), Some(404));
}

async fn works(client: &Client, id: &str, region: &str) {
    eventually("the credential works", async || {
        let tested = client.test_docker_registry(id, Some(region)).await;
        tested.is_ok_and(|tested| tested.works).then_some(())
    })
    .await;
}
