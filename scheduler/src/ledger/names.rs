//! Names: taking one, giving one up, and having it move to whom it is due.
//!
//! The record of a name decides whose it is ([`NameRecord`]); every change is a
//! compare-and-set of it. Who is to have the name stands in it before the snapshot
//! is stored. Invariants: a name moves to a snapshot with an image only together
//! with the proof that it still is so; who loses a name is removed afterwards, so
//! that whatever breaks off in between is found by the next look.

use slipway_bus::bucket::{self, Batch, Expected};
use slipway_bus::topology::keys;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::snapshot::name::{NameRecord, Standing};
use slipway_domain::{JobId, OrganizationId, SnapshotId};

use super::{Error, Ledger};
use crate::view::{Name, Value, name_of};

/// What a new snapshot does about its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// It takes a name that is free.
    Take,
    /// It takes the name from whoever has it, once it is active.
    Replace,
}

impl Ledger {
    /// Has a snapshot, which is not stored yet, stand in the record of its name.
    pub(super) async fn take_name(
        &self,
        snapshot: &SnapshotRecord,
        naming: Naming,
    ) -> Result<(), Error> {
        let name = name_of(snapshot);
        let (key, own) = (key_of(&name), NameRecord::new(snapshot.id));
        loop {
            match self.records.create(&key, &own, None).await {
                Ok(revision) => {
                    self.know_name(name, own, revision);
                    return Ok(());
                }
                Err(error) if !error.is_conflict() => return Err(failed(error)),
                Err(_) if naming == Naming::Take => return Err(taken(&name)),
                Err(_) => {}
            }
            let Some((record, revision)) = self.read::<NameRecord>(&key).await? else { continue };
            if self.is_general(&name.0, record.holder()).await? {
                return Err(Error::GeneralReplaced { name: name.1 });
            }
            let Some(next) = record.joined(snapshot.id) else {
                return Err(Error::TooManyReplace { name: name.1 });
            };
            match self.records.update(&key, &next, revision, None).await {
                Ok(revision) => {
                    self.know_name(name, next, revision);
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Whether a snapshot stands in the record of its name still.
    pub(super) async fn check_name(&self, snapshot: &SnapshotRecord) -> Result<(), Error> {
        let name = name_of(snapshot);
        let record = self.read::<NameRecord>(&key_of(&name)).await?;
        if record.is_some_and(|(record, _)| record.has(snapshot.id)) {
            return Ok(());
        }
        Err(taken(&name))
    }

    /// Takes a snapshot, which is not there or is gone, off the record of its name.
    pub(super) async fn leave_name(&self, name: &Name, id: SnapshotId) -> Result<(), Error> {
        let key = key_of(name);
        loop {
            let Some((record, revision)) = self.read::<NameRecord>(&key).await? else {
                return Ok(());
            };
            let written = match record.without(id) {
                Some(rest) if rest == record => return Ok(()),
                Some(rest) => self.records.update(&key, &rest, revision, None).await.map(|_| ()),
                None => self.records.delete(&key, revision).await,
            };
            match written {
                Ok(()) => return Ok(()),
                Err(error) if error.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Settles the names of the snapshots that stand on a job.
    pub(super) async fn settle_names_of(&self, job: JobId) -> Result<(), Error> {
        let names: Vec<Name> = {
            let records = self.view.records();
            let names = records.followers(job).map(|entry| name_of(&entry.value));
            names.filter(|name| records.is_unsettled(name)).collect()
        };
        for name in names {
            self.settle_name(&name).await?;
        }
        Ok(())
    }

    /// Has a name move to whom it is due, and those removed that it will never be
    /// due to.
    ///
    /// # Errors
    /// Nothing can be read or written now; the next look does the rest.
    pub async fn settle_name(&self, name: &Name) -> Result<(), Error> {
        let Some(record) = self.move_name(name).await? else {
            return self.give_name_back(name).await;
        };
        let superseded: Vec<SnapshotId> = self.view.records().superseded(name, &record).collect();
        for id in superseded {
            tracing::info!(snapshot.id = %id, "a snapshot that was replaced is removed");
            match self.remove(id).await {
                Ok(()) | Err(Error::SnapshotGone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes the record of a name as the snapshots' states want it, and returns it;
    /// nothing if there is none.
    async fn move_name(&self, name: &Name) -> Result<Option<NameRecord>, Error> {
        let key = key_of(name);
        loop {
            let Some((record, revision)) = self.read::<NameRecord>(&key).await? else {
                return Ok(None);
            };
            for id in record.members() {
                if self.view.records().snapshot(&id).is_none() {
                    self.reload_snapshot(name.0, id).await?;
                }
            }
            let next = record.settled(|id| self.view.records().standing(id));
            self.know_name(name.clone(), record.clone(), revision);
            if next == record {
                return Ok(Some(record));
            }
            match self.store_name(name, &next, revision).await {
                Ok(()) => {
                    let id = next.holder();
                    if id != record.holder() {
                        tracing::info!(snapshot.id = %id, "a name moved");
                    }
                    return Ok(Some(next));
                }
                Err(error) if error.is_conflict() => {
                    self.reload_snapshot(name.0, next.holder()).await?;
                }
                Err(source) => return Err(failed(source)),
            }
        }
    }

    /// Stores the record of a name, if its holder still is what it is known to be.
    async fn store_name(
        &self,
        name: &Name,
        next: &NameRecord,
        revision: u64,
    ) -> Result<(), bucket::Error> {
        let holder = self.view.records().snapshot(&next.holder());
        let holder = holder.filter(|entry| entry.value.state.standing() == Standing::Ready);
        let key = key_of(name);
        let Some(holder) = holder else {
            let revision = self.records.update(&key, next, revision, None).await?;
            self.know_name(name.clone(), next.clone(), revision);
            return Ok(());
        };
        let mut batch = Batch::new();
        batch.put(key, next, Expected::Revision(revision))?;
        let (organization, id) = (&holder.value.organization, &holder.value.id);
        let proof = Expected::Revision(holder.revision);
        batch.put(keys::snapshot(organization, id), &*holder.value, proof)?;
        let revisions = self.records.commit(&batch).await?;
        if let [of_name, of_snapshot] = revisions[..] {
            self.know_name(name.clone(), next.clone(), of_name);
            let value = Value::Snapshot((*holder.value).clone());
            self.view.change_records(|records| records.put(value, of_snapshot));
        }
        Ok(())
    }

    /// Has a snapshot take its name again, which was given up while it was made so
    /// slowly that it counted as left behind.
    async fn give_name_back(&self, name: &Name) -> Result<(), Error> {
        let Some(id) = self.view.records().nameless(name) else { return Ok(()) };
        if !self.reload_snapshot(name.0, id).await? {
            return Ok(());
        }
        let record = NameRecord::new(id);
        match self.records.create(&key_of(name), &record, None).await {
            Ok(revision) => {
                tracing::warn!(snapshot.id = %id, "a snapshot without a name has it again");
                self.know_name(name.clone(), record, revision);
                Ok(())
            }
            Err(error) if error.is_conflict() => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    async fn is_general(
        &self,
        organization: &OrganizationId,
        id: SnapshotId,
    ) -> Result<bool, Error> {
        if self.view.records().snapshot(&id).is_none() {
            self.reload_snapshot(*organization, id).await?;
        }
        Ok(self.view.records().snapshot(&id).is_some_and(|entry| entry.value.general))
    }

    fn know_name(&self, name: Name, record: NameRecord, revision: u64) {
        self.view.change_records(|records| records.put(Value::Name(name, record), revision));
    }
}

fn key_of((organization, name): &Name) -> String {
    keys::snapshot_name(organization, name)
}

fn taken((_, name): &Name) -> Error {
    Error::NameTaken { name: name.clone() }
}

fn failed(source: bucket::Error) -> Error {
    Error::Write { what: "a name", source }
}
