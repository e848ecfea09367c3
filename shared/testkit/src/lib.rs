//! Real servers for tests, and ways to hurt them.
//!
//! Owns: starting a real `nats-server` ([`NatsServer`]) and a real registry
//! ([`DockerRegistry`]) so that none outlives the test, a disk whose power can be
//! cut ([`Disk`]), a clock that jumps ([`JumpingClock`]), and finding the BuildKit, the base image and the registry of the
//! dev stack ([`stack`]). Processes and the
//! proxy come from `slipway-faults`.
//!
//! Refuses: fakes, and anything that production code could depend on; this is a
//! dev-dependency only. What is missing is a panic that names the remedy, never
//! a skipped test.
//!
//! Invariant: when a test process ends, in whatever way, so do the servers that
//! it started.

mod clock;
mod disk;
mod nats;
mod registry;
pub mod stack;

pub use clock::JumpingClock;
pub use disk::Disk;
pub use nats::NatsServer;
pub use registry::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth};
pub use slipway_faults::{Child, Ended, Output, TcpProxy};
