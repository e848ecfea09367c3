//! A thin, cancel-safe client of BuildKit.
//!
//! Owns: reaching a BuildKit ([`Endpoint`], [`Client`]), describing one solve
//! ([`SolveRequest`]), running it with live events ([`Solve`], [`BuildEvent`])
//! and saying how it ended ([`Outcome`], [`Error`]). [`render`] turns events
//! into the lines that `docker build --progress=plain` would print.
//!
//! Refuses: retries, time limits of a whole build, storage, and anything of
//! jobs or regions. Those belong to the worker.
//!
//! Invariant: dropping a [`Solve`], at any moment, ends the solve; nothing of
//! it keeps running on either side.

mod attrs;
mod client;
mod dial;
pub mod endpoint;
mod error;
mod event;
mod llb;
mod pace;
mod redact;
pub mod render;
mod request;
mod session;
mod solve;
mod status;

pub use client::{Client, Info, Kind};
pub use endpoint::{Endpoint, Tls};
pub use error::{Error, SourceLocation};
pub use event::{BuildEvent, Stream};
pub use request::{
    Compression, ContextSource, Credential, Export, ImageRule, InvalidRequest, Mirrored,
    RegistryCredentials, SolveRequest,
};
pub use solve::{Outcome, Solve};
