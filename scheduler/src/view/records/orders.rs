//! One organization's snapshots in every order in which they are listed.
//!
//! Owns the sorted indexes and what a list can be filtered by without reading a
//! record. Refuses to know records: it is told the little that it sorts by
//! ([`Line`]). Invariants: every snapshot of the organization is in each order exactly
//! once; equal keys come newest first in either direction, and what was never used
//! comes last in either.

use std::cmp::{Ordering, Reverse};
use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use slipway_domain::SnapshotId;
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};

use super::needle::Needle;
use crate::view::ranked::Ranked;

/// Newest first: ids are of version 7, so they sort by age.
type Newest = Reverse<SnapshotId>;

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Name.
    Name,
    /// The name of the state.
    State,
    /// When it was last used; those never used come last.
    LastUsedAt,
    /// When it was asked for.
    CreatedAt,
}

/// How a list is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub key: SortKey,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl Order {
    /// Compares two records as they are listed.
    pub fn compare(self, a: &SnapshotRecord, b: &SnapshotRecord) -> Ordering {
        let turn = |order: Ordering| if self.descending { order.reverse() } else { order };
        let by_key = match self.key {
            SortKey::Name => turn(a.name.cmp(&b.name)),
            SortKey::State => turn(a.state.name().cmp(b.state.name())),
            SortKey::CreatedAt => turn(micros(a.created_at).cmp(&micros(b.created_at))),
            SortKey::LastUsedAt => match (a.last_used_at, b.last_used_at) {
                (Some(a), Some(b)) => turn(micros(a).cmp(&micros(b))),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => Ordering::Equal,
            },
        };
        by_key.then_with(|| b.id.cmp(&a.id))
    }
}

/// As fine as lists tell times apart.
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// What is known of a snapshot here. Times are in microseconds.
#[derive(Debug)]
pub(super) struct Line {
    id: SnapshotId,
    name: Arc<str>,
    state: u8,
    region: u16,
    created: i64,
    used: Option<i64>,
    /// When it was last of use, if it is active and its owner's alone.
    of_use: Option<i64>,
}

impl Line {
    pub(super) fn new(record: &SnapshotRecord, name: Arc<str>, region: u16) -> Self {
        let is_active = matches!(record.state, SnapshotState::Active { .. });
        Self {
            id: record.id,
            name,
            state: state_number(record.state.name()),
            region,
            created: micros(record.created_at),
            used: record.last_used_at.map(micros),
            of_use: (is_active && !record.general).then(|| micros(record.last_of_use())),
        }
    }
}

/// A number that sorts as the name of the state does.
fn state_number(name: &str) -> u8 {
    const STATES: [&str; 8] = [
        "active",
        "build_failed",
        "building",
        "error",
        "inactive",
        "pending",
        "pulling",
        "removing",
    ];
    STATES.partition_point(|state| *state < name) as u8
}

/// One organization's snapshots, sorted.
#[derive(Debug, Default)]
pub(super) struct Orders {
    names: Ranked<(Arc<str>, Newest)>,
    /// With the region, which is the same as long as there is the snapshot.
    states: Ranked<(u8, Newest, [u8; 2])>,
    created: Ranked<(i64, Newest)>,
    used: Ranked<(i64, Newest)>,
    unused: Ranked<Newest>,
    of_use: Ranked<(i64, SnapshotId)>,
}

impl Orders {
    pub(super) fn add(&mut self, line: Line) {
        let newest = Reverse(line.id);
        self.states.insert((line.state, newest, line.region.to_ne_bytes()));
        self.created.insert((line.created, newest));
        match line.used {
            Some(used) => self.used.insert((used, newest)),
            None => self.unused.insert(newest),
        }
        if let Some(of_use) = line.of_use {
            self.of_use.insert((of_use, line.id));
        }
        self.names.insert((line.name, newest));
    }

    pub(super) fn remove(&mut self, line: Line) {
        let newest = Reverse(line.id);
        self.states.remove(&(line.state, newest, line.region.to_ne_bytes()));
        self.created.remove(&(line.created, newest));
        match line.used {
            Some(used) => self.used.remove(&(used, newest)),
            None => self.unused.remove(&newest),
        }
        if let Some(of_use) = line.of_use {
            self.of_use.remove(&(of_use, line.id));
        }
        self.names.remove(&(line.name, newest));
    }

    pub(super) const fn len(&self) -> usize {
        self.created.len()
    }

    /// Active ones that were of no use since `before`, to the microsecond.
    pub(super) fn idle(&self, before: Timestamp) -> impl Iterator<Item = SnapshotId> {
        let before = micros(before);
        self.of_use.iter().take_while(move |(time, _)| *time <= before).map(|(_, id)| *id)
    }

    /// The ids whose name contains `needle`.
    pub(super) fn named(&self, needle: &Needle<'_>) -> HashSet<SnapshotId> {
        let found = self.names.iter().filter(|(name, _)| needle.is_in(name));
        found.map(|(_, Reverse(id))| *id).collect()
    }

    /// The ids in regions that fit.
    pub(super) fn within(&self, fits: impl Fn(u16) -> bool) -> HashSet<SnapshotId> {
        let found = self.states.iter().filter(|(_, _, region)| fits(u16::from_ne_bytes(*region)));
        found.map(|(_, Reverse(id), _)| *id).collect()
    }

    /// The ids from a position of a list on.
    pub(super) fn list(
        &self,
        order: Order,
        start: usize,
    ) -> Box<dyn Iterator<Item = SnapshotId> + '_> {
        let Order { key, descending } = order;
        match key {
            SortKey::Name => {
                let names = self.names.listed(descending, start, |a, b| a.0.cmp(&b.0));
                Box::new(names.map(|(_, Reverse(id))| *id))
            }
            SortKey::State => {
                let states = self.states.listed(descending, start, |a, b| a.0.cmp(&b.0));
                Box::new(states.map(|(_, Reverse(id), _)| *id))
            }
            SortKey::CreatedAt => {
                let created = self.created.listed(descending, start, |a, b| a.0.cmp(&b.0));
                Box::new(created.map(|(_, Reverse(id))| *id))
            }
            SortKey::LastUsedAt => {
                let used = self.used.listed(descending, start, |a, b| a.0.cmp(&b.0));
                let unused = self.unused.from(start.saturating_sub(self.used.len()));
                Box::new(used.map(|(_, Reverse(id))| *id).chain(unused.map(|Reverse(id)| *id)))
            }
        }
    }
}
