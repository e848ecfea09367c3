//! Ways to hurt processes and the network between them.
//!
//! Owns: any program as a child that can be killed, paused and resumed
//! ([`Child`]), what it prints ([`Output`]), and a TCP proxy that cuts, pauses
//! and delays ([`TcpProxy`]). The tests use it, and so does the chaos harness,
//! which is part of the program.
//!
//! Refuses: to know what the programs are, and to decide when to hurt them.
//!
//! Invariant: when the process that uses it ends, in whatever way, so do its
//! children.

mod child;
mod output;
mod proxy;

pub use child::Child;
pub use output::{Ended, Output};
pub use proxy::TcpProxy;
