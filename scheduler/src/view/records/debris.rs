//! What a creation leaves behind when its process dies between two writes.
//!
//! The name is written first, then snapshot and job side by side. So for a
//! moment each of them may stand alone; for longer only if nobody is left to
//! write the rest. This only tells what stands alone now, as far as was seen.

use slipway_domain::{JobId, SnapshotId};

use super::{Name, Records};

/// A record that lacks its counterpart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Debris {
    /// A name of a snapshot that is not there.
    Name(SnapshotId, Name),
    /// A snapshot that waits for a job that is not there.
    Snapshot(SnapshotId),
    /// A job that no snapshot stands on.
    Job(JobId),
}

impl Records {
    /// Everything that stands alone now. Looks only at what is open.
    #[must_use]
    pub fn debris(&self) -> Vec<Debris> {
        let waiting = self.waiting.iter().chain(&self.removing);
        let snapshots = waiting.filter_map(|id| self.snapshots.live(id));
        let snapshots = snapshots
            .filter(|entry| !self.jobs.has(&entry.value.job))
            .map(|entry| Debris::Snapshot(entry.value.id));
        let jobs = self.open.iter().filter(|id| self.follower_ids(**id).next().is_none());
        self.names_ahead().chain(snapshots).chain(jobs.map(|id| Debris::Job(*id))).collect()
    }
}
