//! Making snapshots general, and ordinary again.

use slipway_domain::SnapshotId;
use slipway_domain::snapshot::SnapshotRecord;

use super::{Error, Ledger};

impl Ledger {
    /// Lets every organization use a snapshot, or its own alone.
    ///
    /// # Errors
    /// The snapshot is gone, or nothing can be written now.
    pub async fn set_general(
        &self,
        id: SnapshotId,
        general: bool,
    ) -> Result<SnapshotRecord, Error> {
        self.change_snapshot(id, "a general snapshot", |snapshot| {
            let changed = snapshot.general != general;
            changed.then(|| SnapshotRecord { general, ..snapshot.clone() })
        })
        .await?;
        let known = self.view.records().snapshot(&id).map(|entry| (*entry.value).clone());
        known.ok_or(Error::SnapshotGone { id })
    }
}
