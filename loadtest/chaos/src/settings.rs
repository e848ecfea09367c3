//! What a run is told.

use std::path::PathBuf;
use std::time::Duration;

use crate::plan::{RegionShape, Shape};

/// How long a lease lasts in a run: short, so that much happens in little time.
pub(crate) const LEASE: Duration = Duration::from_secs(2);

/// One run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done is drawn from it.
    pub seed: u64,
    /// How long the system is hurt.
    pub length: Duration,
    /// Workers of the first region; the second has half of them, at least one.
    pub workers: u32,
    /// Schedulers.
    pub schedulers: u32,
    /// The program `slipway`.
    pub program: PathBuf,
    /// The program nats-server.
    pub nats_server: PathBuf,
    /// BuildKit for the builds of the first worker of each region; without it
    /// all builds are simulated.
    pub buildkit: Option<String>,
    /// Shell command that runs this BuildKit, if it is the run's own to kill.
    pub buildkit_command: Option<String>,
    /// Where everything that the system keeps and says is put.
    pub folder: PathBuf,
    /// Where the history is written.
    pub history: PathBuf,
    /// How long nats-server stays away, once; without it, never for long.
    pub outage: Option<Duration>,
    /// How long the system may take to settle when the blows are over.
    pub settle: Duration,
    /// Something to break on purpose before the check.
    pub spoil: Option<Spoil>,
}

/// What can be broken on purpose, to see that the check sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoil {
    /// Deletes a blob of an active snapshot.
    Blob,
    /// Changes a byte of a blob of an active snapshot.
    Byte,
    /// Deletes the archived log of a job.
    Log,
}

/// The regions of a run.
pub(crate) const REGIONS: [&str; 2] = ["us", "eu"];

impl Settings {
    /// What the plan needs to know.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let workers = [self.workers.max(1), (self.workers / 2).max(1)];
        let regions = REGIONS.into_iter().zip(workers);
        Shape {
            regions: regions
                .map(|(name, workers)| RegionShape { name: name.to_owned(), workers })
                .collect(),
            schedulers: self.schedulers.max(1),
            buildkit: self.buildkit_command.is_some(),
            lease_ms: milliseconds(LEASE),
            outage_ms: self.outage.map(milliseconds),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
