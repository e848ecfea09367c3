//! A job in its trace: what the scheduler knows about it once it has happened.
//!
//! A job's span is recorded by whoever stores its end, so that it is recorded
//! once, whichever scheduler took the request. The span of an attempt is its
//! worker's; that of a worker that died is recorded here.

use std::time::SystemTime;

use jiff::Timestamp;
use opentelemetry::KeyValue;
use slipway_domain::failure::FailureKind;
use slipway_domain::job::{AttemptRecord, JobRecord, JobTrace};
use slipway_domain::message::EventMessage;
use slipway_runtime::telemetry::trace::{self, Ended};
use tracing::Span;

/// The place in a trace of a job that the current request submits.
pub fn begin() -> JobTrace {
    let request = trace::current();
    JobTrace::new(&trace::promise(request.as_deref()), request.as_deref())
}

/// The sending of a job's message, as a part of the job.
pub fn dispatch(job: &JobRecord) -> Span {
    let span = tracing::info_span!(
        "dispatch",
        otel.kind = "producer",
        job.id = %job.id,
        region = %job.region,
        attempt = %job.current_attempt(),
    );
    trace::set_parent(&span, job.trace.as_ref().map(|place| &*place.own));
    span
}

/// What follows from the event of a worker, which came with `parent`.
pub fn event(message: &EventMessage, parent: Option<&str>) -> Span {
    let span = tracing::info_span!(
        "event",
        otel.name = format!("event {}", message.event.name()),
        otel.kind = "consumer",
        job.id = %message.job,
        worker.id = %message.worker,
        attempt = %message.attempt,
        result = tracing::field::Empty,
        job.state = tracing::field::Empty,
    );
    trace::set_parent(&span, parent);
    span
}

/// A request over NATS, which came with `parent`.
pub fn request(subject: &'static str, parent: Option<&str>) -> Span {
    let span = tracing::info_span!("request", otel.name = subject, otel.kind = "server");
    trace::set_parent(&span, parent);
    span
}

/// A job moved, and that is stored.
pub fn moved(before: &JobRecord, next: &JobRecord) {
    let Some(place) = &next.trace else { return };
    let known = before.attempts.iter().filter(|attempt| attempt.ended_at.is_some()).count();
    let ended = next.attempts.iter().filter(|attempt| attempt.ended_at.is_some());
    for attempt in ended.skip(known).filter(|attempt| is_lost(attempt)) {
        lost(next, place, attempt);
    }
    if next.state.is_over() && !before.state.is_over() {
        over(next, place);
    }
}

fn is_lost(attempt: &AttemptRecord) -> bool {
    attempt.failure.as_ref().is_some_and(|failure| failure.kind == FailureKind::WorkerLost)
}

fn lost(job: &JobRecord, place: &JobTrace, attempt: &AttemptRecord) {
    let mut attributes = of(job);
    attributes.push(KeyValue::new("attempt", i64::from(attempt.number.get())));
    if let Some(worker) = &attempt.worker {
        attributes.push(KeyValue::new("worker.id", worker.to_string()));
    }
    attributes.push(KeyValue::new("outcome", FailureKind::WorkerLost.as_str()));
    let end = attempt.ended_at.unwrap_or(job.updated_at);
    Ended {
        name: "attempt".to_owned(),
        parent: Some(&place.own),
        own: None,
        start: time(attempt.started_at.unwrap_or(end)),
        end: time(end),
        attributes,
        error: attempt.failure.as_ref().map(|failure| failure.message.clone()),
    }
    .record();
}

fn over(job: &JobRecord, place: &JobTrace) {
    let mut attributes = of(job);
    attributes.push(KeyValue::new("job.state", job.state.name()));
    attributes.push(KeyValue::new("attempts", job.attempts.len() as i64));
    Ended {
        name: format!("job {}", job.kind.as_str()),
        parent: place.request().as_deref(),
        own: Some(&place.own),
        start: time(job.created_at),
        end: time(job.updated_at),
        attributes,
        error: job.state.failure().map(|failure| failure.kind.as_str().to_owned()),
    }
    .record();
}

fn of(job: &JobRecord) -> Vec<KeyValue> {
    vec![
        KeyValue::new("job.id", job.id.to_string()),
        KeyValue::new("snapshot.id", job.snapshot.to_string()),
        KeyValue::new("region", job.region.to_string()),
        KeyValue::new("class", job.class.as_str()),
    ]
}

fn time(time: Timestamp) -> SystemTime {
    SystemTime::from(time)
}
