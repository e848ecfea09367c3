//! Names: whose each is, and which of them somebody has to look at.
//!
//! Owns what the records of names say beside what snapshots say of themselves.
//! The record decides whose a name is; that a snapshot calls itself so does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::snapshot::name::{NameRecord, Standing};
use slipway_domain::{OrganizationId, SnapshotId};

use super::{Debris, Entry, Records, usage};

/// A name within its organization.
pub type Name = (OrganizationId, String);

/// What is known of one name.
#[derive(Debug, Default)]
struct Named {
    /// Its record with the revision, if it has one.
    record: Option<(NameRecord, u64)>,
    /// The snapshots that call themselves so.
    snapshots: BTreeSet<SnapshotId>,
}

impl Named {
    /// Whether one snapshot has the name, and nobody else is concerned.
    fn is_plain(&self) -> bool {
        let holder = self.record.as_ref().map(|(record, _)| record.holder());
        let is_lone = self.record.as_ref().is_some_and(|(record, _)| record.members().count() == 1);
        is_lone && self.snapshots.len() == 1 && self.snapshots.first().copied() == holder
    }
}

/// Every name.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashMap<OrganizationId, BTreeMap<String, Named>>,
    /// Those of which more is to be known than whose they are.
    special: BTreeSet<Name>,
}

impl Names {
    pub(super) fn holder(&self, organization: &OrganizationId, name: &str) -> Option<SnapshotId> {
        Some(self.get(organization, name)?.record.as_ref()?.0.holder())
    }

    /// The snapshots of an organization, by name.
    pub(super) fn of(&self, organization: &OrganizationId) -> impl Iterator<Item = SnapshotId> {
        let names = self.all.get(organization).into_iter().flat_map(BTreeMap::values);
        names.flat_map(|named| named.snapshots.iter().copied())
    }

    pub(super) fn has_record(&self, (organization, name): &Name) -> bool {
        self.get(organization, name).is_some_and(|named| named.record.is_some())
    }

    pub(super) fn put_record(&mut self, name: Name, record: NameRecord, revision: u64) {
        self.change(name, |named| {
            if named.record.as_ref().is_none_or(|(_, known)| *known < revision) {
                named.record = Some((record, revision));
            }
        });
    }

    /// Forgets the record of a name, unless it was written again later.
    pub(super) fn delete_record(&mut self, name: Name, revision: u64) {
        self.change(name, |named| named.record.take_if(|(_, known)| *known < revision));
    }

    pub(super) fn add(&mut self, snapshot: &SnapshotRecord) {
        self.change(name_of(snapshot), |named| named.snapshots.insert(snapshot.id));
    }

    pub(super) fn remove(&mut self, snapshot: &SnapshotRecord) {
        self.change(name_of(snapshot), |named| named.snapshots.remove(&snapshot.id));
    }

    fn get(&self, organization: &OrganizationId, name: &str) -> Option<&Named> {
        self.all.get(organization)?.get(name)
    }

    fn change<T>(&mut self, name: Name, change: impl FnOnce(&mut Named) -> T) {
        let names = self.all.entry(name.0).or_default();
        let named = names.entry(name.1.clone()).or_default();
        change(named);
        if named.record.is_none() && named.snapshots.is_empty() {
            names.remove(&name.1);
            if names.is_empty() {
                self.all.remove(&name.0);
            }
            self.special.remove(&name);
        } else if named.is_plain() {
            self.special.remove(&name);
        } else {
            self.special.insert(name);
        }
    }
}

/// The name that a snapshot calls its own.
pub fn name_of(snapshot: &SnapshotRecord) -> Name {
    (snapshot.organization, snapshot.name.clone())
}

impl Records {
    /// Who has the name that a snapshot is to have, if it is not itself.
    #[must_use]
    pub fn replaced_by(&self, snapshot: &SnapshotRecord) -> Option<SnapshotId> {
        let holder = self.names.holder(&snapshot.organization, &snapshot.name)?;
        (holder != snapshot.id).then_some(holder)
    }

    /// How a snapshot stands towards its name, as far as is known.
    #[must_use]
    pub fn standing(&self, id: SnapshotId) -> Standing {
        self.snapshot(&id).map_or(Standing::Waits, |entry| entry.value.state.standing())
    }

    /// The snapshots that call themselves so and are to be removed, since the name
    /// is not and will not be theirs. General ones stay: others use them.
    pub fn superseded(
        &self,
        (organization, name): &Name,
        record: &NameRecord,
    ) -> impl Iterator<Item = SnapshotId> {
        let named = self.names.get(organization, name);
        let snapshots = named.into_iter().flat_map(|named| &named.snapshots);
        snapshots.copied().filter(|id| {
            let entry = self.snapshots.get(id);
            let stays = entry.is_none_or(|entry| {
                entry.value.general || entry.value.state.standing() == Standing::Going
            });
            !stays && !record.has(*id)
        })
    }

    /// Whether something is to be done about a name.
    #[must_use]
    pub fn is_unsettled(&self, name: &Name) -> bool {
        if !self.names.special.contains(name) {
            return false;
        }
        let record = self.names.get(&name.0, &name.1).and_then(|named| named.record.as_ref());
        match record {
            Some((record, _)) => {
                record.settled(|id| self.standing(id)) != *record
                    || self.superseded(name, record).next().is_some()
            }
            None => self.nameless(name).is_some(),
        }
    }

    /// Names about which something is to be done. Looks only at special ones.
    #[must_use]
    pub fn unsettled_names(&self) -> Vec<Name> {
        self.names.special.iter().filter(|name| self.is_unsettled(name)).cloned().collect()
    }

    /// The snapshot that may take a name whose record is gone: the latest.
    #[must_use]
    pub fn nameless(&self, (organization, name): &Name) -> Option<SnapshotId> {
        let named = self.names.get(organization, name)?;
        let mut latest = named.snapshots.iter().rev().copied();
        latest.find(|id| self.standing(*id) != Standing::Going)
    }

    /// How many snapshots of an organization count for no quota, since they are to
    /// take the place of others that do.
    #[must_use]
    pub fn replacing(&self, organization: &OrganizationId) -> usize {
        let special = self.names.special.range((*organization, String::new())..);
        let own = special.take_while(|(of, _)| of == organization);
        own.map(|name| self.in_use(name).saturating_sub(1)).sum()
    }

    /// How many snapshots of a name count.
    #[must_use]
    pub fn in_use(&self, (organization, name): &Name) -> usize {
        let named = self.names.get(organization, name);
        let snapshots = named.into_iter().flat_map(|named| &named.snapshots);
        let states = snapshots.filter_map(|id| self.snapshots.get(id));
        states.filter(|entry| usage::is_in_use(&entry.value.state)).count()
    }

    /// Names of snapshots that are not there.
    pub(super) fn names_ahead(&self) -> impl Iterator<Item = Debris> {
        self.names.special.iter().flat_map(|name| {
            let named = self.names.get(&name.0, &name.1);
            let record = named.and_then(|named| named.record.as_ref());
            let members = record.into_iter().flat_map(|(record, _)| record.members());
            let missing = members.filter(|id| !self.snapshots.contains_key(id));
            missing.map(|id| Debris::Name(id, name.clone()))
        })
    }

    /// Every snapshot of an organization, by name.
    pub fn of(
        &self,
        organization: &OrganizationId,
    ) -> impl Iterator<Item = &Entry<SnapshotRecord>> {
        self.names.of(organization).filter_map(|id| self.snapshots.get(&id))
    }
}
