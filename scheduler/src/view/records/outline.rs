//! What the indexes have to know of a record.
//!
//! Owns reading that little from a record's JSON without reading the rest, since a
//! scheduler that starts goes through millions of them. Refuses JSON that lacks it, and
//! states that this version does not know. Invariant: the outline of a record is the
//! outline of its JSON.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use serde::Deserialize;
use slipway_domain::job::{AttemptRecord, JobRecord, JobState, LogState, Revival};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::{Class, JobId, OrganizationId, Region, SnapshotId};
use slipway_oci::Digest;

/// A snapshot's state without what it carries. They are in the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStage {
    Active,
    BuildFailed,
    Building,
    Error,
    Inactive,
    Pending,
    Pulling,
    Removing,
}

/// A job's state without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStage {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Dead,
}

/// What is to be known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SnapshotOutline {
    pub id: SnapshotId,
    pub organization: OrganizationId,
    pub name: String,
    pub region: Region,
    pub job: JobId,
    pub state: StateOutline,
    pub created_at: Timestamp,
    pub last_used_at: Option<Timestamp>,
    #[serde(default)]
    pub general: bool,
}

/// What is to be known of a snapshot's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StateLines")]
pub struct StateOutline {
    /// Which it is.
    pub stage: SnapshotStage,
    /// The digest of the image, if the snapshot has one.
    pub image: Option<Digest>,
}

/// What is to be known of a job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "JobLines")]
pub struct JobOutline {
    pub id: JobId,
    pub organization: OrganizationId,
    pub region: Region,
    pub class: Class,
    pub stage: JobStage,
    pub log: LogState,
    /// Whether an operator did something about it.
    pub is_revived: bool,
    /// When the last attempt began and ended.
    pub last: Option<(Timestamp, Timestamp)>,
}

impl SnapshotStage {
    /// Whether the job has something to say yet, as the record says.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Pending | Self::Building | Self::Pulling)
    }
}

impl JobStage {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }

    /// Whether nothing more happens.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Dead)
    }
}

impl From<&SnapshotState> for SnapshotStage {
    fn from(state: &SnapshotState) -> Self {
        match state {
            SnapshotState::Active { .. } => Self::Active,
            SnapshotState::BuildFailed { .. } => Self::BuildFailed,
            SnapshotState::Building => Self::Building,
            SnapshotState::Error { .. } => Self::Error,
            SnapshotState::Inactive { .. } => Self::Inactive,
            SnapshotState::Pending => Self::Pending,
            SnapshotState::Pulling => Self::Pulling,
            SnapshotState::Removing => Self::Removing,
        }
    }
}

impl From<&JobState> for JobStage {
    fn from(state: &JobState) -> Self {
        match state {
            JobState::Queued { .. } => Self::Queued,
            JobState::Running { .. } => Self::Running,
            JobState::Succeeded { .. } => Self::Succeeded,
            JobState::Failed { .. } => Self::Failed,
            JobState::Cancelled => Self::Cancelled,
            JobState::Dead { .. } => Self::Dead,
        }
    }
}

impl From<&SnapshotRecord> for SnapshotOutline {
    fn from(record: &SnapshotRecord) -> Self {
        let image = record.state.image().map(|image| image.digest);
        Self {
            id: record.id,
            organization: record.organization,
            name: record.name.clone(),
            region: record.region.clone(),
            job: record.job,
            state: StateOutline { stage: (&record.state).into(), image },
            created_at: record.created_at,
            last_used_at: record.last_used_at,
            general: record.general,
        }
    }
}

impl From<&JobRecord> for JobOutline {
    fn from(record: &JobRecord) -> Self {
        let times = |last: &AttemptRecord| Some((last.started_at?, last.ended_at?));
        Self {
            id: record.id,
            organization: record.organization,
            region: record.region.clone(),
            class: record.class,
            stage: (&record.state).into(),
            log: record.log,
            is_revived: !record.revival.is_none(),
            last: record.attempts.last().and_then(times),
        }
    }
}

#[derive(Deserialize)]
struct StateLines {
    state: SnapshotStage,
    image: Option<ImageLines>,
}

#[derive(Deserialize)]
struct ImageLines {
    digest: Digest,
}

impl TryFrom<StateLines> for StateOutline {
    type Error = &'static str;

    fn try_from(lines: StateLines) -> Result<Self, Self::Error> {
        let image = match lines.state {
            SnapshotStage::Active | SnapshotStage::Inactive => {
                Some(lines.image.ok_or("a snapshot in this state has an image")?.digest)
            }
            SnapshotStage::BuildFailed
            | SnapshotStage::Building
            | SnapshotStage::Error
            | SnapshotStage::Pending
            | SnapshotStage::Pulling
            | SnapshotStage::Removing => None,
        };
        Ok(Self { stage: lines.state, image })
    }
}

#[derive(Deserialize)]
struct JobLines {
    id: JobId,
    organization: OrganizationId,
    region: Region,
    class: Class,
    state: JobStateLines,
    attempts: Vec<AttemptLines>,
    log: LogState,
    #[serde(default)]
    revival: Revival,
}

#[derive(Deserialize)]
struct JobStateLines {
    state: JobStage,
}

#[derive(Deserialize)]
struct AttemptLines {
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
}

impl From<JobLines> for JobOutline {
    fn from(lines: JobLines) -> Self {
        let times = |last: &AttemptLines| Some((last.started_at?, last.ended_at?));
        Self {
            id: lines.id,
            organization: lines.organization,
            region: lines.region,
            class: lines.class,
            stage: lines.state.state,
            log: lines.log,
            is_revived: !lines.revival.is_none(),
            last: lines.attempts.last().and_then(times),
        }
    }
}
