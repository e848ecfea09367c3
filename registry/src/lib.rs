//! OCI distribution routes over the object store.
//!
//! Owns the HTTP side of the OCI distribution specification 1.1: pull, push
//! (monolithic and chunked), cross-repository mount, tags, referrers, deletion.
//! It runs inside a worker, where BuildKit pushes to it over loopback, and
//! serves ordinary clients. A repository is named `<organization id>/<name>`.
//! There is no catalog: what exists is nobody's to list.
//! Refuses to decide who somebody is ([`Authorizer`]) and to judge images: an
//! image's content is read by [`ManifestReader`] for whoever asks.
//!
//! Invariants: every read needs the repository's link to the blob or manifest,
//! that the bytes are in the pool grants nothing; a blob becomes visible only
//! under the digest of its bytes; a manifest becomes visible only when
//! everything that it needs is in its repository (a client with the right to
//! push may delete a blob from under it later); the answer to a request for
//! somebody else's repository does not depend on whether it exists.

mod auth;
mod blobs;
mod config;
mod deletion;
mod deposit;
mod error;
mod links;
mod lookup;
mod manifests;
mod metrics;
mod negotiation;
mod push;
mod reader;
mod referrers;
mod registry;
mod route;
pub mod sweep;
mod tags;
mod uploads;
mod usage;

pub use auth::{Access, Authorizer, AuthorizerError, Credentials, Grant, Scope, StaticAuthorizer};
pub use config::{Limits, Options, REDIRECT_TTL};
pub use deposit::DepositError;
pub use lookup::{HeldManifest, LookupError};
pub use metrics::{Counts, Metrics};
pub use reader::{Image, ManifestReader, ReadError};
pub use registry::{Registry, router};
pub use route::Reference;
pub use slipway_tls as tls;
pub use usage::UseObserver;
