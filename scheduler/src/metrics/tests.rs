#![allow(clippy::unwrap_used)]
use jiff::{SignedDuration, Timestamp};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use slipway_domain::failure::FailureKind;
use slipway_domain::job::{JobEvent, NewJob, RetryPolicy};
use slipway_domain::{
    Attempt, AttemptNumber, Class, Failure, JobId, Nonce, OrganizationId, SnapshotId, WorkerId,
};
use uuid::Uuid;

use super::gauges::backlogs;
use super::*;
use crate::view::{Value, View};

fn job() -> JobRecord {
    let id = Uuid::from_u128(7);
    let new = NewJob {
        id: JobId::from_uuid(id),
        organization: OrganizationId::from_uuid(id),
        snapshot: SnapshotId::from_uuid(id),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        kind: JobKind::Build,
        trace: None,
    };
    JobRecord::new(new, Timestamp::UNIX_EPOCH)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

/// The sums of a counter by the value of one label.
fn sums(exporter: &InMemoryMetricExporter, name: &str, label: &str) -> Vec<(String, u64)> {
    let last = exporter.get_finished_metrics().unwrap().pop().unwrap();
    let metrics: Vec<_> = last.scope_metrics().flat_map(|scope| scope.metrics()).collect();
    let metric = metrics.iter().find(|metric| metric.name() == name).unwrap();
    let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { panic!("no sum") };
    let points = sum.data_points().map(|point| {
        let word = point.attributes().find(|pair| pair.key.as_str() == label).unwrap();
        (word.value.to_string(), point.value())
    });
    let mut points: Vec<_> = points.collect();
    points.sort();
    points
}

#[test]
fn every_end_of_an_attempt_and_of_a_job_counts_once() {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let metrics = Metrics::new(&provider.meter("test"), std::iter::empty());
    let worker: WorkerId = "us-1".parse().unwrap();
    let attempt = |number| Attempt { number, nonce: Nonce::from_uuid(Uuid::from_u128(1)) };
    let (first, second) = (AttemptNumber::FIRST, AttemptNumber::FIRST.next());
    let failure = Failure::new(FailureKind::RunFailed, "no");
    let failed = JobEvent::Failed { attempt: attempt(second), worker: worker.clone(), failure };
    let events = [
        JobEvent::Started { attempt: attempt(first), worker: worker.clone() },
        JobEvent::LeaseLost { attempt: attempt(first) },
        JobEvent::Started { attempt: attempt(second), worker },
        failed.clone(),
        failed,
    ];
    let mut job = job();
    metrics.submitted(&job);
    for (n, event) in events.into_iter().enumerate() {
        let next = job.apply(event, at(n as i64), &RetryPolicy::default()).unwrap().next;
        metrics.moved(&job, &next);
        job = next;
    }
    provider.force_flush().unwrap();
    let one = |word: &str| (word.to_owned(), 1);
    assert_eq!(
        sums(&exporter, "slipway.attempts.ended", "outcome"),
        [one("run_failed"), one("worker_lost")]
    );
    assert_eq!(sums(&exporter, "slipway.jobs.ended", "reason"), [one("run_failed")]);
    assert_eq!(sums(&exporter, "slipway.jobs.submitted", "region"), [one("us")]);
}

#[test]
fn empty_queues_are_shown_and_the_oldest_job_gives_the_age() {
    let view = View::default();
    view.change_records(|records| records.put(Value::Job(job()), 1));
    let queues =
        [Class::Cpu, Class::Gpu].map(|class| ("us".parse::<Region>().unwrap(), class)).to_vec();
    let seen = backlogs(&view, &queues, at(90));
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[&queues[0]].queued, seen[&queues[0]].oldest), (1, 90.0));
    assert_eq!(seen[&queues[1]], gauges::Backlog::default());
}
