//! Noting that snapshots are used.

use jiff::Timestamp;
use slipway_domain::SnapshotId;

use super::{Changes, Error, Ledger};

impl Ledger {
    /// Notes that a snapshot is used now, unless that was noted within the last
    /// minute.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn note_use(&self, id: SnapshotId) -> Result<(), Error> {
        loop {
            let known = self.view.records().snapshot(&id).cloned();
            let Some(entry) = known else { return Ok(()) };
            let Some(next) = entry.value.used(Timestamp::now()) else { return Ok(()) };
            let changes = Changes { snapshot: Some((next, entry.revision)), ..Changes::default() };
            match self.store(changes).await {
                Ok(()) => return Ok(()),
                Err(source) if source.is_conflict() => self.reload(id, entry.value.job).await?,
                Err(source) => return Err(Error::Write { what: "a use", source }),
            }
        }
    }
}
