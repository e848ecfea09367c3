//! Uploaded build contexts: how they come in, and what they really hold.
//!
//! Owns the store of contexts for the scheduler: their identities
//! ([`Contexts`]), the temporary keys for uploads ([`Access`]), and the door
//! through which clients of S3 bring them ([`door`]), unless they write to the
//! bucket themselves ([`config::Sts`]). Whoever writes a context
//! writes it through [`Contexts`], which hashes on the way; whoever asks for the
//! identity of one gets the SHA-256 of its bytes and never what its client
//! calls it.
//! Refuses to look into the archives: that is the workers' part.
//!
//! Invariants: an identity is remembered for one version of an object, by its
//! ETag and size, so an object that changed is read again; a key reads and
//! writes the contexts of one organization and nothing else, until it expires.

mod access;
pub mod config;
pub mod door;
mod identity;
pub mod keys;
mod sts;

pub use access::{Access, AccessError, Grant};
pub use identity::{Contexts, Error, Identity, Written};
pub use keys::Keys;
