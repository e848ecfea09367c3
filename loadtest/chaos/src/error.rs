//! Why a run did not come to an end. What the run finds wrong with the system is
//! a [`Violation`](crate::invariants::Violation), not an error.

use std::io;
use std::path::PathBuf;

/// The harness itself could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the run cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No port is free on loopback.
    #[error("no port is free on loopback")]
    Port(#[source] io::Error),
    /// A program cannot be started.
    #[error("cannot start {process}")]
    Start {
        /// Its name in the run.
        process: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The system did not come up before anything was done to it.
    #[error("the system does not serve: {waiting}; its logs are in `{}`", logs.display())]
    NotUp {
        /// What was waited for.
        waiting: String,
        /// Where the logs lie.
        logs: PathBuf,
    },
    /// The harness's own connection to NATS cannot be made.
    #[error("cannot connect to nats-server")]
    Connect(#[source] slipway_bus::connection::Error),
    /// What NATS holds cannot be read when all is over.
    #[error("cannot read what NATS holds")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The client cannot be set up.
    #[error("cannot set up the client")]
    Client(#[source] slipway_api::client::Error),
    /// The object store cannot be opened to look at it.
    #[error("cannot open the object store")]
    Store(#[source] slipway_blobstore::Error),
}
