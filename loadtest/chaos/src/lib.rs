//! The chaos harness.
pub mod history;
pub mod invariants;
pub mod plan;
