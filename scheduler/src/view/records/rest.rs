//! Which records rest: nobody has to look after them until somebody changes them.
//!
//! Owns the two decisions. Invariant: whatever a reconciler goes through, and whatever
//! every organization may use, does not rest; so those who look at it find it unpacked.

use slipway_domain::job::{JobRecord, LogState};
use slipway_domain::snapshot::SnapshotRecord;

use super::outline::{JobOutline, JobStage, SnapshotOutline, SnapshotStage};
use crate::view::kept::AtRest;

impl AtRest for SnapshotRecord {
    type Outline = SnapshotOutline;

    fn rests(outline: &SnapshotOutline) -> bool {
        match outline.state.stage {
            SnapshotStage::Active
            | SnapshotStage::Inactive
            | SnapshotStage::BuildFailed
            | SnapshotStage::Error => !outline.general,
            SnapshotStage::Pending
            | SnapshotStage::Building
            | SnapshotStage::Pulling
            | SnapshotStage::Removing => false,
        }
    }
}

impl AtRest for JobRecord {
    type Outline = JobOutline;

    /// One that an operator touched may have to tell its snapshots again.
    fn rests(outline: &JobOutline) -> bool {
        match outline.stage {
            JobStage::Succeeded | JobStage::Failed | JobStage::Cancelled => {
                outline.log == LogState::Archived && !outline.is_revived
            }
            JobStage::Queued | JobStage::Running | JobStage::Dead => false,
        }
    }
}
