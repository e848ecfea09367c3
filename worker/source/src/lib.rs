//! A client for the registries that images are pulled *from*.
//!
//! Owns: from a reference to one platform's verified manifest, blobs as streams
//! that go on after a cut connection, the token dance of the distribution
//! specification, mirrors, and the patience with a registry that is busy.
//! Refuses: schema 1, artifacts, foreign layers, and to hold a layer in memory.
//!
//! Invariants: the registry is not believed: a document counts only under the
//! digest of its bytes, and every body is bounded before it is read. A secret
//! goes to the registry that it is for, or to the token server that this
//! registry names, and to nobody else; it stands in no error and no log line.

mod auth;
mod blob;
mod body;
mod challenge;
mod check;
mod client;
mod config;
mod credential;
mod error;
mod http;
mod image;
mod location;
mod reason;
mod retry;
pub mod rules;
mod session;

pub use blob::BlobStream;
pub use check::Accepted;
pub use client::{Client, Pull};
pub use config::{Config, Error as ConfigError, File};
pub use credential::{Credential, CredentialError, CredentialSource, NoCredentials};
pub use error::{Error, Fault, RedirectFault};
pub use image::Image;
pub use retry::RetryPolicy;
