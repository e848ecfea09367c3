//! How many snapshots of which state an organization has, without counting.

use slipway_domain::snapshot::SnapshotState;

/// States that count against a quota, by their names.
const IN_USE: [&str; 4] = ["pending", "building", "pulling", "active"];

/// Whether a snapshot in this state counts against the quota.
pub(super) fn is_in_use(state: &SnapshotState) -> bool {
    IN_USE.contains(&state.name())
}

/// Counts by state. Only states that are there take room.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage(Vec<(&'static str, usize)>);

impl Usage {
    /// Snapshots that count against the quota.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.0.iter().filter(|(state, _)| IN_USE.contains(state)).map(|(_, count)| count).sum()
    }

    pub(super) fn add(&mut self, state: &SnapshotState) {
        match self.0.iter_mut().find(|(name, _)| *name == state.name()) {
            Some((_, count)) => *count += 1,
            None => self.0.push((state.name(), 1)),
        }
    }

    pub(super) fn take(&mut self, state: &SnapshotState) {
        if let Some((_, count)) = self.0.iter_mut().find(|(name, _)| *name == state.name()) {
            *count = count.saturating_sub(1);
        }
        self.0.retain(|(_, count)| *count > 0);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
