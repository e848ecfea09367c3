//! When a snapshot was last used.

use jiff::Timestamp;

use super::{SnapshotRecord, SnapshotState};

/// Uses that follow closer than this, in seconds, are noted as one.
const RESOLUTION_SECONDS: i64 = 60;

impl SnapshotRecord {
    /// The record with a use at `now` noted, or nothing if there is nothing to
    /// note: only an active snapshot is used, and not every use is worth a write.
    #[must_use]
    pub fn used(&self, now: Timestamp) -> Option<Self> {
        let is_active = matches!(self.state, SnapshotState::Active { .. });
        let is_new = self.last_used_at.is_none_or(|last| {
            now.as_second().saturating_sub(last.as_second()) >= RESOLUTION_SECONDS
        });
        (is_active && is_new).then(|| Self { last_used_at: Some(now), ..self.clone() })
    }
}
