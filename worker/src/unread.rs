//! Messages of jobs that this worker cannot read.
//!
//! Owns the difference between a newer form, which another worker may know, and a
//! message that nobody can read. Invariant: of what is thrown away the scheduler
//! hears, so that no job waits for a message that is gone.

use jiff::Timestamp;
use slipway_bus::Bus;
use slipway_bus::jobs::Delivery;
use slipway_domain::message::{EventMessage, JobMessage, VERSION, WorkerEvent};
use slipway_domain::{Attempt, AttemptNumber, JobId, Nonce};
use slipway_runtime::telemetry;
use uuid::Uuid;

use crate::config::Config;

/// Why a message is not read.
#[derive(Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is of a form that came after this program.
    Newer {
        /// Which.
        version: u32,
    },
    /// It makes no sense.
    Poison {
        /// What is wrong with it.
        reason: String,
    },
}

/// The message of a delivery, if it is one of this program's form.
pub fn check(delivery: &Delivery<JobMessage>) -> Result<&JobMessage, Unread> {
    let (version, reason) = match &delivery.payload {
        Ok(message) if message.version == VERSION && message.job == delivery.job => {
            return Ok(message);
        }
        Ok(message) => (Some(message.version), "it is of another job or form".to_owned()),
        Err(poison) => (poison.version(), telemetry::chain(poison)),
    };
    match version {
        Some(version) if version > VERSION => Err(Unread::Newer { version }),
        _ => Err(Unread::Poison { reason }),
    }
}

/// Tells the scheduler what was thrown away, and goes on trying until it is stored.
pub async fn report(bus: &Bus, config: &Config, job: JobId, reason: String) {
    // Nobody has claimed anything: the number says so, and the nonce is of nobody.
    let nonce = Nonce::from_uuid(Uuid::new_v4());
    let attempt = Attempt { number: AttemptNumber::new(0), nonce };
    let (version, at, worker) = (VERSION, Timestamp::now(), config.id.clone());
    let event = WorkerEvent::Unreadable { reason };
    let id = format!("{job}/{nonce}/{}", event.name());
    let message = EventMessage { version, job, attempt, worker, at, event };
    let published = bus.events().publish(&config.region, &config.id, job, &message, &id).await;
    if let Err(error) = published {
        let error = telemetry::chain(&error);
        tracing::error!(job.id = %job, error, "an event was refused by NATS");
    }
}
