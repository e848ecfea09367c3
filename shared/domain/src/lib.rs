//! The vocabulary of Slipway: identifiers, lifecycles, events and job specs.
//!
//! Owns what every part must agree on. Refuses IO, clocks and randomness: time
//! and new identifiers are handed in. Invariant: a lifecycle moves only through
//! its `apply` function, so that every part can predict every other.

pub mod attempt;
pub mod credential;
pub mod dockerfile;
pub mod failure;
pub mod gpu;
pub mod identity;
pub mod ids;
pub mod image;
pub mod job;
pub mod lease;
pub mod log;
pub mod message;
pub mod organization;
pub mod push_token;
pub mod region;
pub mod snapshot;
pub mod spec;
pub mod worker;

pub use attempt::{Attempt, AttemptNumber, Nonce};
pub use failure::{Failure, FailureKind};
pub use gpu::GpuType;
pub use ids::{CredentialId, JobId, OrganizationId, SnapshotId, WorkerId};
pub use image::BuiltImage;
pub use log::{LogEntry, LogEvent, LogMerge, LogSeq};
pub use region::{Class, Region};
