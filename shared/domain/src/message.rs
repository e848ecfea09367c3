//! What travels between scheduler and workers. Every message has a version, and
//! a reader refuses one that it does not know.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_oci::Digest;

use crate::attempt::{Attempt, AttemptNumber};
use crate::failure::Failure;
use crate::ids::{JobId, OrganizationId, SnapshotId, WorkerId};
use crate::image::BuiltImage;
use crate::region::{Class, Region};
use crate::spec::JobSpec;

/// The version that this program writes and reads.
pub const VERSION: u32 = 1;

/// A job on its region's queue: a wake-up with all that the work needs. It
/// holds no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMessage {
    /// Form of the message.
    pub version: u32,
    /// The job.
    pub job: JobId,
    /// Which delivery of it.
    pub attempt: AttemptNumber,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What it makes.
    pub snapshot: SnapshotId,
    /// Where.
    pub region: Region,
    /// By what class of worker.
    pub class: Class,
    /// The work.
    pub spec: JobSpec,
    /// SHA-256 that each of a build's contexts must have, in the order of the spec;
    /// empty if nobody knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<Digest>,
    /// Those hosts of the spec's images, as `host:port`, under which clients know the
    /// region's registry now: the images are the region's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<String>,
    /// Seconds that the attempt may take.
    pub time_limit_seconds: u64,
}

/// A worker's report on an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMessage {
    /// Form of the message.
    pub version: u32,
    /// The job.
    pub job: JobId,
    /// The claim that reports.
    pub attempt: Attempt,
    /// Who reports.
    pub worker: WorkerId,
    /// When, by the worker's clock.
    pub at: Timestamp,
    /// What happened.
    pub event: WorkerEvent,
}

/// What happened to an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum WorkerEvent {
    /// The worker holds the lease and works.
    Started,
    /// The image lies in the object store, manifest included.
    Published(BuiltImage),
    /// There will be no image from this attempt.
    Failed(Failure),
    /// A message of the job made no sense and was thrown away. Nobody claimed an
    /// attempt: the number of the event's is 0.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
}

impl WorkerEvent {
    /// A short name, part of the message id that makes a repeat harmless.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Published(_) => "published",
            Self::Failed(_) => "failed",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// A word from the scheduler to one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "control", rename_all = "snake_case")]
pub enum ControlMessage {
    /// Look at the lease of this job again: it was closed or taken over.
    CheckLease {
        /// The job.
        job: JobId,
    },
    /// Look whether there is an order to take no new jobs.
    CheckDrain,
}
