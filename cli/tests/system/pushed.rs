//! Images that a client pushes to the region's registry: as snapshots, and in builds.

use std::path::Path;
use std::process::Command;

use reqwest::StatusCode;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, RegistryPushAccess, Snapshot};
use slipway_testkit::stack;

use crate::cluster::{Cluster, Plan, dockerfile, eventually, printed};
use crate::pulls::{pulled, wanted};
use crate::registry::{docker, finish, push_access, skopeo};

/// Pushes the stack's base image; returns its name.
fn push(access: &RegistryPushAccess, name: &str) -> String {
    let image = format!("{}/{}/{name}", access.registry_url, access.project);
    let login = format!("{}:{}", access.username, access.secret);
    let (from, to) = (format!("docker://{}", stack::base_image()), format!("docker://{image}"));
    let insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"];
    let copy = [&["copy", "-q"], &insecure[..], &["--dest-creds", &login, &from, &to]].concat();
    skopeo(&copy).unwrap();
    image
}

/// Reads the whole image of a snapshot as its organization.
fn read_whole(cluster: &Cluster, snapshot: &Snapshot) {
    let folder = tempfile::tempdir().unwrap();
    let from = format!("docker://{}", snapshot.reference.as_ref().unwrap());
    let to = format!("dir:{}", folder.path().display());
    let key = format!("x:{}", cluster.key);
    let copy = ["copy", "-q", "--src-tls-verify=false", "--src-creds", &key, &from, &to];
    skopeo(&copy).unwrap();
}

/// What Daytona's command line does with a local image: it asks where to push and as
/// whom, tags, pushes through the Docker daemon, waits until the registry has the
/// image, and creates the snapshot.
#[tokio::test]
async fn a_local_image_becomes_a_snapshot_by_the_flow_of_the_command_line() {
    let cluster = Cluster::start().await;
    let access = push_access(&cluster).await;
    let config = tempfile::tempdir().unwrap();
    let login = ["login", "-u", &access.username, "-p", &access.secret, &access.registry_url];
    docker(config.path(), &login).unwrap();
    let local = stack::base_image();
    docker(config.path(), &["pull", "-q", &local]).unwrap();
    let target = format!("{}/{}/busybox:20261129060000", access.registry_url, access.project);
    docker(config.path(), &["tag", &local, &target]).unwrap();
    docker(config.path(), &["push", "-q", &target]).unwrap();
    docker(config.path(), &["rmi", &target]).unwrap();
    let digest = pushed_digest(&access, &target);

    let snapshot = pulled(&cluster, &wanted("local", &target)).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(snapshot.digest.as_deref(), Some(digest.as_str()));
    assert!(snapshot.size.is_some_and(|size| size > 0.0));

    // What was pushed is transient: the snapshot has the image by itself.
    let (_, path) = target.split_once('/').unwrap();
    let (repository, _) = path.rsplit_once(':').unwrap();
    let manifest = format!("http://{}/v2/{repository}/manifests/{digest}", access.registry_url);
    let http = reqwest::Client::new();
    let deleted = http.delete(manifest).basic_auth("x", Some(&access.secret)).send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::ACCEPTED);
    read_whole(&cluster, &snapshot);
    let again = pulled(&cluster, &wanted("again", &target)).await;
    assert_eq!(again.state, "error");
    let reason = again.error_reason.unwrap();
    assert!(reason.contains("was not found in the region's registry"), "{reason}");
}

fn pushed_digest(access: &RegistryPushAccess, image: &str) -> String {
    let login = format!("{}:{}", access.username, access.secret);
    let image = format!("docker://{image}");
    let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", "--creds"];
    skopeo(&[&inspect[..], &[&login, &image]].concat()).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_pushed_image_is_for_its_organization_alone() {
    let plan = Plan { workers: vec![("us", 1), ("eu", 1)], ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let image = push(&push_access(&cluster).await, "team/app:1");
    let (_, foreign, _) = cluster.foreign().await;
    let theirs = foreign.create_snapshot(&wanted("theirs", &image)).await.unwrap();
    let look = async || foreign.snapshot(&theirs.id).await.ok().filter(|one| one.state == "error");
    let refused = eventually("it is refused", look).await;
    let reason = refused.error_reason.unwrap();
    assert!(reason.contains("was not found in the region's registry"), "{reason}");

    for (name, steps) in [
        ("from", format!("FROM {image}\nRUN true")),
        ("copy", format!("FROM scratch\nCOPY --from={image} / /")),
    ] {
        let build = CreateBuildInfo { dockerfile_content: steps, ..CreateBuildInfo::default() };
        let request =
            CreateSnapshot { build_info: Some(build), image_name: None, ..wanted(name, &image) };
        let built = foreign.create_snapshot(&request).await.unwrap();
        let over = async || {
            let now = foreign.snapshot(&built.id).await.unwrap();
            ["active", "error", "build_failed"].contains(&now.state.as_str()).then_some(now)
        };
        let built = eventually("the build ends", over).await;
        assert_eq!(built.state, "build_failed", "{:?}", built.error_reason);
        let reason = built.error_reason.unwrap();
        assert!(reason.contains(&format!("`{image}` was not found")), "{name}: {reason}");
    }

    // In another region its own organization is told where it is.
    let elsewhere = CreateSnapshot { region_id: Some("eu".into()), ..wanted("own", &image) };
    let refused = cluster.client.create_snapshot(&elsewhere).await.unwrap_err();
    assert_eq!(refused.status(), Some(400));
    assert!(refused.to_string().contains("the registry of region `us`"), "{refused}");
}

/// `host:port` of a worker's registry.
fn registry_of(cluster: &Cluster, worker: &str) -> String {
    let lines = cluster.worker(worker).output().lines();
    let mut found = lines.iter().filter_map(|line| line.split_once(" registry="));
    found.next().unwrap().1.trim().to_owned()
}

#[tokio::test]
async fn builds_take_pushed_images_under_the_name_of_every_worker() {
    let cluster = Cluster::with(Plan { workers: vec![("us", 2)], ..Plan::default() }).await;
    let image = push(&push_access(&cluster).await, "team/app:1");
    let (_, path) = image.split_once('/').unwrap();
    // One of them does the build, and the other one is another host for it.
    let [one, two] = ["us-1", "us-2"].map(|name| format!("{}/{path}", registry_of(&cluster, name)));
    assert_ne!(one, two);
    let marker = uuid::Uuid::new_v4();
    let build = CreateBuildInfo {
        dockerfile_content: format!(
            "FROM {one}\nENV MARKER={marker}\nCOPY --from={two} /bin/busybox /copied/\n\
             RUN /copied/busybox echo from what was pushed\n"
        ),
        ..CreateBuildInfo::default()
    };
    let (snapshot, log) = cluster.build("from-pushed", build).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(printed(&log), ["from what was pushed"]);
    read_whole(&cluster, &snapshot);
    for (number, image) in [one, two].iter().enumerate() {
        let snapshot = pulled(&cluster, &wanted(&format!("pulled-{number}"), image)).await;
        assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    }
}

/// containerd's own client, in a namespace of its own: that of the stack's engine, or
/// the machine's where the stack uses the machine's engine.
fn ctr(arguments: &[&str]) -> Result<String, String> {
    let engine = stack::buildkit_endpoint();
    let engine = engine.strip_prefix("docker://").expect("the dev stack's BuildKit is an engine");
    let own = Path::new(engine).with_file_name("containerd.sock");
    let (socket, program) = match own.exists() {
        true => (own, Path::new(engine).with_file_name("../engine/usr/bin/ctr")),
        false => ("/run/containerd/containerd.sock".into(), "ctr".into()),
    };
    let mut command = Command::new(program);
    command.arg("--address").arg(socket).args(["--namespace", "slipway-test"]);
    finish(command.args(arguments))
}

#[tokio::test]
async fn containerd_pulls_a_snapshot_and_pushes() {
    let cluster = Cluster::start().await;
    let access = push_access(&cluster).await;
    let (snapshot, _) = cluster.build("pulled", dockerfile("RUN echo here > /here")).await;
    let reference = snapshot.reference.as_ref().unwrap();
    let key = format!("x:{}", cluster.key);
    let pull = ["images", "pull", "--plain-http", "--user", &key, reference];
    ctr(&pull).unwrap();
    let target = format!("{}/{}/by/containerd:1", access.registry_url, access.project);
    let login = format!("{}:{}", access.username, access.secret);
    let push = ["images", "push", "--plain-http", "--user", &login, &target, reference];
    ctr(&push).unwrap();
    assert_eq!(Some(pushed_digest(&access, &target)), snapshot.digest);
    ctr(&["images", "rm", reference]).unwrap();
    let stranger = ["images", "pull", "--plain-http", "--user", "x:wrong", reference];
    ctr(&stranger).unwrap_err();
}
