//! The shape of traces, as a collector gets them.

use slipway_api::own::{SubmitRequest, SubmitResponse};
use slipway_api::types::CreateSnapshot;
use slipway_bus::topology::SUBMIT;
use slipway_bus::trace::in_trace;
use slipway_testkit::stack;

use super::collector::{Collector, Span};
use super::{of_image, plan};
use crate::cluster::{Cluster, LIMIT, Plan, dockerfile, ticking};

/// All spans of the trace that a job is in, once its own span is there and `is_whole`
/// says that the rest is, too.
async fn trace_of(collector: &Collector, job: &str, is_whole: impl Fn(&Trace) -> bool) -> Trace {
    let find = |spans: &[Span]| {
        let own =
            spans.iter().find(|span| span.name.starts_with("job ") && span.says("job.id", job))?;
        let spans = spans.iter().filter(|span| span.trace == own.trace).cloned().collect();
        let trace = Trace { spans };
        is_whole(&trace).then_some(trace)
    };
    collector.spans("the trace of the job is whole", find).await
}

#[derive(Debug)]
struct Trace {
    spans: Vec<Span>,
}

impl Trace {
    fn named(&self, name: &str) -> Vec<&Span> {
        self.spans.iter().filter(|span| span.name == name).collect()
    }

    /// The one span of a name.
    fn one(&self, name: &str) -> &Span {
        let named = self.named(name);
        assert_eq!(named.len(), 1, "{name}: {self:#?}");
        named[0]
    }

    /// The first attempt, of which its dead worker cannot tell.
    fn lost(&self) -> Option<&Span> {
        self.attempt(|span| {
            let is_first = span.says("attempt", "1") && span.says("outcome", "worker_lost");
            is_first && span.service == "slipway-scheduler"
        })
    }

    /// The attempt that made the image.
    fn published(&self) -> Option<&Span> {
        self.attempt(|span| span.says("outcome", "published"))
    }

    fn attempt(&self, wanted: impl Fn(&Span) -> bool) -> Option<&Span> {
        self.spans.iter().find(|span| span.name == "attempt" && wanted(span))
    }

    fn has(&self, name: &str) -> bool {
        !self.named(name).is_empty()
    }

    /// Whether the parent of every span but the first is there.
    fn is_closed(&self) -> bool {
        let known = |id: &str| self.spans.iter().any(|span| span.id == id);
        let roots = self.spans.iter().filter(|span| span.parent.is_empty()).count();
        roots == 1 && self.spans.iter().all(|span| span.parent.is_empty() || known(&span.parent))
    }

    /// Asserts that each span is the child of the one before.
    fn assert_chain(&self, names: &[&str]) {
        for pair in names.windows(2) {
            let parents = self.named(pair[0]);
            let children = self.named(pair[1]);
            assert!(!children.is_empty(), "no {}: {self:#?}", pair[1]);
            for child in children {
                let is_child = parents.iter().any(|parent| parent.id == child.parent);
                assert!(is_child, "{} is not below {}: {self:#?}", pair[1], pair[0]);
            }
        }
    }
}

#[tokio::test]
async fn one_trace_leads_from_the_request_through_the_build_to_the_active_snapshot() {
    let collector = Collector::start().await;
    let cluster = Cluster::with(plan(&collector.url)).await;
    let (snapshot, _) = cluster.build("traced", dockerfile("RUN echo hello > /hello")).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let job = snapshot.job_id.as_ref().unwrap();
    let trace = trace_of(&collector, job, |trace| {
        trace.has("event published") && trace.has("event started") && trace.is_closed()
    })
    .await;

    trace.assert_chain(&["POST /api/snapshots", "job build", "dispatch", "attempt"]);
    for (parent, child) in [
        ("attempt", "prepare"),
        ("attempt", "solve"),
        ("attempt", "publish"),
        ("attempt", "event started"),
        ("attempt", "event published"),
        ("solve", "exporting to image"),
        // BuildKit's own requests, with the blobs that it pushes.
        ("solve", "PUT upload"),
        ("solve", "PUT manifest"),
    ] {
        trace.assert_chain(&[parent, child]);
    }
    let run = trace.spans.iter().find(|span| span.name.contains("RUN echo hello")).unwrap();
    assert_eq!(run.parent, trace.one("solve").id);
    assert!(run.says("outcome", "done") && run.start <= run.end, "{run:?}");
    let attempt = trace.one("attempt");
    assert_eq!(attempt.service, "slipway-worker");
    assert!(attempt.says("outcome", "published") && attempt.says("worker.id", "us-1"));
    let upload = trace.named("PUT upload")[0];
    assert!(upload.attributes["blob.digest"].starts_with("sha256:"), "{upload:?}");
    assert!(trace.one("event published").says("job.state", "succeeded"));
    let job = trace.one("job build");
    assert_eq!(job.service, "slipway-scheduler");
    assert!(job.start <= attempt.start && !job.has_failed);

    // Log lines of the attempt name the trace.
    let ended = |line: &str| line.contains("attempt ended");
    let line = cluster.worker("us-1").output().line(ended).await.unwrap();
    let ids = format!("trace_id={} span_id={}", attempt.trace, attempt.id);
    assert!(line.ends_with(&ids), "{line}");
}

#[tokio::test]
async fn a_pull_is_traced_down_to_its_layers() {
    let collector = Collector::start().await;
    let cluster = Cluster::with(plan(&collector.url)).await;
    let wanted = of_image("pulled", &stack::base_image());
    let snapshot = cluster.client.create_snapshot(&wanted).await.unwrap();
    assert_eq!(cluster.ended(&snapshot.id).await.state, "active");
    let job = snapshot.job_id.as_ref().unwrap();
    let trace = trace_of(&collector, job, |trace| {
        trace.has("event published") && trace.has("event started") && trace.is_closed()
    })
    .await;
    trace.assert_chain(&[
        "POST /api/snapshots",
        "job pull",
        "dispatch",
        "attempt",
        "fetch",
        "layer",
    ]);
    trace.assert_chain(&["attempt", "resolve"]);
    trace.assert_chain(&["attempt", "publish"]);
    let layer = trace.named("layer")[0];
    assert!(layer.says("result", "fetched") && layer.attributes.contains_key("blob.size"));
}

#[tokio::test]
async fn a_job_goes_on_in_its_trace_when_its_worker_is_killed() {
    let collector = Collector::start().await;
    let plan = Plan { workers: vec![("us", 2)], lease: "2s", ..plan(&collector.url) };
    let mut cluster = Cluster::with(plan).await;
    let snapshot = cluster.submit("survivor", ticking(25)).await;
    cluster.log_until(&snapshot, "tick 3").await;
    let first = cluster.job(&snapshot).await.attempts[0].worker.clone().unwrap();
    cluster.kill_worker(&first).await;
    assert_eq!(cluster.ended(&snapshot.id).await.state, "active");

    let job = snapshot.job_id.as_ref().unwrap();
    let told = |trace: &Trace| Some((trace.lost()?.clone(), trace.published()?.clone()));
    let trace = trace_of(&collector, job, |trace| told(trace).is_some()).await;
    let (lost, second) = told(&trace).unwrap();
    assert!(lost.has_failed && lost.says("worker.id", &first), "{lost:?}");
    assert!(lost.start < lost.end, "{lost:?}");
    assert_eq!(lost.parent, trace.one("job build").id);
    assert!(!second.says("attempt", "1") && second.service == "slipway-worker", "{second:?}");
    let sent = trace.named("dispatch");
    assert!(sent.iter().any(|span| span.id == second.parent), "{trace:#?}");
}

#[tokio::test]
async fn a_submission_over_nats_goes_on_in_the_trace_of_its_sender() {
    const SENDER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let collector = Collector::start().await;
    let cluster = Cluster::with(plan(&collector.url)).await;
    let snapshot = CreateSnapshot {
        region_id: Some("us".into()),
        ..of_image("by-nats", &stack::base_image())
    };
    let request = SubmitRequest { api_key: cluster.key.clone(), snapshot };
    let bus = cluster.bus().await;
    let call = bus.call::<_, SubmitResponse>(SUBMIT, &request, LIMIT);
    let answer = in_trace(SENDER.parse().unwrap(), call).await.unwrap();
    cluster.ended(&answer.snapshot_id).await;
    let trace = trace_of(&collector, &answer.job_id, |trace| trace.has("attempt")).await;
    trace.assert_chain(&["slipway.submit", "job pull", "dispatch", "attempt"]);
    let received = trace.one("slipway.submit");
    assert_eq!(
        (received.trace.as_str(), received.parent.as_str()),
        (&SENDER[3..35], &SENDER[36..52])
    );
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_spans_and_no_work() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut plan = plan(&format!("http://{}", silent.local_addr().unwrap()));
    // Fewer than one build has, so that the queue is full.
    plan.env.push(("OTEL_BSP_MAX_QUEUE_SIZE", "4".to_owned()));
    plan.env.push(("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2".to_owned()));
    let cluster = Cluster::with(plan).await;
    let (snapshot, _) = cluster.build("unheard", dockerfile("RUN echo hello > /hello")).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    // It was really asked, by somebody who still waits for the answer.
    let (_asked, _) = tokio::time::timeout(LIMIT, silent.accept()).await.unwrap().unwrap();
    let worker = cluster.worker("us-1");
    worker.terminate();
    let ended = tokio::time::timeout(LIMIT, worker.wait()).await.expect("it stops all the same");
    assert!(ended.success(), "{ended}");
}
