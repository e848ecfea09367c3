//! The life of a process: configuration, telemetry, tasks, shutdown.
//!
//! Owns how every part of Slipway starts, runs its tasks and stops. Refuses
//! anything that one part alone needs. Invariant: a task started here is named,
//! is told when to stop, and is waited for.

pub mod config;
pub mod tasks;
pub mod telemetry;

pub use tasks::Tasks;
