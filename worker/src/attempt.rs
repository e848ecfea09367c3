//! One attempt, from its claim to its last event.
//!
//! Invariant: the last event is published only after the whole log is stored,
//! and not at all once the lease is lost.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use slipway_bus::Bus;
use slipway_domain::failure::FailureKind;
use slipway_domain::log::LogSource;
use slipway_domain::message::{EventMessage, JobMessage, VERSION, WorkerEvent};
use slipway_domain::{BuiltImage, Failure};
use slipway_runtime::{Tasks, telemetry};

use crate::config::Config;
use crate::lease::Held;
use crate::log::{Address, LogSink, LogWriter};
use crate::metrics::Metrics;

/// Does the work of a job. Dropping the future must stop the work.
#[async_trait]
pub trait Executor: Send + Sync + 'static {
    /// Waits until what the executor relies on answers again, after an attempt
    /// failed for want of it: a worker that fails fast would otherwise take
    /// every job of its region, and fail it.
    async fn recovered(&self);

    /// Runs a job and returns its image, which lies in the object store then.
    async fn execute(&self, job: &JobMessage, log: LogSink) -> Result<BuiltImage, Failure>;
}

/// A claimed attempt.
pub struct Attempt<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) config: &'a Config,
    pub(crate) tasks: &'a Tasks,
    pub(crate) executor: &'a dyn Executor,
    pub(crate) message: JobMessage,
    pub(crate) lease: Held,
    pub(crate) metrics: &'a Metrics,
}

impl Attempt<'_> {
    /// Runs it. Returns when it has ended, whichever way, with the reason if it
    /// failed.
    pub async fn run(self) -> Option<FailureKind> {
        let (job, attempt) = (self.message.job, self.lease.attempt);
        let (kind, began, _running) =
            (self.message.spec.kind(), Instant::now(), self.metrics.runs());
        tracing::info!(job.id = %job, %attempt, "attempt started");
        // Cancel-safe: both ways of ending give up the other for good.
        let ended = tokio::select! {
            () = self.lease.lost() => None,
            ended = self.work() => Some(ended),
            () = self.start_again() => None,
        };
        let Some((event, failure)) = ended else {
            tracing::warn!(job.id = %job, %attempt, "attempt stopped: its lease is lost");
            self.metrics.lease_lost(kind, began.elapsed());
            note_outcome("lease_lost", true);
            return None;
        };
        tracing::info!(job.id = %job, %attempt, event, "attempt ended");
        self.metrics.ended(kind, failure, began.elapsed());
        note_outcome(failure.map_or("published", FailureKind::as_str), failure.is_some());
        failure
    }

    /// Reports the start once more whenever the lease was taken again: if the job was
    /// given to somebody else meanwhile, the scheduler closes the lease. Never ends.
    async fn start_again(&self) {
        for nth in 1_u32.. {
            self.lease.retaken().await;
            self.report_as(WorkerEvent::Started, &format!("started/{nth}")).await;
        }
    }

    async fn work(&self) -> (&'static str, Option<FailureKind>) {
        self.report(WorkerEvent::Started).await;
        let address = Address {
            region: self.config.region.clone(),
            worker: self.config.id.clone(),
            job: self.message.job,
            attempt: self.lease.attempt,
        };
        let (sink, writer) = LogWriter::start(self.bus, address, self.tasks);
        if self.lease.attempt.number.get() > 1 {
            let text = format!("attempt {} on worker {}", self.lease.attempt, self.config.id);
            sink.line(LogSource::System, text).await;
        }
        let outcome = self.execute(sink).await;
        if let Err(error) = writer.finish().await {
            let error = telemetry::chain(&error);
            tracing::error!(job.id = %self.message.job, error, "the log was not stored");
        }
        let (event, failure) = match outcome {
            Ok(image) => (WorkerEvent::Published(image), None),
            Err(failure) => {
                let kind = failure.kind;
                (WorkerEvent::Failed(failure), Some(kind))
            }
        };
        let name = event.name();
        self.report(event).await;
        (name, failure)
    }

    /// The outcome of the executor, or of what ends it early.
    async fn execute(&self, sink: LogSink) -> Result<BuiltImage, Failure> {
        let limit = Duration::from_secs(self.message.time_limit_seconds);
        // Cancel-safe: whichever comes first ends the attempt; the executor stops
        // its work when it is dropped.
        tokio::select! {
            outcome = self.executor.execute(&self.message, sink) => outcome,
            () = tokio::time::sleep(limit) => {
                let work = self.message.spec.kind().as_str();
                let limit = minutes(limit);
                let message = format!("the {work} took longer than {limit} and was stopped");
                Err(Failure::new(FailureKind::TimedOut, message))
            }
            () = self.tasks.shutdown().cancelled() => {
                let message = format!("worker `{}` is shutting down", self.config.id);
                Err(Failure::new(FailureKind::HandedBack, message))
            }
        }
    }

    /// Reports, and goes on trying until it is stored.
    async fn report(&self, event: WorkerEvent) {
        let name = event.name();
        self.report_as(event, name).await;
    }

    /// Reports under a name of its own, so that it is not taken for a repeat.
    async fn report_as(&self, event: WorkerEvent, name: &str) {
        let (job, attempt) = (self.message.job, self.lease.attempt);
        let id = format!("{job}/{attempt}/{}/{name}", attempt.nonce);
        let message = EventMessage {
            version: VERSION,
            job,
            attempt,
            worker: self.config.id.clone(),
            at: Timestamp::now(),
            event,
        };
        let (region, worker) = (&self.config.region, &self.config.id);
        let published = self.bus.events().publish(region, worker, job, &message, &id).await;
        if let Err(error) = published {
            let error = telemetry::chain(&error);
            tracing::error!(job.id = %job, error, "an event was refused by NATS");
        }
    }
}

/// Says in the attempt's span how it ended.
fn note_outcome(outcome: &'static str, has_failed: bool) {
    let span = tracing::Span::current();
    span.record("outcome", outcome);
    if has_failed {
        span.record("otel.status_code", "ERROR");
    }
}

/// A duration as people say it.
fn minutes(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}
