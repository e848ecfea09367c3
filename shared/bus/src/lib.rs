//! Everything of NATS: topology, delivery, key-value state, log streams, services.
//!
//! Owns the connection ([`connect`]), every name ([`topology`]) and the rules
//! that make delivery safe over reconnects, server restarts and lost answers.
//! Refuses to know what the messages mean: payloads are whatever serializes to
//! JSON. Invariants: nothing is reported as stored before the server said so; a
//! repeat carries the same message id, so that it is stored once; no message is
//! taken from a queue before somebody is free to work on it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use slipway_bus::{Config, topology::{BucketName, Topology, keys}};
//! let bus = slipway_bus::connect(&Config::new("nats://127.0.0.1:4222", "scheduler")).await?;
//! bus.ensure(&Topology::single("us".parse()?)).await?;
//! let leases = bus.bucket(&BucketName::Leases("us".parse()?));
//! let revision = leases.create(&keys::worker(&"us-1".parse()?), &"alive", None).await?;
//! # Ok(()) }
//! ```

mod ack;
mod backoff;
pub mod bucket;
mod config;
pub mod connection;
pub mod control;
pub mod ensure;
pub mod events;
pub mod floor;
pub mod jobs;
pub mod logs;
mod payload;
pub mod publish;
mod pull;
pub mod services;
mod tail;
pub mod topology;
pub mod trace;

pub use ack::Error as AckError;
pub use bucket::Bucket;
pub use connection::{Bus, Config, Connection, Credentials, connect};
pub use control::Control;
pub use events::Events;
pub use jobs::JobQueue;
pub use logs::Logs;
pub use payload::Poison;
pub use topology::Topology;
pub use trace::TraceParent;

/// What a broken call says about trying again; see [`is_retryable`](publish::Error::is_retryable).
pub use publish::Error as PublishError;
