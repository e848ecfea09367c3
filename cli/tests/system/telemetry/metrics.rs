//! Metrics as a scraper gets them.

use std::collections::BTreeMap;

use slipway_testkit::{Child, stack};

use super::collector::Collector;
use super::{of_image, plan};
use crate::cluster::{Cluster, dockerfile, eventually};

/// The samples of one scrape.
pub struct Scrape(prometheus_parse::Scrape);

impl Scrape {
    /// Scrapes a process, where its log says.
    pub async fn of(process: &Child) -> Self {
        let serves = |line: &str| line.contains("metrics are served");
        let line = process.output().line(serves).await.unwrap();
        let address = line.rsplit_once("address=").unwrap().1.trim().to_owned();
        let answer = reqwest::get(format!("http://{address}/metrics")).await.unwrap();
        assert!(answer.status().is_success());
        let text = answer.text().await.unwrap();
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        Self(prometheus_parse::Scrape::parse(lines).unwrap())
    }

    /// The sum over all samples of a name whose labels have these values.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |sample: &&prometheus_parse::Sample| {
            sample.metric == name
                && labels.iter().all(|(key, value)| sample.labels.get(key) == Some(*value))
        };
        let values = self.0.samples.iter().filter(fits).map(|sample| match &sample.value {
            prometheus_parse::Value::Counter(value)
            | prometheus_parse::Value::Gauge(value)
            | prometheus_parse::Value::Untyped(value) => *value,
            prometheus_parse::Value::Histogram(buckets) => {
                buckets.last().map_or(0.0, |bucket| bucket.count)
            }
            prometheus_parse::Value::Summary(_) => panic!("there are no summaries"),
        });
        values.reduce(|sum, value| sum + value)
    }

    /// Every name that a query may use, with its labels.
    pub fn names(&self) -> BTreeMap<String, Vec<String>> {
        let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for sample in &self.0.samples {
            let labels: Vec<String> = sample.labels.keys().cloned().collect();
            if let prometheus_parse::Value::Histogram(_) = sample.value {
                let le = [labels.clone(), vec!["le".to_owned()]].concat();
                names.entry(format!("{}_bucket", sample.metric)).or_default().extend(le);
            }
            names.entry(sample.metric.clone()).or_default().extend(labels);
        }
        names
    }
}

/// A cluster that has done a bit of everything.
async fn busy(cluster: &Cluster) {
    let (built, _) = cluster.build("built", dockerfile("RUN echo hello > /hello")).await;
    assert_eq!(built.state, "active", "{:?}", built.error_reason);
    let (failed, _) = cluster.build("failed", dockerfile("RUN exit 3")).await;
    assert_eq!(failed.state, "build_failed");
    let wanted = of_image("pulled", &stack::base_image());
    let pulled = cluster.client.create_snapshot(&wanted).await.unwrap();
    assert_eq!(cluster.ended(&pulled.id).await.state, "active");
}

#[tokio::test]
async fn scrapes_show_what_the_parts_did() {
    let cluster = Cluster::start().await;
    busy(&cluster).await;
    // What is stored is seen a moment before it is counted.
    let scheduler = eventually("the scheduler has counted every end", async || {
        let scheduler = Scrape::of(&cluster.scheduler).await;
        let published = [("build", 1.0), ("pull", 1.0)].map(|(kind, wanted)| {
            let labels = [("kind", kind), ("outcome", "published")];
            scheduler.sum("slipway_attempts_ended_total", &labels) == Some(wanted)
                && scheduler.sum("slipway_snapshots_bytes_total", &[("kind", kind)]).is_some()
        });
        let durations = scheduler.sum("slipway_job_duration_seconds", &[]);
        (published == [true, true] && durations == Some(3.0)).then_some(scheduler)
    })
    .await;
    let ended = |kind, state, reason| {
        let labels = [("region", "us"), ("kind", kind), ("state", state), ("reason", reason)];
        scheduler.sum("slipway_jobs_ended_total", &labels)
    };
    assert_eq!(ended("build", "succeeded", "none"), Some(1.0));
    assert_eq!(ended("build", "failed", "run_failed"), Some(1.0));
    assert_eq!(ended("pull", "succeeded", "none"), Some(1.0));
    assert_eq!(scheduler.sum("slipway_jobs_submitted_total", &[]), Some(3.0));
    assert_eq!(scheduler.sum("slipway_job_duration_seconds", &[("kind", "build")]), Some(2.0));
    for region in ["us", "eu", "us-east-1"] {
        let labels = [("region", region), ("class", "cpu")];
        assert_eq!(scheduler.sum("slipway_jobs_queued", &labels), Some(0.0));
        assert_eq!(scheduler.sum("slipway_jobs_queue_age_seconds", &labels), Some(0.0));
    }
    assert_eq!(scheduler.sum("slipway_nats_connected", &[]), Some(1.0));
    assert_eq!(scheduler.sum("slipway_workers", &[("region", "us")]), Some(1.0));
    let created = [
        ("http_route", "/api/snapshots"),
        ("http_request_method", "POST"),
        ("http_response_status_code", "200"),
    ];
    // Three were created, whatever the status of success is.
    let posts = scheduler.sum("http_server_request_duration_seconds", &created[..2]);
    assert_eq!(posts, Some(3.0), "{created:?}");
    assert_no_ids(&scheduler);

    // The worker counts an attempt's end after it has reported it.
    let attempts = [("kind", "build"), ("outcome", "published")];
    let worker = eventually("the worker has counted its attempts", async || {
        let worker = Scrape::of(cluster.worker("us-1")).await;
        (worker.sum("slipway_worker_running", &[]) == Some(0.0)).then_some(worker)
    })
    .await;
    assert_eq!(worker.sum("slipway_attempt_duration_seconds", &attempts), Some(1.0));
    assert_eq!(worker.sum("slipway_worker_claims_total", &[("result", "claimed")]), Some(3.0));
    for phase in ["prepare", "solve", "push", "publish", "resolve", "fetch"] {
        let phases = worker.sum("slipway_attempt_phase_duration_seconds", &[("phase", phase)]);
        assert!(phases > Some(0.0), "{phase}");
    }
    assert!(worker.sum("slipway_registry_received_bytes_total", &[]) > Some(0.0));
    assert!(
        worker.sum("http_server_request_duration_seconds", &[("http_route", "upload")]) > Some(0.0)
    );
    assert_no_ids(&worker);
}

/// No label has a value of which there may be many.
fn assert_no_ids(scrape: &Scrape) {
    for sample in &scrape.0.samples {
        for (label, value) in sample.labels.iter() {
            let is_id = uuid::Uuid::parse_str(value).is_ok() || value.contains("sha256");
            assert!(!is_id, "{}: {label}={value}", sample.metric);
        }
    }
}

#[tokio::test]
async fn the_same_metrics_are_sent_to_a_collector() {
    let collector = Collector::start().await;
    let cluster = Cluster::with(plan(&collector.url)).await;
    let (built, _) = cluster.build("built", dockerfile("RUN echo hello > /hello")).await;
    assert_eq!(built.state, "active", "{:?}", built.error_reason);
    collector.metric("slipway-scheduler", "slipway.jobs.ended").await;
    collector.metric("slipway-scheduler", "slipway.jobs.queued").await;
    collector.metric("slipway-worker", "slipway.attempt.phase.duration").await;
}

/// A metric's name in a query, with the label names in its braces and its `by`.
struct Named {
    metric: String,
    labels: Vec<String>,
}

/// Every metric that a query of PromQL names.
fn named(query: &str) -> Vec<Named> {
    let by: Vec<String> = query
        .match_indices("by (")
        .flat_map(|(at, _)| {
            let list = query[at + 4..].split(')').next().unwrap();
            list.split(',').map(|label| label.trim().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = query.char_indices().filter(|(at, _)| {
        let rest = &query[*at..];
        let begins = rest.starts_with("slipway_") || rest.starts_with("http_server_");
        begins && !query[..*at].ends_with(is_word)
    });
    let metrics = starts.map(|(at, _)| {
        let rest = &query[at..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let braces =
            rest[end..].strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
        let selected = braces.split(',').filter_map(|pair| pair.split_once(['=', '!']));
        let selected = selected.map(|(label, _)| label.trim().to_owned());
        let labels = by.iter().cloned().chain(selected).collect();
        Named { metric: rest[..end].to_owned(), labels }
    });
    metrics.collect()
}

#[tokio::test]
async fn every_metric_and_label_of_the_dashboard_is_in_a_scrape() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana/slipway.json");
    let dashboard: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 20, "{queries:?}");

    let cluster = Cluster::start().await;
    busy(&cluster).await;
    let known = eventually("every metric has a sample", async || {
        let mut known = Scrape::of(&cluster.scheduler).await.names();
        for (name, labels) in Scrape::of(cluster.worker("us-1")).await.names() {
            known.entry(name).or_default().extend(labels);
        }
        let has = |query: &&str| named(query).iter().all(|named| known.contains_key(&named.metric));
        queries.iter().all(has).then_some(known)
    })
    .await;
    for query in &queries {
        assert!(!named(query).is_empty(), "{query}");
        for Named { metric, labels } in named(query) {
            let has = &known[&metric];
            // The scraper adds `instance`.
            let missing: Vec<_> = labels
                .iter()
                .filter(|label| *label != "instance" && !has.contains(label))
                .collect();
            assert!(missing.is_empty(), "{metric} has no {missing:?}, only {has:?}: {query}");
        }
    }
}
