//! The object store: where every object lies, and how it is written.
//!
//! Owns the layout ([`ObjectKey`]) and a thin layer over `object_store`
//! ([`Store`]) with one addition, the verified write: content is hashed on its
//! way to its final key and becomes visible only when digest and size are
//! those that were promised.
//! Refuses to hold a whole blob in memory, and to know what the objects mean.
//!
//! Invariants: an object is either absent or complete; what a call has
//! acknowledged is durable (a local folder is synced to disk, file and
//! directory); no key can be built from outside text except through the types
//! of `slipway-oci`, so no object lies outside its folder.

mod body;
mod config;
mod error;
mod faulty;
mod key;
mod store;
mod writer;

pub use body::{ByteRange, Object, ObjectStream};
pub use config::Config;
pub use error::{BoxError, Error};
pub use key::{ContextHash, MalformedKey, ObjectKey, Prefix, Repository};
pub use store::{Entry, Metadata, Store, Stored};
pub use writer::Writer;
