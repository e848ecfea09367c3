//! Which records rest: nobody has to look after them until somebody changes them.
//!
//! Owns the two decisions. Invariant: whatever a reconciler goes through, and whatever
//! every organization may use, does not rest; so those who look at it find it unpacked.

use slipway_domain::job::{JobRecord, JobState, LogState};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};

use crate::view::kept::AtRest;

impl AtRest for SnapshotRecord {
    fn rests(&self) -> bool {
        match &self.state {
            SnapshotState::Active { .. }
            | SnapshotState::Inactive { .. }
            | SnapshotState::BuildFailed { .. }
            | SnapshotState::Error { .. } => !self.general,
            SnapshotState::Pending
            | SnapshotState::Building
            | SnapshotState::Pulling
            | SnapshotState::Removing => false,
        }
    }
}

impl AtRest for JobRecord {
    /// One that an operator touched may have to tell its snapshots again.
    fn rests(&self) -> bool {
        match &self.state {
            JobState::Succeeded { .. } | JobState::Failed { .. } | JobState::Cancelled => {
                self.log == LogState::Archived && self.revival.is_none()
            }
            JobState::Queued { .. } | JobState::Running { .. } | JobState::Dead { .. } => false,
        }
    }
}
