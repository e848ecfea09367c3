//! The client against a real BuildKit, with a real HTTP server for contexts and
//! a registry for pushes. Needs the dev stack (`deploy/dev/stack start`); where
//! it is missing, every test here fails and says so.
#![allow(clippy::unwrap_used)]

mod cancel;
mod connection;
mod context;
mod failure;
mod push;
mod solve;
mod support;
