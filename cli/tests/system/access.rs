//! Who may see and do what.

use std::process::Command;

use slipway_domain::LogSeq;

use crate::cluster::{Cluster, client, dockerfile, put};

#[tokio::test]
async fn without_a_valid_key_there_is_nothing_to_see() {
    let cluster = Cluster::start().await;
    let stranger = client(cluster.api, "dtn_0000");
    assert_eq!(stranger.snapshot("x").await.unwrap_err().status(), Some(401));
    assert_eq!(stranger.workers().await.unwrap_err().status(), Some(401));
    let paths = ["snapshots", "snapshots/x", "snapshots/x/build-logs", "v1/jobs/x", "v1/regions"];
    for path in paths {
        let url = format!("http://{}/api/{path}", cluster.api);
        let response = reqwest::get(url).await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        let body: serde_json::Value = response.json().await.unwrap();
        assert_eq!(body["statusCode"], 401, "{path}");
    }
}

#[tokio::test]
async fn another_organization_sees_and_touches_nothing() {
    let cluster = Cluster::start().await;
    let build = dockerfile("RUN echo secret");
    let (snapshot, _) = cluster.build("mine", build).await;
    let (organization, foreign, key) = cluster.foreign().await;

    for id_or_name in ["mine", snapshot.id.as_str()] {
        assert_eq!(foreign.snapshot(id_or_name).await.unwrap_err().status(), Some(404));
        assert_eq!(foreign.delete_snapshot(id_or_name).await.unwrap_err().status(), Some(404));
        let log = foreign.build_logs(id_or_name, false).await;
        assert_eq!(log.err().unwrap().status(), Some(404));
    }
    let job = snapshot.job_id.clone().unwrap();
    assert_eq!(foreign.job(&job).await.unwrap_err().status(), Some(404));
    let mut events = foreign.job_events(&job, LogSeq::ZERO, true).unwrap();
    assert_eq!(events.next().await.unwrap().unwrap_err().status(), Some(404));
    assert_eq!(foreign.list_snapshots(&Default::default()).await.unwrap().total, 0);
    assert_eq!(cluster.client.snapshot("mine").await.unwrap().state, "active");

    // The same name is another snapshot there, and the image is not theirs.
    let reference = snapshot.reference.unwrap();
    let (registry, _) = reference.split_once('/').unwrap();
    let digest = snapshot.digest.unwrap();
    let theirs = format!("{registry}/{organization}/snapshots@{digest}");
    for (reference, creds) in [
        (&reference, format!("x:{key}")),
        (&theirs, format!("x:{key}")),
        (&reference, "x:wrong".to_owned()),
    ] {
        assert!(!inspect(reference, Some(&creds)), "{reference} with {creds}");
    }
    assert!(!inspect(&reference, None));
    assert!(inspect(&reference, Some(&format!("x:{}", cluster.key))));
}

fn inspect(reference: &str, creds: Option<&str>) -> bool {
    let mut command = Command::new("skopeo");
    command.args(["inspect", "--raw", "--tls-verify=false"]);
    match creds {
        Some(creds) => command.args(["--creds", creds]),
        None => command.arg("--no-creds"),
    };
    let output = command.arg(format!("docker://{reference}")).output();
    output.expect("skopeo is there: run `make deps`").status.success()
}

#[tokio::test]
async fn a_context_is_its_organizations_own_and_what_its_hash_says() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret.txt"), "mine").unwrap();
    let hash = cluster.upload(folder.path()).await;
    assert!(cluster.client.has_context(&hash).await.unwrap());
    let (_, foreign, _) = cluster.foreign().await;
    assert!(!foreign.has_context(&hash).await.unwrap());

    // Bytes that are not what the hash says are not kept.
    let other = "cd".repeat(32);
    let url = format!("http://{}/api/v1/contexts/{other}", cluster.api);
    let request = reqwest::Client::new().put(url).bearer_auth(&cluster.key).body("something else");
    assert_eq!(request.send().await.unwrap().status(), 400);
    assert!(!cluster.client.has_context(&other).await.unwrap());
}

#[tokio::test]
async fn a_context_that_reaches_out_of_itself_is_refused() {
    let cluster = Cluster::start().await;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    header.as_old_mut().name[..12].copy_from_slice(b"../../passwd");
    header.set_cksum();
    tar.append(&header, &b"evil"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&tar));
    put(&cluster.client, &hash, tar).await;
    let build = slipway_api::types::CreateBuildInfo {
        context_hashes: vec![hash],
        ..dockerfile("COPY . /x")
    };
    let (snapshot, _) = cluster.build("evil", build).await;
    assert_eq!(snapshot.state, "error");
    assert!(snapshot.error_reason.unwrap().contains("passwd"));
}
