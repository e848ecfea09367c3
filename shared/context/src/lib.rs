//! Docker build contexts: the rules of `.dockerignore`, packing a folder into a
//! tar, and looking through a tar that somebody else packed.
//!
//! Owns: what belongs to a build context and what its archive looks like.
//! Refuses: any knowledge of HTTP, object stores or BuildKit.
//!
//! Invariant: packing an unchanged folder twice gives the same bytes, so the
//! SHA-256 of the archive identifies the context's content.
//!
//! | to | use |
//! |---|---|
//! | find and read the ignore file of a build | [`IgnoreRules::for_build`] |
//! | learn digest and size of a folder's archive | [`Packer::digest`] |
//! | send that archive | [`Packer::stream`] |
//! | inspect an uploaded archive | [`scan()`] |

mod digest;
pub mod ignore;
pub mod pack;
pub mod scan;

pub use digest::ContextDigest;
pub use ignore::IgnoreRules;
pub use pack::{Owners, Packed, Packer, Progress};
pub use scan::{Compression, Scanned, Scanner, scan};
