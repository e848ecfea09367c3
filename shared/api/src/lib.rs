//! What travels over HTTP: wire types and the typed client.
//!
//! Owns the JSON shapes of Daytona's contract ([`types`]) and of Slipway's own
//! additions ([`own`]). Refuses behaviour: what a request means is decided by
//! the scheduler. Invariant: fields are only ever added. [`Client`] speaks both.

pub mod account;
pub mod client;
pub mod events;
pub mod own;
pub mod registries;
pub mod storage;
pub mod types;

pub use client::Client;
