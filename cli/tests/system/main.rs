//! The whole system on real servers: nats-server, BuildKit, a registry for base
//! images, and Slipway's own processes, each of which can be killed or paused.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod accounts;
mod amazon;
mod chaos;
mod clients;
mod cluster;
mod contexts;
mod credentials;
mod description;
mod dev;
mod door;
mod drain;
mod ecr;
mod failures;
mod fairness;
mod faults;
mod infrastructure;
#[path = "../../../worker/source/tests/registries/issuer.rs"]
mod issuer;
mod jobs;
mod lifecycle;
mod loadtest;
mod logs;
mod outages;
mod poison;
mod power;
mod pulls;
mod pushed;
mod registry;
mod replace;
mod telemetry;
mod uploads;
