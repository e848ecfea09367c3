//! Uploaded build contexts: how they come in, and what they really hold.
//!
//! Owns the store of contexts for the scheduler. Whoever writes one writes it
//! through [`Contexts`], which hashes on the way; whoever asks for the identity
//! of one gets the SHA-256 of its bytes and never what its client calls it.
//! Refuses to look into the archives: that is the workers' part.
//!
//! Invariant: an identity is remembered for one version of an object, by its
//! ETag and size. An object that changed has to be read again.

mod identity;

pub use identity::{Contexts, Error, Identity};
