//! Drives a running Slipway from outside, measures it, and checks what it
//! answers.
//!
//! Owns scenarios ([`builds`], [`logs`], [`storm`], [`list`]), when each of their operations starts
//! ([`schedule`]), and the figures ([`latency`], [`report`], [`timeline`],
//! [`plot`]). Refuses to steer the system from inside: it speaks HTTP as any client
//! does, so that users can drive their own fleets with it. [`storm`] listens on
//! NATS as well, since asking about thousands of jobs would be load of its own, and
//! [`list`] and [`recovery`] run a system of their own. A scenario is a module with a plan and a function
//! that makes a [`Report`] of it; [`Run`] is what all of them share.
//!
//! Invariant: a run leaves no snapshot behind, or names those that it could not
//! delete.

pub mod builds;
pub mod failures;
pub mod flood;
pub mod heartbeats;
pub mod latency;
pub mod list;
pub mod logs;
pub mod plot;
pub mod recovery;
pub mod report;
pub mod schedule;
pub mod storm;
pub mod tenants;
pub mod timeline;

mod error;
mod floor;
mod followed;
mod job;
mod observer;
mod own;
mod process;
mod progress;
mod run;

pub use error::Error;
pub use own::Own;
pub use progress::Progress;
pub use report::Report;
pub use run::Run;
