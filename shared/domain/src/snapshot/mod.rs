//! The lifecycle of a snapshot, as Daytona's clients know it.
//!
//! Invariant: a snapshot becomes active only with an image: by an event of the job
//! it waits for, or with the image that it was inactive with. One that is being
//! removed never comes back.

mod follow;
pub mod inactivity;
pub mod name;
#[cfg(test)]
mod tests;
mod usage;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::ids::{JobId, OrganizationId, SnapshotId};
use crate::image::BuiltImage;
use crate::message;
use crate::region::{Class, Region};
use crate::spec::{JobKind, JobSpec, Resources};

/// A snapshot as it is stored, under `snapshot.<org>.<id>` in `records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Form of this record.
    pub version: u32,
    /// Its id.
    pub id: SnapshotId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// Its name, unique in the organization.
    pub name: String,
    /// Where it lives.
    pub region: Region,
    /// What class of worker makes it.
    pub class: Class,
    /// What a sandbox of it gets.
    pub resources: Resources,
    /// What it is made from.
    pub source: JobSpec,
    /// The job that makes it, or made it last.
    pub job: JobId,
    /// Where it stands.
    pub state: SnapshotState,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// How often its job was redriven when this last followed it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub life: u32,
    /// Whether every organization may use it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub general: bool,
}

/// Where a snapshot stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum SnapshotState {
    /// Its job waits.
    Pending,
    /// Its job builds.
    Building,
    /// Its job pulls.
    Pulling,
    /// It can be used.
    Active {
        /// Its image.
        image: BuiltImage,
    },
    /// It was not used for long, or its owner wants it so: it counts for no
    /// quota, keeps its image, and can become active again.
    Inactive {
        /// Its image.
        image: BuiltImage,
    },
    /// Its Dockerfile failed.
    BuildFailed {
        /// Why.
        failure: Failure,
    },
    /// Something else failed.
    Error {
        /// Why.
        failure: Failure,
    },
    /// It is being deleted.
    Removing,
}

impl SnapshotState {
    /// Daytona's word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Pulling => "pulling",
            Self::Active { .. } => "active",
            Self::Inactive { .. } => "inactive",
            Self::BuildFailed { .. } => "build_failed",
            Self::Error { .. } => "error",
            Self::Removing => "removing",
        }
    }

    /// The image, if it has one.
    #[must_use]
    pub const fn image(&self) -> Option<&BuiltImage> {
        match self {
            Self::Active { image } | Self::Inactive { image } => Some(image),
            Self::Pending
            | Self::Building
            | Self::Pulling
            | Self::BuildFailed { .. }
            | Self::Error { .. }
            | Self::Removing => None,
        }
    }

    /// Why it failed, if it did.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::BuildFailed { failure } | Self::Error { failure } => Some(failure),
            Self::Pending
            | Self::Building
            | Self::Pulling
            | Self::Active { .. }
            | Self::Inactive { .. }
            | Self::Removing => None,
        }
    }
}

/// What can happen to a snapshot. The first four come from its job, the others
/// from its owner or from the time that passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotEvent {
    /// A worker began.
    Started,
    /// A worker finished.
    Published(BuiltImage),
    /// The job failed for good.
    Failed(Failure),
    /// The job was cancelled.
    Cancelled,
    /// It is to rest.
    Deactivate,
    /// It is to be used again, and its image is there.
    Activate,
    /// It is to be used again, and its image is to be made again by this job.
    Remake(JobId),
    /// The user wants it gone.
    Remove,
}

impl SnapshotRecord {
    /// Applies an event. `job` is the job that speaks; events of any job but
    /// the snapshot's own change nothing, and so do repeated ones.
    #[must_use]
    pub fn apply(&self, job: JobId, event: SnapshotEvent, now: Timestamp) -> Self {
        if job != self.job {
            return self.clone();
        }
        let state = match (&self.state, event) {
            (SnapshotState::Removing, _) | (_, SnapshotEvent::Remove) => SnapshotState::Removing,
            (SnapshotState::Pending, SnapshotEvent::Started) => match self.source.kind() {
                JobKind::Build => SnapshotState::Building,
                JobKind::Pull => SnapshotState::Pulling,
            },
            (
                SnapshotState::Pending | SnapshotState::Building | SnapshotState::Pulling,
                SnapshotEvent::Published(image),
            ) => SnapshotState::Active { image },
            (
                SnapshotState::Pending | SnapshotState::Building | SnapshotState::Pulling,
                SnapshotEvent::Failed(failure),
            ) => {
                if failure.kind.is_build_failure() {
                    SnapshotState::BuildFailed { failure }
                } else {
                    SnapshotState::Error { failure }
                }
            }
            (
                SnapshotState::Pending | SnapshotState::Building | SnapshotState::Pulling,
                SnapshotEvent::Cancelled,
            ) => SnapshotState::Error { failure: cancelled() },
            (SnapshotState::Active { image }, SnapshotEvent::Deactivate) => {
                SnapshotState::Inactive { image: image.clone() }
            }
            (SnapshotState::Inactive { image }, SnapshotEvent::Activate) => {
                let state = SnapshotState::Active { image: image.clone() };
                return Self { state, updated_at: now, last_used_at: Some(now), ..self.clone() };
            }
            (SnapshotState::Inactive { .. }, SnapshotEvent::Remake(job)) => {
                let (state, last_used_at) = (SnapshotState::Pending, Some(now));
                return Self { state, job, updated_at: now, last_used_at, ..self.clone() };
            }
            (
                SnapshotState::Building
                | SnapshotState::Pulling
                | SnapshotState::Active { .. }
                | SnapshotState::Inactive { .. }
                | SnapshotState::BuildFailed { .. }
                | SnapshotState::Error { .. },
                SnapshotEvent::Started,
            )
            | (
                SnapshotState::Active { .. }
                | SnapshotState::Inactive { .. }
                | SnapshotState::BuildFailed { .. }
                | SnapshotState::Error { .. },
                SnapshotEvent::Published(_) | SnapshotEvent::Failed(_) | SnapshotEvent::Cancelled,
            )
            | (
                SnapshotState::Pending
                | SnapshotState::Building
                | SnapshotState::Pulling
                | SnapshotState::BuildFailed { .. }
                | SnapshotState::Error { .. },
                SnapshotEvent::Deactivate | SnapshotEvent::Activate | SnapshotEvent::Remake(_),
            )
            | (SnapshotState::Inactive { .. }, SnapshotEvent::Deactivate)
            | (SnapshotState::Active { .. }, SnapshotEvent::Activate | SnapshotEvent::Remake(_)) => {
                return self.clone();
            }
        };
        if state == self.state {
            return self.clone();
        }
        Self { state, updated_at: now, ..self.clone() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it in so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn cancelled() -> Failure {
    Failure::new(crate::failure::FailureKind::Cancelled, "the job was cancelled")
}

/// What a new snapshot is made of.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// Whose.
    pub organization: OrganizationId,
    /// Its name.
    pub name: String,
    /// Where.
    pub region: Region,
    /// By what class.
    pub class: Class,
    /// For what kind of sandbox.
    pub resources: Resources,
    /// From what.
    pub source: JobSpec,
    /// By which job.
    pub job: JobId,
}

impl SnapshotRecord {
    /// A snapshot whose job waits.
    #[must_use]
    pub fn new(snapshot: NewSnapshot, now: Timestamp) -> Self {
        Self {
            version: message::VERSION,
            id: snapshot.id,
            organization: snapshot.organization,
            name: snapshot.name,
            region: snapshot.region,
            class: snapshot.class,
            resources: snapshot.resources,
            source: snapshot.source,
            job: snapshot.job,
            state: SnapshotState::Pending,
            created_at: now,
            updated_at: now,
            last_used_at: None,
            life: 0,
            general: false,
        }
    }
}
