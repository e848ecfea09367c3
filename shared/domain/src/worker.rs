//! The sign of life of a worker, and the order to it to take no new jobs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::credential::Recipient;
use crate::ids::{JobId, WorkerId};
use crate::region::{Class, Region};

/// What a worker says about itself, every few seconds, under the key
/// `worker.<worker>` of its region's lease bucket. It expires with the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRecord {
    /// Form of this record.
    pub version: u32,
    /// Its name.
    pub id: WorkerId,
    /// Where it works.
    pub region: Region,
    /// What it takes.
    pub classes: Vec<Class>,
    /// Its GPU, if its classes include `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What it runs now.
    pub running: Vec<JobId>,
    /// The newest form of a job's message that it reads.
    #[serde(default = "first")]
    pub job_version: u32,
    /// Version of the program.
    pub software: String,
    /// BuildKit as the worker found it, for example `engine v0.13.2`.
    pub buildkit: String,
    /// `host:port` of its registry routes, as clients in the region reach them.
    pub registry: String,
    /// The public key that secrets for it are sealed to; none if it has no
    /// identity, and then it can use no registry credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipient: Option<Recipient>,
    /// Whether it takes no new jobs, by an order or since its process is to stop.
    pub draining: bool,
    /// Whether its process is about to stop.
    #[serde(default)]
    pub stopping: bool,
    /// Seconds that its leases last without renewal; absent in those who do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<u64>,
    /// When the process started.
    pub started_at: Timestamp,
}

/// What workers read that do not say it.
const fn first() -> u32 {
    1
}

/// An operator's order to a worker to take no new jobs, under the key
/// `drain.<worker>` of its region's lease bucket. It stays, whatever becomes of the
/// worker, until it is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRecord {
    /// Form of this record.
    pub version: u32,
    /// Since when.
    pub ordered_at: Timestamp,
}

/// A worker's GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Gpu {
    /// A real one.
    Present {
        /// Its name, for example `NVIDIA H100`.
        name: String,
    },
    /// None: the class is declared so that scheduling can be tried out.
    Simulated,
}
