//! Noting that snapshots are used.

use jiff::Timestamp;
use slipway_domain::SnapshotId;

use super::{Error, Ledger};

impl Ledger {
    /// Notes that a snapshot is used now, unless that was noted within the last
    /// minute.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn note_use(&self, id: SnapshotId) -> Result<(), Error> {
        self.change_snapshot(id, "a use", |snapshot| snapshot.used(Timestamp::now())).await
    }
}
