//! Why a run does not begin. What fails within one is counted, not returned;
//! see [`crate::failures`].

use std::path::PathBuf;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not tell what there is already.
    #[error(transparent)]
    Api(#[from] slipway_api::client::Error),
    /// The builds asked for do not fit beside the snapshots that there are.
    #[error(
        "{wanted} builds at once do not fit: the organization may hold {quota} snapshots \
         and has {held} already"
    )]
    NoRoom {
        /// Builds at once.
        wanted: usize,
        /// Snapshots that count against the quota; counting stops where it is
        /// clear that there is no room.
        held: usize,
        /// Snapshots that the organization may hold.
        quota: usize,
    },
    /// Nobody would tell what becomes of the jobs.
    #[error("cannot watch events and records over NATS")]
    Observe(#[source] BoxError),
    /// Bare JetStream cannot be measured.
    #[error("cannot measure the floor on NATS; it needs the right to create streams `FLOOR_*`")]
    Floor(#[source] BoxError),
    /// A message of the floor was not taken.
    #[error("a message of the floor got no further for two minutes: is NATS overloaded?")]
    FloorStalled,
    /// A program of the run cannot be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program of the run does not serve.
    #[error("`{program}` does not serve; it wrote `{}`", log.display())]
    NotUp {
        /// The program.
        program: String,
        /// What it said.
        log: PathBuf,
    },
    /// No port is free on loopback.
    #[error("no port is free on loopback")]
    Port(#[source] std::io::Error),
    /// A file of the run cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The records of a run cannot be written.
    #[error("cannot write the snapshots of the run to NATS")]
    Seed(#[source] BoxError),
}

impl Error {
    pub(crate) fn seed(source: impl Into<BoxError>) -> Self {
        Self::Seed(source.into())
    }

    pub(crate) fn floor(source: impl Into<BoxError>) -> Self {
        Self::Floor(source.into())
    }

    pub(crate) fn observe(source: impl Into<BoxError>) -> Self {
        Self::Observe(source.into())
    }
}
