//! Making snapshots general, and ordinary again.

use slipway_domain::SnapshotId;
use slipway_domain::snapshot::SnapshotRecord;

use super::{Changes, Error, Ledger};

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
        loop {
            let known = self.view.records().snapshot(&id).cloned();
            let entry = known.ok_or(Error::SnapshotGone { id })?;
            if entry.value.general == general {
                return Ok((*entry.value).clone());
            }
            let next = SnapshotRecord { general, ..(*entry.value).clone() };
            let changes =
                Changes { snapshot: Some((next.clone(), entry.revision)), ..Changes::default() };
            match self.store(changes).await {
                Ok(()) => return Ok(next),
                Err(source) if source.is_conflict() => self.reload(id, entry.value.job).await?,
                Err(source) => return Err(Error::Write { what: "a general snapshot", source }),
            }
        }
    }
}
