//! Builds that succeed, and what becomes of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use slipway_api::own::{SubmitRequest, SubmitResponse};
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, ListSnapshots, Snapshot};
use slipway_domain::LogEvent;

use crate::cluster::{
    Cluster, LIMIT, Plan, Stores, assert_gapless, dockerfile, eventually, printed, ticking,
};

#[tokio::test]
async fn a_dockerfile_becomes_an_active_snapshot_that_an_oci_client_can_pull() {
    let cluster = Cluster::start().await;
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("app.txt"), "from the context").unwrap();
    let build = CreateBuildInfo {
        context_hashes: vec![cluster.upload(context.path()).await],
        build_args: BTreeMap::from([("WHO".to_owned(), "an argument".to_owned())]),
        labels: BTreeMap::from([("team".to_owned(), "dev".to_owned())]),
        target: Some("wanted".into()),
        ..dockerfile(
            "ARG WHO\nCOPY app.txt /app.txt\nRUN cat /app.txt && echo \" and $WHO\" && echo oops >&2\n\
             FROM scratch AS wanted\nCOPY --from=0 /app.txt /\nCMD [\"/app.txt\"]\n\
             FROM nowhere.invalid/never AS unwanted",
        )
    };
    let (snapshot, log) = cluster.build("team/app:1.0", build).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(snapshot.region_ids, ["us"]);
    assert!(snapshot.size.unwrap() > 0.0);
    assert_eq!(snapshot.entrypoint.as_ref().unwrap(), &["/app.txt"]);
    // Standard error is a stream of its own, so its place among them varies.
    let mut lines = printed(&log);
    lines.sort();
    assert_eq!(lines, ["from the context and an argument", "oops"]);
    assert_gapless(&log);

    let config = skopeo(&["inspect", "--config"], &snapshot, &cluster.key);
    assert_eq!(config["config"]["Labels"]["team"], "dev");
    assert_eq!(config["architecture"], "amd64");
    let manifest = skopeo(&["inspect"], &snapshot, &cluster.key);
    assert_eq!(manifest["Digest"], snapshot.digest.unwrap().as_str());
}

/// What `skopeo inspect` says about a snapshot's image.
fn skopeo(words: &[&str], snapshot: &Snapshot, key: &str) -> serde_json::Value {
    let mut command = Command::new("skopeo");
    command.args(words).args(["--tls-verify=false", "--creds"]).arg(format!("any:{key}"));
    command.arg(format!("docker://{}", snapshot.reference.as_ref().unwrap()));
    let output = command.output().expect("skopeo is there: run `make deps`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn entrypoint_and_command_are_inherited_from_the_base_image() {
    let cluster = Cluster::start().await;
    let (snapshot, _) = cluster.build("plain", dockerfile("RUN true")).await;
    let entrypoint = snapshot.entrypoint.unwrap();
    assert_eq!(entrypoint[..2], ["/bin/sh", "-c"], "{entrypoint:?}");
}

#[tokio::test]
async fn a_build_of_the_same_image_adds_nothing_to_the_store_and_has_the_same_digest() {
    let cluster = Cluster::start().await;
    let build = dockerfile("RUN echo once > /once");
    let (first, _) = cluster.build("first", build.clone()).await;
    let before = blobs(&cluster.store("us"));
    // Not the same request, or it would not be built at all.
    let unused = BTreeMap::from([("UNUSED".to_owned(), "x".to_owned())]);
    let (second, log) =
        cluster.build("second", CreateBuildInfo { build_args: unused, ..build }).await;
    assert_eq!(second.state, "active");
    assert_eq!(second.digest, first.digest);
    assert_eq!(blobs(&cluster.store("us")), before);
    let text: Vec<_> = log.iter().filter_map(crate::cluster::line).collect();
    assert!(text.iter().any(|line| line.ends_with("CACHED")), "{text:?}");
    let job = cluster.job(&second).await;
    assert!(job.cached_steps.unwrap() > 0 && job.cached_steps <= job.total_steps);

    // `no_cache` runs the step again.
    let again = CreateBuildInfo { no_cache: true, ..dockerfile("RUN echo twice") };
    cluster.build("third", again.clone()).await;
    let (_, log) = cluster.build("fourth", again).await;
    assert_eq!(printed(&log), ["twice"]);
}

#[tokio::test]
async fn an_identical_build_runs_once_and_outlives_the_one_who_began_it() {
    let cluster = Cluster::start().await;
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("app.txt"), "the same for both").unwrap();
    let hash = cluster.upload(context.path()).await;
    let build = CreateBuildInfo {
        context_hashes: vec![hash],
        ..dockerfile(
            "COPY app.txt /\nRUN i=0; while [ ! -e /go ] && [ $i -lt 15 ]; do i=$((i+1)); echo tick $i; sleep 0.2; done",
        )
    };
    let first = cluster.submit("first", build.clone()).await;
    cluster.log_until(&first, "tick 1").await;
    let second = cluster.submit("second", build.clone()).await;
    assert_eq!((second.state.as_str(), &second.job_id), ("building", &first.job_id));
    cluster.client.delete_snapshot(&first.id).await.unwrap();
    let ended = cluster.ended(&second.id).await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(cluster.job(&ended).await.attempts.len(), 1);
    assert_gapless(&cluster.log(&ended).await);

    // What is finished is there at once, in the answer itself.
    let third = cluster.submit("third", build.clone()).await;
    assert_eq!((third.state.as_str(), &third.digest), ("active", &ended.digest));
    assert_eq!(third.job_id, ended.job_id);
    assert!(third.reference.is_some());
    // Nobody shares with another organization.
    let (_, foreign, _) = cluster.foreign().await;
    let theirs = CreateBuildInfo {
        context_hashes: vec![crate::cluster::upload(&foreign, context.path()).await],
        ..build
    };
    let wanted = CreateSnapshot {
        name: "theirs".into(),
        region_id: Some("us".into()),
        build_info: Some(theirs),
        ..CreateSnapshot::default()
    };
    let theirs = foreign.create_snapshot(&wanted).await.unwrap();
    assert_ne!(theirs.job_id, third.job_id);
}

/// Every blob of a store, with when it was written.
fn blobs(store: &Path) -> BTreeMap<PathBuf, std::time::SystemTime> {
    let mut found = BTreeMap::new();
    let mut folders = vec![store.join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), entry.metadata().unwrap().modified().unwrap());
            }
        }
    }
    found
}

#[tokio::test]
async fn a_region_can_keep_its_snapshots_in_s3() {
    let endpoint = crate::amazon::moto();
    let bucket = format!("system-{}", uuid::Uuid::new_v4());
    let made = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let plan = Plan { stores: Stores::S3 { endpoint, bucket }, ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let context = tempfile::tempdir().unwrap();
    std::fs::write(context.path().join("a.txt"), "in a bucket").unwrap();
    let build = CreateBuildInfo {
        context_hashes: vec![cluster.upload(context.path()).await],
        ..dockerfile("COPY a.txt /\nRUN cat /a.txt")
    };
    let (snapshot, log) = cluster.build("bucket", build).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_eq!(printed(&log), ["in a bucket"]);
    let manifest = skopeo(&["inspect"], &snapshot, &cluster.key);
    assert_eq!(manifest["Digest"], snapshot.digest.as_deref().unwrap());
    cluster.client.delete_snapshot("bucket").await.unwrap();
    eventually("it is gone", async || {
        cluster.client.snapshot("bucket").await.err().filter(|e| e.status() == Some(404))
    })
    .await;
}

#[tokio::test]
async fn regions_have_their_own_stores_and_their_own_workers() {
    let plan = Plan { workers: vec![("us", 1), ("eu", 1)], ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let build = dockerfile("RUN echo here > /here");
    let in_us = cluster.submit_in("us", "here", build.clone()).await;
    cluster.ended(&in_us.id).await;
    assert!(!cluster.store("eu").join("blobs").exists(), "nothing of it is in eu");
    let us = blobs(&cluster.store("us"));

    let in_eu = cluster.submit_in("eu", "here-too", build).await;
    let in_eu = cluster.ended(&in_eu.id).await;
    assert_eq!(in_eu.state, "active");
    assert_eq!(blobs(&cluster.store("us")), us);
    assert!(!blobs(&cluster.store("eu")).is_empty());

    for (snapshot, worker, other) in [(&in_us, "us-1", "eu-1"), (&in_eu, "eu-1", "us-1")] {
        let job = cluster.job(snapshot).await;
        assert_eq!(job.attempts[0].worker.as_deref(), Some(worker));
        let seen = cluster.worker(other).output().lines();
        assert!(!seen.iter().any(|line| line.contains(&job.id)), "{other} saw a job of {worker}");
    }
}

#[tokio::test]
async fn a_job_waits_for_a_worker_of_its_region_and_says_so() {
    let mut cluster = Cluster::start().await;
    let snapshot = cluster.submit_in("eu", "patient", dockerfile("RUN echo at last")).await;
    assert_eq!(snapshot.state, "pending");
    let job = cluster.job(&snapshot).await;
    assert_eq!(job.waiting.as_deref(), Some("no worker of class cpu in eu"));
    cluster.add("eu", 1).await;
    assert_eq!(cluster.ended(&snapshot.id).await.state, "active");
    let log = cluster.log(&snapshot).await;
    assert_eq!(crate::cluster::line(&log[0]), Some("waiting: no worker of class cpu in eu"));
    assert_gapless(&log);
}

#[tokio::test]
async fn gpu_snapshots_go_to_the_gpu_class_and_nowhere_else() {
    let plan = Plan { workers: vec![("us", 1), ("us-east-1", 1)], ..Plan::default() };
    let cluster = Cluster::with(plan).await;
    let wanted = |region: &str| CreateSnapshot {
        name: "gpu".into(),
        gpu: Some(1),
        region_id: Some(region.into()),
        build_info: Some(dockerfile("RUN true")),
        ..CreateSnapshot::default()
    };
    let refused = cluster.client.create_snapshot(&wanted("us")).await.unwrap_err();
    assert_eq!(refused.status(), Some(400));
    assert!(refused.to_string().contains("us-east-1"), "{refused}");
    let unknown = cluster.client.create_snapshot(&wanted("mars")).await.unwrap_err();
    assert_eq!(unknown.status(), Some(404));

    let snapshot = cluster.client.create_snapshot(&wanted("us-east-1")).await.unwrap();
    assert_eq!(cluster.ended(&snapshot.id).await.state, "active");
    assert_eq!(cluster.job(&snapshot).await.class, "gpu");
    let workers = cluster.client.workers().await.unwrap();
    let gpu = workers.iter().find(|worker| worker.region == "us-east-1").unwrap();
    assert_eq!(gpu.gpu.as_deref(), Some("simulated"));
}

#[tokio::test]
async fn a_snapshot_can_be_submitted_over_nats() {
    let cluster = Cluster::start().await;
    let bus = cluster.bus().await;
    let request = |key: &str, name: &str| SubmitRequest {
        api_key: key.to_owned(),
        snapshot: CreateSnapshot {
            name: name.into(),
            build_info: Some(dockerfile("RUN echo over nats")),
            ..CreateSnapshot::default()
        },
    };
    let subject = slipway_bus::topology::SUBMIT;
    let answer: SubmitResponse =
        bus.call(subject, &request(&cluster.key, "by-nats"), LIMIT).await.unwrap();
    let snapshot = cluster.ended(&answer.snapshot_id).await;
    assert_eq!((snapshot.state.as_str(), snapshot.job_id), ("active", Some(answer.job_id)));

    for (key, name, code) in [
        (cluster.key.as_str(), "by-nats", 409),
        (cluster.key.as_str(), "no good name", 400),
        ("dtn_wrong", "other", 401),
    ] {
        let refused = bus.call::<_, SubmitResponse>(subject, &request(key, name), LIMIT).await;
        let Err(slipway_bus::services::Error::Fault { fault, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(fault.code, code, "{fault}");
    }
}

#[tokio::test]
async fn delete_while_building_stops_the_process_and_really_removes() {
    let cluster = Cluster::start().await;
    let marker = format!("9{:09}", rand::random::<u32>() % 1_000_000_000);
    let build = dockerfile(&format!("RUN echo go && sleep {marker}"));
    let snapshot = cluster.submit("doomed", build).await;
    cluster.log_until(&snapshot, "go").await;
    eventually("the step runs", async || process_with(&marker).then_some(())).await;

    let job = snapshot.job_id.as_ref().unwrap();
    let mut log = cluster.client.job_events(job, slipway_domain::LogSeq::ZERO, true).unwrap();
    log.next().await.unwrap().unwrap();
    cluster.client.delete_snapshot("doomed").await.unwrap();
    eventually("the step is gone", async || (!process_with(&marker)).then_some(())).await;
    eventually("the snapshot is gone", async || {
        let read = cluster.client.snapshot(&snapshot.id).await;
        read.is_err_and(|error| error.status() == Some(404)).then_some(())
    })
    .await;
    // Who follows its log sees its end.
    let end = async {
        while let Some(event) = log.next().await {
            if let Ok(slipway_api::events::JobEvent::Log(entry)) = event
                && matches!(entry.event, LogEvent::End { .. })
            {
                return true;
            }
        }
        false
    };
    let end = tokio::time::timeout(LIMIT, end).await.unwrap();
    assert!(end, "the reader saw the end");

    // The name is free again.
    let (again, _) = cluster.build("doomed", dockerfile("RUN true")).await;
    assert_eq!(again.state, "active");
}

/// Whether a process has the word on its command line.
fn process_with(word: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|part| part == word.as_bytes()))
}

#[tokio::test]
async fn snapshots_with_one_image_are_deleted_one_by_one() {
    let cluster = Cluster::start().await;
    let build = dockerfile("RUN echo twin > /twin");
    let (one, _) = cluster.build("one", build.clone()).await;
    let (two, _) = cluster.build("two", build.clone()).await;
    assert_eq!(one.digest, two.digest);
    let gone = async |id: &str| {
        cluster.client.delete_snapshot(id).await.unwrap();
        eventually("it is gone", async || {
            cluster.client.snapshot(id).await.err().filter(|e| e.status() == Some(404))
        })
        .await;
    };
    let digest = one.digest.unwrap();
    let link = cluster.store("us").join("repos").join(&one.organization_id);
    let link = link.join("snapshots/_manifests").join(digest.replace(':', "%3A"));
    let link = if link.exists() { link } else { link.with_file_name(&digest) };
    assert!(link.exists(), "{}", link.display());
    gone(&one.id).await;
    assert!(link.exists(), "its twin needs it");
    gone(&two.id).await;
    assert!(!link.exists());

    // Made again at once, it is there again, although BuildKit and the registry
    // remember the image.
    let (three, _) = cluster.build("three", build).await;
    assert_eq!((three.state.as_str(), three.digest), ("active", Some(digest)));
    assert!(link.exists());
}

#[tokio::test]
async fn the_quota_holds_for_requests_that_come_at_once() {
    let cluster = Cluster::start().await;
    let create = async |n: u32| {
        let wanted = CreateSnapshot {
            name: format!("many-{n}"),
            region_id: Some("eu".into()),
            build_info: Some(dockerfile("RUN true")),
            ..CreateSnapshot::default()
        };
        cluster.client.create_snapshot(&wanted).await
    };
    let results = futures::future::join_all((0..50).map(create)).await;
    let (made, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (30, 20));
    for refusal in refused {
        let error = refusal.unwrap_err();
        assert_eq!(error.status(), Some(400));
        assert!(error.to_string().contains("Maximum allowed: 30"), "{error}");
    }
}

#[tokio::test]
async fn lists_are_paged_filtered_and_sorted() {
    let cluster = Cluster::start().await;
    for name in ["one", "two", "three"] {
        cluster.submit(name, ticking(1)).await;
    }
    let list = |what: ListSnapshots| {
        let client = cluster.client.clone();
        async move { client.list_snapshots(&what).await.unwrap() }
    };
    let by_name = ListSnapshots {
        sort: Some("name".into()),
        order: Some("asc".into()),
        limit: Some(2),
        ..ListSnapshots::default()
    };
    let page = list(by_name.clone()).await;
    let names: Vec<_> = page.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!((names, page.total, page.total_pages), (vec!["one", "three"], 3, 2));
    let page = list(ListSnapshots { page: Some(2), ..by_name }).await;
    assert_eq!(page.items[0].name, "two");
    let page = list(ListSnapshots { name: Some("T".into()), ..ListSnapshots::default() }).await;
    assert_eq!(page.total, 2);
    let bad = ListSnapshots { limit: Some(201), ..ListSnapshots::default() };
    assert_eq!(cluster.client.list_snapshots(&bad).await.unwrap_err().status(), Some(400));
}

#[tokio::test]
async fn an_inactive_snapshot_keeps_its_image_and_is_active_again_at_once() {
    let cluster = Cluster::start().await;
    let (snapshot, _) = cluster.build("resting", dockerfile("RUN echo hello")).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let status = |error: slipway_api::client::Error| error.status();
    let early = cluster.client.activate_snapshot("resting").await.unwrap_err();
    assert!(early.to_string().contains("already active"), "{early}");
    assert_eq!(status(early), Some(400));

    // As the SDK for TypeScript asks: a form without a body.
    let ask = async |what: &str, key: &str| {
        let url = format!("http://{}/api/snapshots/{}/{what}", cluster.api, snapshot.id);
        let request = reqwest::Client::new().post(url).bearer_auth(key);
        let form = ("content-type", "application/x-www-form-urlencoded");
        request.header(form.0, form.1).send().await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(ask("deactivate", &cluster.key).await.status(), 204);
    }
    let rests = cluster.client.snapshot("resting").await.unwrap();
    assert_eq!((rests.state.as_str(), &rests.digest), ("inactive", &snapshot.digest));
    assert_eq!(rests.size, snapshot.size);
    let (_, _, stranger) = cluster.foreign().await;
    assert_eq!(ask("activate", &stranger).await.status(), 404);

    let back = ask("activate", &cluster.key).await;
    assert_eq!(back.status(), 200);
    let back: Snapshot = back.json().await.unwrap();
    assert_eq!((back.state.as_str(), &back.digest), ("active", &snapshot.digest));
    assert_eq!(back.job_id, snapshot.job_id, "nothing was made");
    assert!(back.last_used_at > rests.last_used_at);

    let failed = cluster.submit("failed", dockerfile("RUN false")).await;
    assert_eq!(cluster.ended(&failed.id).await.state, "build_failed");
    let refused = cluster.client.deactivate_snapshot("failed").await.unwrap_err();
    assert!(refused.to_string().contains("build_failed, and only an active one"), "{refused}");
    let refused = cluster.client.activate_snapshot("failed").await.unwrap_err();
    assert_eq!(status(refused), Some(400));
}

/// The image is pulled once more, after somebody took it from the store.
#[tokio::test]
async fn an_inactive_snapshot_whose_image_is_gone_is_made_again() {
    let cluster = Cluster::start().await;
    let wanted = CreateSnapshot {
        name: "gone".into(),
        image_name: Some(slipway_testkit::stack::base_image()),
        region_id: Some("us".into()),
        ..CreateSnapshot::default()
    };
    let made = cluster.client.create_snapshot(&wanted).await.unwrap();
    let made = cluster.ended(&made.id).await;
    assert_eq!(made.state, "active", "{:?}", made.error_reason);
    cluster.client.deactivate_snapshot("gone").await.unwrap();
    let digest = made.digest.as_deref().unwrap();
    let link = format!("repos/{}/snapshots/_manifests/{digest}", made.organization_id);
    std::fs::remove_file(cluster.store("us").join(link)).unwrap();
    let again = cluster.client.activate_snapshot("gone").await.unwrap();
    assert_ne!(again.job_id, made.job_id);
    let again = cluster.ended(&again.id).await;
    assert_eq!((again.state.as_str(), &again.digest), ("active", &made.digest));
    let past = made.job_id.as_deref().unwrap();
    eventually("the job of the past is forgotten", async || {
        cluster.client.job(past).await.is_err_and(|error| error.status() == Some(404)).then_some(())
    })
    .await;
    let log = |job: &str| cluster.store("us").join(format!("logs/{job}.jsonl.zst"));
    assert!(!log(past).exists());
    assert!(!cluster.log(&again).await.is_empty());
}
