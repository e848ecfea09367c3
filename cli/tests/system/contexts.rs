//! Build contexts, exactly as `docker build` sees them, by way of the CLI.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use slipway_api::types::CreateBuildInfo;

use crate::cluster::{Cluster, dockerfile, printed, put};

fn write(root: &Path, name: &str, text: &str, mode: u32) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `slipway snapshot create` against a cluster.
async fn create(cluster: &Cluster, name: &str, dockerfile: &Path, context: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command.args(["snapshot", "create", name, "--dockerfile"]).arg(dockerfile);
    command.arg("--context").arg(context);
    command.env("SLIPWAY_API_URL", format!("http://{}/api", cluster.api));
    command.env("SLIPWAY_API_KEY", &cluster.key);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_context_arrives_as_docker_build_would_see_it() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "plain.txt", "plain", 0o644);
    write(root, "run.sh", "#!/bin/sh\n", 0o750);
    write(root, "set/uid", "x", 0o4755);
    write(root, "with space/nämé ☃.txt", "snow", 0o600);
    write(root, "logs/old.log", "old", 0o644);
    write(root, "logs/keep.log", "keep", 0o644);
    write(root, "deep/a/b/skip.tmp", "tmp", 0o644);
    write(root, ".dockerignore", "# comment\n**/*.log\n!logs/keep.log\n**/*.tmp\n", 0o644);
    fs::create_dir(root.join("empty")).unwrap();
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o711)).unwrap();
    symlink("plain.txt", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    let build = dockerfile(
        "COPY . /ctx\n\
         RUN cd /ctx && find . -exec stat -c '%n|%F|%a|%u:%g|%N' {} + | sort",
    );
    let file = root.join("Dockerfile");
    fs::write(&file, &build.dockerfile_content).unwrap();

    let output = create(&cluster, "faithful", &file, root).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let snapshot = cluster.client.snapshot("faithful").await.unwrap();
    let listing = printed(&cluster.log(&snapshot).await);
    let fields = |line: &String| {
        let mut parts = line.split('|').map(ToOwned::to_owned);
        std::array::from_fn::<String, 4, _>(|_| parts.next().unwrap_or_default())
    };
    let found: Vec<[String; 4]> = listing.iter().map(fields).collect();
    let row = |a: &str, b: &str, c: &str| [a.into(), b.into(), c.into(), "0:0".into()];
    for wanted in [
        row("./plain.txt", "regular file", "644"),
        row("./run.sh", "regular file", "750"),
        row("./set/uid", "regular file", "4755"),
        row("./with space/nämé ☃.txt", "regular file", "600"),
        row("./logs/keep.log", "regular file", "644"),
        row("./empty", "directory", "711"),
        row("./deep/a/b", "directory", "755"),
        row("./link", "symbolic link", "777"),
        row("./dangling", "symbolic link", "777"),
        row("./.dockerignore", "regular file", "644"),
        row("./Dockerfile", "regular file", "644"),
    ] {
        assert!(found.contains(&wanted), "{wanted:?} is not in {found:#?}");
    }
    assert!(!listing.iter().any(|line| line.contains("old.log") || line.contains("skip.tmp")));
    assert!(listing.iter().any(|line| line.contains("dangling' -> '/nowhere/at/all'")));
    assert_eq!(found.len(), 17, "{found:#?}");

    // Unchanged, it is not sent again.
    let again = create(&cluster, "again", &file, root).await;
    assert!(again.status.success());
    let told = String::from_utf8_lossy(&again.stdout).into_owned()
        + &String::from_utf8_lossy(&again.stderr);
    assert!(told.contains("has it already"), "{told}");
}

#[tokio::test]
async fn contexts_are_united_and_an_unfiltered_one_is_filtered_by_the_worker() {
    let cluster = Cluster::start().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), "both.txt", "first", 0o644);
    write(one.path(), "one.txt", "1", 0o644);
    write(two.path(), "both.txt", "second", 0o644);
    write(two.path(), "sub/two.txt", "2", 0o644);
    write(two.path(), "sub/secret.pem", "no", 0o600);
    write(two.path(), ".dockerignore", "**/*.pem\n", 0o644);
    let hashes = vec![cluster.upload(one.path()).await, cluster.upload(two.path()).await];
    let build = CreateBuildInfo {
        context_hashes: hashes,
        ..dockerfile("COPY . /ctx\nRUN cd /ctx && find . -type f | sort && cat both.txt")
    };
    let (snapshot, log) = cluster.build("united", build).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let expected = ["./.dockerignore", "./both.txt", "./one.txt", "./sub/two.txt", "second"];
    assert_eq!(printed(&log), expected);
}

#[tokio::test]
async fn a_changed_file_of_the_same_size_and_time_is_not_mistaken_for_the_old_one() {
    let cluster = Cluster::start().await;
    let archive = |text: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        tar.append_data(&mut header, "file.txt", text.as_bytes()).unwrap();
        tar.into_inner().unwrap()
    };
    let marker = dockerfile("COPY file.txt /\nRUN cat /file.txt");
    for (name, text) in [("old", "old!"), ("new", "new!")] {
        let tar = archive(text);
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&tar));
        put(&cluster.client, &hash, tar).await;
        let build = CreateBuildInfo { context_hashes: vec![hash], ..marker.clone() };
        let (_, log) = cluster.build(name, build).await;
        assert_eq!(printed(&log), [text]);
    }
}
