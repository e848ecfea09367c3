//! Snapshots whose job runs.
//!
//! That a job began is stored with the job alone. Its snapshots are shown as building
//! or pulling by what is derived here whenever either record comes in. Invariant: a
//! snapshot that is held pending stands on no job that began, as far as is known.

use slipway_domain::JobId;
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};

use super::Records;
use crate::view::kept::Prepared;

impl Records {
    /// A snapshot that comes in, as its job wants it.
    pub(super) fn begun(&self, prepared: Prepared<SnapshotRecord>) -> Prepared<SnapshotRecord> {
        let record = prepared.record();
        if record.state != SnapshotState::Pending {
            return prepared;
        }
        let job = self.jobs.live(&record.job);
        let begun = job.and_then(|job| record.begun(&job.value));
        begun.map_or(prepared, |begun| Prepared::new(begun, None))
    }

    /// A job came in: its snapshots are as it wants them.
    pub(super) fn begin(&mut self, id: JobId) {
        let Some(job) = self.jobs.live(&id).map(|job| job.value.clone()) else { return };
        if job.state.is_over() {
            return;
        }
        let followers: Vec<_> = self.follower_ids(id).collect();
        for follower in followers {
            let known = self.snapshots.live(&follower).cloned();
            let begun = known.and_then(|known| Some((known.value.begun(&job)?, known)));
            if let Some((begun, known)) = begun {
                self.uncount(&known.value);
                let name = self.names.add(&begun);
                self.count(&begun, name);
                self.snapshots.insert(follower, Prepared::new(begun, None), known.revision);
            }
        }
    }
}
