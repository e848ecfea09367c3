//! Real servers for tests, and ways to hurt them.
//!
//! Owns: starting a real `nats-server` ([`NatsServer`]), a real registry
//! ([`DockerRegistry`]) and any other program ([`Child`]) so that none outlives
//! the test, finding the BuildKit, the base image and the registry of the dev
//! stack ([`stack`]), and a TCP proxy that cuts, pauses and delays ([`TcpProxy`]).
//!
//! Refuses: fakes, and anything that production code could depend on; this is a
//! dev-dependency only. What is missing is a panic that names the remedy, never
//! a skipped test.
//!
//! Invariant: when a test process ends, in whatever way, so do the servers that
//! it started.

mod child;
mod nats;
mod output;
mod proxy;
mod registry;
pub mod stack;

pub use child::Child;
pub use nats::NatsServer;
pub use output::{Ended, Output};
pub use proxy::TcpProxy;
pub use registry::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth};
