//! The registry over HTTP, as its clients see it.
#![allow(clippy::unwrap_used)]

mod conformance;
mod deletion;
mod harness;
mod manifests;
mod pull;
mod push;
mod redirect;
mod referrers;
mod refusals;
mod rights;
