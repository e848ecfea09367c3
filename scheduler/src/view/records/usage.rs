//! How many snapshots of which state an organization has, without counting.

use super::outline::SnapshotStage;

/// Whether a snapshot in this state counts against the quota.
pub(super) const fn is_in_use(stage: SnapshotStage) -> bool {
    match stage {
        SnapshotStage::Pending
        | SnapshotStage::Building
        | SnapshotStage::Pulling
        | SnapshotStage::Active => true,
        SnapshotStage::Inactive
        | SnapshotStage::BuildFailed
        | SnapshotStage::Error
        | SnapshotStage::Removing => false,
    }
}

/// Counts by state. Only states that are there take room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(Vec<(SnapshotStage, usize)>);

impl Usage {
    /// Snapshots that count against the quota.
    #[must_use]
    pub fn in_use(&self) -> usize {
        let in_use = self.0.iter().filter(|(stage, _)| is_in_use(*stage));
        in_use.map(|(_, count)| count).sum()
    }

    pub(super) fn add(&mut self, stage: SnapshotStage) {
        match self.0.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, count)) => *count += 1,
            None => self.0.push((stage, 1)),
        }
    }

    pub(super) fn take(&mut self, stage: SnapshotStage) {
        if let Some((_, count)) = self.0.iter_mut().find(|(known, _)| *known == stage) {
            *count = count.saturating_sub(1);
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
