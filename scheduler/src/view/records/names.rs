//! Names: whose each is, and which of them somebody has to look at.
//!
//! Owns what the records of names say beside what snapshots say of themselves.
//! The record decides whose a name is; that a snapshot calls itself so does not.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::snapshot::name::{NameRecord, Standing};
use slipway_domain::{OrganizationId, SnapshotId};

use super::outline::SnapshotOutline;
use super::{Debris, Records, usage};

/// A name within its organization.
pub type Name = (OrganizationId, String);

/// What is known of one name. Nearly all are plain, so these are small.
#[derive(Debug)]
enum Named {
    /// One snapshot calls itself so, and its record of this revision names that alone.
    Plain(SnapshotId, u64),
    /// Its record of this revision names one snapshot, and none calls itself so yet.
    Ahead(SnapshotId, u64),
    /// Anything else.
    Special(Box<Details>),
}

/// What is known of a name of which there is more to say.
#[derive(Debug, Default)]
struct Details {
    /// Its record with the revision, if it has one.
    record: Option<(NameRecord, u64)>,
    /// The snapshots that call themselves so.
    snapshots: BTreeSet<SnapshotId>,
}

impl Named {
    const fn is_special(&self) -> bool {
        !matches!(self, Self::Plain(..))
    }

    fn holder(&self) -> Option<SnapshotId> {
        match self {
            Self::Plain(id, _) | Self::Ahead(id, _) => Some(*id),
            Self::Special(details) => Some(details.record.as_ref()?.0.holder()),
        }
    }

    fn record(&self) -> Option<NameRecord> {
        match self {
            Self::Plain(id, _) | Self::Ahead(id, _) => Some(NameRecord::new(*id)),
            Self::Special(details) => Some(details.record.as_ref()?.0.clone()),
        }
    }

    fn snapshots(&self) -> Vec<SnapshotId> {
        match self {
            Self::Plain(id, _) => vec![*id],
            Self::Ahead(..) => vec![],
            Self::Special(details) => details.snapshots.iter().copied().collect(),
        }
    }

    fn into_details(self) -> Box<Details> {
        match self {
            Self::Plain(id, revision) => Box::new(Details {
                record: Some((NameRecord::new(id), revision)),
                snapshots: BTreeSet::from([id]),
            }),
            Self::Ahead(id, revision) => Box::new(Details {
                record: Some((NameRecord::new(id), revision)),
                snapshots: BTreeSet::new(),
            }),
            Self::Special(details) => details,
        }
    }
}

impl From<Box<Details>> for Named {
    fn from(details: Box<Details>) -> Self {
        let Some((record, revision)) = &details.record else { return Self::Special(details) };
        let (holder, revision) = (record.holder(), *revision);
        let is_lone = record.is_lone();
        match details.snapshots.len() {
            0 if is_lone => Self::Ahead(holder, revision),
            1 if is_lone && details.snapshots.contains(&holder) => Self::Plain(holder, revision),
            _ => Self::Special(details),
        }
    }
}

impl Details {
    /// Changes whatever is known of a name; nothing is left if nothing is.
    fn change(named: Option<Named>, change: impl FnOnce(&mut Self)) -> Option<Named> {
        let mut details = named.map(Named::into_details).unwrap_or_default();
        change(&mut details);
        let is_empty = details.record.is_none() && details.snapshots.is_empty();
        (!is_empty).then(|| details.into())
    }
}

/// Every name.
#[derive(Debug, Default)]
pub(super) struct Names {
    all: HashMap<OrganizationId, HashMap<Arc<str>, Named>>,
    /// Those that are not plain.
    special: BTreeSet<Name>,
    /// Whether `special` is left out for now.
    loading: bool,
}

impl Names {
    /// Names of which very many are to come: which of them are special is known only
    /// after [`Self::complete`].
    pub(super) fn loading() -> Self {
        Self { loading: true, ..Self::default() }
    }

    pub(super) fn complete(&mut self) {
        self.loading = false;
        for (organization, names) in &self.all {
            let special = names.iter().filter(|(_, named)| named.is_special());
            self.special.extend(special.map(|(name, _)| (*organization, (**name).to_owned())));
        }
    }

    pub(super) fn holder(&self, organization: &OrganizationId, name: &str) -> Option<SnapshotId> {
        self.get(organization, name)?.holder()
    }

    pub(super) fn has_record(&self, (organization, name): &Name) -> bool {
        self.holder(organization, name).is_some()
    }

    pub(super) fn put_record(&mut self, (of, name): Name, record: NameRecord, revision: u64) {
        self.change(of, &name, |named| match named {
            None if record.is_lone() => Some(Named::Ahead(record.holder(), revision)),
            named => Details::change(named, |details| {
                if details.record.as_ref().is_none_or(|(_, known)| *known < revision) {
                    details.record = Some((record, revision));
                }
            }),
        });
    }

    /// Forgets the record of a name, unless it was written again later.
    pub(super) fn delete_record(&mut self, (of, name): Name, revision: u64) {
        let forget = |details: &mut Details| {
            details.record.take_if(|(_, known)| *known < revision);
        };
        self.change(of, &name, |named| Details::change(named, forget));
    }

    /// Notes what a snapshot calls itself; returns the text to share.
    pub(super) fn add(&mut self, snapshot: &SnapshotOutline) -> Arc<str> {
        let id = snapshot.id;
        let add = |details: &mut Details| {
            details.snapshots.insert(id);
        };
        self.change(snapshot.organization, &snapshot.name, |named| match named {
            Some(Named::Ahead(holder, revision)) if holder == id => {
                Some(Named::Plain(holder, revision))
            }
            named => Details::change(named, add),
        })
    }

    pub(super) fn remove(&mut self, snapshot: &SnapshotOutline) {
        let remove = |details: &mut Details| {
            details.snapshots.remove(&snapshot.id);
        };
        let (of, name) = (snapshot.organization, &snapshot.name);
        self.change(of, name, |named| Details::change(named, remove));
    }

    fn get(&self, organization: &OrganizationId, name: &str) -> Option<&Named> {
        self.all.get(organization)?.get(name)
    }

    /// Changes what is known of a name; returns its text as it is kept here.
    fn change(
        &mut self,
        of: OrganizationId,
        name: &str,
        change: impl FnOnce(Option<Named>) -> Option<Named>,
    ) -> Arc<str> {
        let names = self.all.entry(of).or_default();
        let (text, before) = match names.remove_entry(name) {
            Some((text, named)) => (text, Some(named)),
            None => (Arc::from(name), None),
        };
        let was_special = before.as_ref().is_some_and(Named::is_special);
        let after = change(before);
        let is_special = after.as_ref().is_some_and(Named::is_special);
        if let Some(named) = after {
            names.insert(text.clone(), named);
        } else if names.is_empty() {
            self.all.remove(&of);
        }
        match (was_special, is_special) {
            _ if self.loading => {}
            (false, true) => drop(self.special.insert((of, name.to_owned()))),
            (true, false) => drop(self.special.remove(&(of, name.to_owned()))),
            (false, false) | (true, true) => {}
        }
        text
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
        let snapshots = named.into_iter().flat_map(Named::snapshots);
        snapshots.filter(|id| {
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
        match self.names.get(&name.0, &name.1).and_then(Named::record) {
            Some(record) => {
                record.settled(|id| self.standing(id)) != record
                    || self.superseded(name, &record).next().is_some()
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
        let snapshots = self.names.get(organization, name)?.snapshots();
        let mut latest = snapshots.into_iter().rev();
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
        let snapshots = named.into_iter().flat_map(Named::snapshots);
        let outlines = snapshots.filter_map(|id| self.snapshots.outline(&id));
        outlines.filter(|outline| usage::is_in_use(outline.state.stage)).count()
    }

    /// Names of snapshots that are not there.
    pub(super) fn names_ahead(&self) -> impl Iterator<Item = Debris> {
        self.names.special.iter().flat_map(|name| {
            let record = self.names.get(&name.0, &name.1).and_then(Named::record);
            let members: Vec<SnapshotId> =
                record.iter().flat_map(|record| record.members()).collect();
            let missing = members.into_iter().filter(|id| !self.snapshots.has(id));
            missing.map(|id| Debris::Name(id, name.clone()))
        })
    }
}
