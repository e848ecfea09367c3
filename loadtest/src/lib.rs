//! Drives a running Slipway from outside, measures it, and checks what it
//! answers.
//!
//! Owns scenarios ([`builds`], [`logs`]), when each of their operations starts
//! ([`schedule`]), and the figures ([`latency`], [`report`]). Refuses to look
//! into the system: it speaks HTTP as any client does, so that users can drive
//! their own fleets with it. A scenario is a module with a plan and a function
//! that makes a [`Report`] of it; [`Run`] is what all of them share.
//!
//! Invariant: a run leaves no snapshot behind, or names those that it could not
//! delete.

pub mod builds;
pub mod failures;
pub mod latency;
pub mod logs;
pub mod report;
pub mod schedule;

mod error;
mod job;
mod progress;
mod run;

pub use error::Error;
pub use report::Report;
pub use run::Run;
