//! The registry over HTTP, as its clients see it.
#![allow(clippy::unwrap_used)]

mod harness;
mod manifests;
mod pull;
mod push;
mod refusals;
mod rights;
