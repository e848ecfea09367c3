//! Logs: live and late, by many readers, in every form.

use futures::future::join_all;
use slipway_domain::LogSeq;

use crate::cluster::{Cluster, assert_gapless, dockerfile, eventually, line, ticking};

async fn raw(cluster: &Cluster, name: &str, follow: bool) -> Vec<u8> {
    let url = format!("http://{}/api/snapshots/{name}/build-logs?follow={follow}", cluster.api);
    let response = reqwest::Client::new().get(url).bearer_auth(&cluster.key).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/octet-stream");
    response.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn twenty_live_readers_get_byte_for_byte_what_is_stored() {
    let cluster = Cluster::start().await;
    let snapshot = cluster.submit("watched", ticking(20)).await;
    // Half of them from the beginning, half when it is under way.
    let early = join_all((0..10).map(|_| raw(&cluster, "watched", true)));
    let late = async {
        cluster.log_until(&snapshot, "tick 4").await;
        join_all((0..10).map(|_| raw(&cluster, "watched", true))).await
    };
    let (early, late) = tokio::join!(early, late);
    archived(&cluster, &snapshot.id).await;
    let stored = raw(&cluster, "watched", false).await;
    let text = String::from_utf8(stored.clone()).unwrap();
    assert!(text.contains("tick 20"), "{text}");
    for read in early.iter().chain(&late) {
        assert_eq!(*read, stored);
    }
    let followed = raw(&cluster, "watched", true).await;
    assert_eq!(followed, stored, "to follow what has ended is to read it");
}

/// Waits until a log lies in the object store.
async fn archived(cluster: &Cluster, id: &str) {
    let snapshot = cluster.ended(id).await;
    let job = snapshot.job_id.unwrap();
    let file = cluster.store("us").join("logs").join(format!("{job}.jsonl.zst"));
    eventually("the log is archived", async || file.exists().then_some(())).await;
    // From then on it is read from there alone.
    let (logs, job) = (cluster.bus().await.logs(), job.parse().unwrap());
    let region = "us".parse().unwrap();
    eventually("the stream is purged", async || {
        logs.read_all(&region, job).await.unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn reading_resumes_after_any_sequence_number() {
    let cluster = Cluster::start().await;
    let (snapshot, whole) = cluster.build("resumed", dockerfile("RUN seq 1 200")).await;
    assert_gapless(&whole);
    archived(&cluster, &snapshot.id).await;
    let job = snapshot.job_id.unwrap();
    for cut in [0, 1, whole.len() / 2, whole.len() - 1, whole.len()] {
        let after = cut.checked_sub(1).map_or(LogSeq::ZERO, |last| whole[last].seq);
        let mut events = cluster.client.job_events(&job, after, false).unwrap();
        let mut rest = vec![];
        while let Some(event) = events.next().await {
            if let slipway_api::events::JobEvent::Log(entry) = event.unwrap() {
                rest.push(entry);
            }
        }
        assert_eq!(rest, whole[cut..], "after {after}");
    }
}

#[tokio::test]
async fn many_lines_arrive_whole_and_in_order() {
    let cluster = Cluster::start().await;
    let count = 20_000;
    let build = dockerfile(&format!("RUN seq 1 {count} | sed 's/.*/line & of many/'"));
    let (snapshot, log) = cluster.build("chatty", build).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    assert_gapless(&log);
    let mut wanted = 1;
    for text in log.iter().filter_map(line).filter(|line| line.ends_with(" of many")) {
        assert!(text.ends_with(&format!(" line {wanted} of many")), "{text} is not {wanted}");
        wanted += 1;
    }
    assert_eq!(wanted, count + 1);
}

#[tokio::test]
async fn the_url_of_a_log_leads_to_it() {
    let cluster = Cluster::start().await;
    cluster.build("a/b:1", dockerfile("RUN echo found")).await;
    let url = format!("http://{}/api/snapshots/a%2Fb%3A1/build-logs-url", cluster.api);
    let get = async |url: &str| {
        reqwest::Client::new().get(url).bearer_auth(&cluster.key).send().await.unwrap()
    };
    let answer: serde_json::Value = get(&url).await.json().await.unwrap();
    let log = get(&format!("{}?follow=true", answer["url"].as_str().unwrap())).await;
    assert!(log.text().await.unwrap().contains("found"));
}
