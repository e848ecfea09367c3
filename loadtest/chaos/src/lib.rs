//! The chaos harness: runs a whole Slipway as separate processes, uses it, hurts
//! it by a plan that is drawn from a seed, and judges by what it saw whether
//! everything was kept that was promised.
//!
//! Owns the plan ([`plan`]), the history of a run ([`history`]) and the promises
//! ([`invariants`]), which are pure and can be judged again from a file; and the
//! run itself ([`run`]). Refuses to judge by anything that is not in the history,
//! and to wait by the clock: the system may take as long as the settings let it.
//!
//! Invariant: no process of a run outlives it.

pub mod history;
pub mod invariants;
pub mod plan;

mod error;
mod look;
mod records;
mod run;
mod settings;
mod source;
mod system;
mod traffic;

pub use error::Error;
pub use run::{Outcome, run};
pub use settings::{Settings, Spoil};
