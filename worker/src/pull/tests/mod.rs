//! Pulls into a store in a folder, from a real registry and from one that plays
//! its part or lies.
#![allow(clippy::unwrap_used)]

mod bench;
mod cancel;
#[path = "../../../source/tests/registries/image.rs"]
#[allow(dead_code, reason = "shared with the tests of slipway-source")]
mod image;
mod lies;
mod memory;
mod own;
mod real;
mod shared;
#[path = "../../../source/tests/registries/upstream.rs"]
#[allow(dead_code, reason = "shared with the tests of slipway-source")]
mod upstream;
