//! The streams that [`crate::floor`] measures with, set up as the real ones are.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};

use super::{JOB_ACK_WAIT, JOB_MAX_ACK_PENDING, JOB_MAX_WAITING, Topology, base};

/// A stream of a floor; see [`crate::floor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// As jobs are queued.
    Queue,
    /// As events are kept.
    Events,
    /// As a bucket keeps values.
    Values,
}

impl Part {
    pub(crate) const ALL: [Self; 3] = [Self::Queue, Self::Events, Self::Values];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Events => "events",
            Self::Values => "values",
        }
    }
}

/// The consumer of a floor's queue.
pub(crate) const CONSUMER: &str = "floor";

pub(crate) fn stream(run: &str, part: Part) -> String {
    format!("FLOOR_{run}_{}", part.as_str())
}

pub(crate) fn subject(run: &str, part: Part, number: u64) -> String {
    format!("slipway.floor.{run}.{}.{number}", part.as_str())
}

pub(crate) fn config(run: &str, part: Part, replicas: usize) -> Config {
    let topology = Topology { regions: vec![], replicas, logs_max_bytes: 0 };
    let base = Config {
        name: stream(run, part),
        subjects: vec![format!("slipway.floor.{run}.{}.*", part.as_str())],
        discard: DiscardPolicy::New,
        ..base(&topology, None)
    };
    match part {
        Part::Queue => Config { retention: RetentionPolicy::WorkQueue, ..base },
        Part::Events => base,
        Part::Values => Config { max_messages_per_subject: 1, ..base },
    }
}

pub(crate) fn consumer_config() -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: JOB_ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: JOB_MAX_ACK_PENDING,
        max_waiting: JOB_MAX_WAITING,
        ..pull::Config::default()
    }
}
