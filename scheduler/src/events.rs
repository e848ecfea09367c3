//! Events of workers: from a region's stream into the ledger.

use std::sync::Arc;
use std::time::Duration;

use slipway_bus::events::EventDelivery;
use slipway_bus::{Bus, TraceParent};
use slipway_domain::failure::FailureKind;
use slipway_domain::job::JobEvent;
use slipway_domain::message::{EventMessage, VERSION, WorkerEvent};
use slipway_domain::{Attempt, Failure, Region};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::ledger::Moved;
use crate::settle::Settler;
use crate::trace;
use slipway_runtime::{Tasks, telemetry};

/// Events of one region applied at the same time.
const CONCURRENT: usize = 64;
/// Pause before an event that could not be stored is delivered again.
const RETRY: Duration = Duration::from_secs(1);

/// Applies the events of a region until shutdown.
pub async fn run(
    bus: Bus,
    region: Region,
    settler: Arc<Settler>,
    tasks: Tasks,
    shutdown: CancellationToken,
) {
    let mut events = bus.events().consume(&region);
    let slots = Arc::new(Semaphore::new(CONCURRENT));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // Cancel-safe: the consumer says so.
        let event = tokio::select! {
            () = shutdown.cancelled() => break,
            event = events.next::<EventMessage>() => event,
        };
        let settler = settler.clone();
        tasks.spawn("event", async move {
            handle(&settler, event).await;
            drop(slot);
        });
    }
    events.stop().await;
}

async fn handle(settler: &Settler, delivery: EventDelivery<EventMessage>) {
    let message = match &delivery.payload {
        Ok(message) if message.version == VERSION => message,
        Ok(message) => {
            let reason = format!("unknown version {}", message.version);
            return put_away(settler, &delivery, message.version, &reason).await;
        }
        Err(poison) => {
            let reason = telemetry::chain(poison);
            return put_away(settler, &delivery, poison.version().unwrap_or(0), &reason).await;
        }
    };
    if message.job != delivery.job || message.worker != delivery.worker {
        // The subject is what the worker's permissions vouch for.
        let reason = "it speaks for another job or worker than its subject";
        return refuse(settler, &delivery, reason).await;
    }
    if matches!(message.event, WorkerEvent::Unreadable { .. }) {
        return unread(settler, &delivery, message).await;
    }
    let parent = delivery.trace.as_ref().map(TraceParent::as_str);
    apply(settler, &delivery, message).instrument(trace::event(message, parent)).await;
    if message.event == WorkerEvent::Started {
        settler.stop_unless_running(message).await;
    }
}

async fn apply(settler: &Settler, delivery: &EventDelivery<EventMessage>, message: &EventMessage) {
    let (ledger, span) = (&settler.ledger, Span::current());
    let event = job_event(message, ledger.max_size(&message.job));
    let outcome = match ledger.move_job(message.job, event).await {
        Ok(Moved::Applied) => {
            settler.metrics.event("applied");
            span.record("result", "applied");
            if let Some(job) = settler.view.records().job(&message.job) {
                span.record("job.state", job.value.state.name());
            }
            tracing::info!(
                job.id = %message.job,
                worker.id = %message.worker,
                attempt = %message.attempt,
                event = message.event.name(),
                "event applied"
            );
            delivery.ack().await
        }
        Ok(Moved::Refused(reason)) => {
            settler.metrics.event("refused");
            span.record("result", "refused");
            tracing::warn!(worker.id = %message.worker, %reason, "event refused");
            delivery.ack().await
        }
        Ok(Moved::Unknown) => {
            settler.metrics.event("unknown");
            tracing::info!(job.id = %message.job, "event of a job that is gone");
            delivery.ack().await
        }
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(job.id = %message.job, error, "event not stored, it comes again");
            delivery.nak(RETRY).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(job.id = %message.job, %error, "event not confirmed, it comes again");
    }
}

/// What a worker found in the queue, and nobody can read, is the message of the
/// attempt that waits, if that has no other: then this attempt has failed.
async fn unread(settler: &Settler, delivery: &EventDelivery<EventMessage>, message: &EventMessage) {
    let confirmed = match settler.without_message(message.job).await {
        Ok(Some(number)) => {
            let attempt = Attempt { number, ..message.attempt };
            let parent = delivery.trace.as_ref().map(TraceParent::as_str);
            let span = trace::event(message, parent);
            let message = EventMessage { attempt, ..message.clone() };
            return apply(settler, delivery, &message).instrument(span).await;
        }
        Ok(None) => {
            settler.metrics.event("refused");
            tracing::warn!(
                job.id = %message.job,
                worker.id = %message.worker,
                "something that cannot be read was in the queue, and no job lacks its message"
            );
            delivery.ack().await
        }
        Err(error) => {
            let error = telemetry::chain(&error);
            tracing::warn!(job.id = %message.job, error, "event not looked into, it comes again");
            delivery.nak(RETRY).await
        }
    };
    if let Err(error) = confirmed {
        tracing::debug!(job.id = %message.job, %error, "event not confirmed, it comes again");
    }
}

/// An event of a newer form is left to another replica; what is none is thrown away.
async fn put_away(
    settler: &Settler,
    delivery: &EventDelivery<EventMessage>,
    version: u32,
    reason: &str,
) {
    if version <= VERSION {
        return refuse(settler, delivery, reason).await;
    }
    settler.metrics.event("newer");
    tracing::warn!(
        worker.id = %delivery.worker,
        job.id = %delivery.job,
        version,
        "an event of a newer version is left to others"
    );
    if let Err(error) = delivery.pass_on().await {
        tracing::debug!(%error, "event not confirmed, it comes again");
    }
}

async fn refuse(settler: &Settler, delivery: &EventDelivery<EventMessage>, reason: &str) {
    settler.metrics.event("unreadable");
    tracing::warn!(worker.id = %delivery.worker, job.id = %delivery.job, reason, "event thrown away");
    if let Err(error) = delivery.term(reason).await {
        tracing::debug!(%error, "event not confirmed, it comes again");
    }
}

/// What a worker's report means for its job.
pub fn job_event(message: &EventMessage, max_size: u64) -> JobEvent {
    let (attempt, worker) = (message.attempt, message.worker.clone());
    match message.event.clone() {
        WorkerEvent::Started => JobEvent::Started { attempt, worker },
        WorkerEvent::Published(image) if image.size > max_size => {
            let failure = Failure::size_exceeded(image.size, max_size);
            JobEvent::Failed { attempt, worker, failure }
        }
        WorkerEvent::Published(image) => JobEvent::Published { attempt, worker, image },
        WorkerEvent::Failed(failure) => {
            // Whatever its worker thinks of bounds.
            JobEvent::Failed { attempt, worker, failure: failure.bounded() }
        }
        WorkerEvent::Unreadable { reason } => {
            let message = format!("worker `{worker}` cannot read the job's message: {reason}");
            let failure = Failure::new(FailureKind::MessageUnreadable, message);
            JobEvent::Failed { attempt, worker, failure }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::failure::MAX_MESSAGE;
    use slipway_domain::{AttemptNumber, BuiltImage, JobId, Nonce};
    use slipway_oci::Digest;
    use uuid::Uuid;

    use super::*;

    const GIB: u64 = 1 << 30;

    fn failure(event: WorkerEvent, max_size: u64) -> Option<Failure> {
        let nonce = Nonce::from_uuid(Uuid::from_u128(2));
        let message = EventMessage {
            version: VERSION,
            job: JobId::from_uuid(Uuid::from_u128(1)),
            attempt: Attempt { number: AttemptNumber::FIRST, nonce },
            worker: "w1".parse().unwrap(),
            at: jiff::Timestamp::UNIX_EPOCH,
            event,
        };
        match job_event(&message, max_size) {
            JobEvent::Failed { failure, .. } => Some(failure),
            _ => None,
        }
    }

    #[test]
    fn an_image_that_is_larger_than_allowed_fails_its_job_and_says_so() {
        let image = BuiltImage {
            digest: Digest::sha256("manifest"),
            config_digest: Digest::sha256("config"),
            size: 3 * GIB,
            entrypoint: vec![],
            cmd: vec![],
            layers: 1,
            cached_steps: 0,
            total_steps: 1,
        };
        assert_eq!(failure(WorkerEvent::Published(image.clone()), 3 * GIB), None);
        let larger = BuiltImage { size: 3 * GIB + GIB / 4, ..image };
        let failure = failure(WorkerEvent::Published(larger), 3 * GIB).unwrap();
        assert_eq!(failure.kind, FailureKind::TooLarge);
        assert_eq!(failure.message, "Snapshot size (3.25GB) exceeds maximum allowed size of 3GB");
    }

    #[test]
    fn a_reason_is_bounded_whatever_its_worker_sends() {
        let message = format!("first line\n{} last", "x".repeat(2 * MAX_MESSAGE));
        let sent = Failure { message, ..Failure::new(FailureKind::RunFailed, "") };
        let kept = failure(WorkerEvent::Failed(sent), GIB).unwrap().message;
        assert_eq!(kept.chars().count(), MAX_MESSAGE);
        assert!(kept.starts_with("first line\n…\n") && kept.ends_with("x last"));
    }
}
