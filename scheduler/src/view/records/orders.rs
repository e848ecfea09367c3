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
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use slipway_oci::Digest;

use super::needle::Needle;
use super::outline::{SnapshotOutline, SnapshotStage, StateOutline};
use crate::view::ranked::Ranked;

/// So many are sorted faster than a thread starts.
const FEW: usize = 10_000;

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

/// What a snapshot is found by. Times are in microseconds.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: SnapshotId,
    pub(super) organization: OrganizationId,
    pub(super) job: JobId,
    pub(super) stage: SnapshotStage,
    pub(super) general: bool,
    pub(super) region: u16,
    /// The beginning of its image's digest.
    pub(super) image: Option<u64>,
    name: Arc<str>,
    created: i64,
    used: Option<i64>,
}

impl Line {
    pub(super) fn new(outline: &SnapshotOutline, name: Arc<str>, region: u16) -> Self {
        let StateOutline { stage, image } = outline.state;
        Self {
            id: outline.id,
            organization: outline.organization,
            job: outline.job,
            stage,
            general: outline.general,
            region,
            image: image.as_ref().map(beginning),
            name,
            created: micros(outline.created_at),
            used: outline.last_used_at.map(micros),
        }
    }

    /// When it was last of use, if it is active and its owner's alone.
    fn of_use(&self) -> Option<i64> {
        let is_own = self.stage == SnapshotStage::Active && !self.general;
        is_own.then(|| self.used.map_or(self.created, |used| used.max(self.created)))
    }
}

/// Enough of a digest to leave few that begin alike.
pub(super) fn beginning(digest: &Digest) -> u64 {
    let bytes = digest.as_bytes().first_chunk().expect("digests have at least 32 bytes");
    u64::from_be_bytes(*bytes)
}

/// One organization's snapshots, sorted.
#[derive(Debug, Default)]
pub(super) struct Orders {
    names: Ranked<(Arc<str>, Newest)>,
    /// With the region, which is the same as long as there is the snapshot.
    states: Ranked<(SnapshotStage, Newest, [u8; 2])>,
    created: Ranked<(i64, Newest)>,
    used: Ranked<(i64, Newest)>,
    unused: Ranked<Newest>,
    of_use: Ranked<(i64, SnapshotId)>,
}

fn names(lines: &[&Line]) -> Ranked<(Arc<str>, Newest)> {
    lines.iter().map(|line| (line.name.clone(), Reverse(line.id))).collect()
}

impl Orders {
    /// All at once. The names of very many are sorted beside the rest: comparing them
    /// takes as long as all of that.
    pub(super) fn of(lines: &[&Line]) -> Self {
        if lines.len() < FEW {
            return Self { names: names(lines), ..Self::but_names(lines) };
        }
        std::thread::scope(|scope| {
            let names = scope.spawn(|| names(lines));
            let orders = Self::but_names(lines);
            match names.join() {
                Ok(names) => Self { names, ..orders },
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn but_names(lines: &[&Line]) -> Self {
        let newest = |line: &Line| Reverse(line.id);
        let state = |line: &&Line| (line.stage, newest(line), line.region.to_ne_bytes());
        let unused = lines.iter().filter(|line| line.used.is_none());
        Self {
            names: Ranked::default(),
            states: lines.iter().map(state).collect(),
            created: lines.iter().map(|line| (line.created, newest(line))).collect(),
            used: lines.iter().filter_map(|line| Some((line.used?, newest(line)))).collect(),
            unused: unused.map(|line| newest(line)).collect(),
            of_use: lines.iter().filter_map(|line| Some((line.of_use()?, line.id))).collect(),
        }
    }

    pub(super) fn add(&mut self, line: Line) {
        let newest = Reverse(line.id);
        self.states.insert((line.stage, newest, line.region.to_ne_bytes()));
        self.created.insert((line.created, newest));
        match line.used {
            Some(used) => self.used.insert((used, newest)),
            None => self.unused.insert(newest),
        }
        if let Some(of_use) = line.of_use() {
            self.of_use.insert((of_use, line.id));
        }
        self.names.insert((line.name, newest));
    }

    pub(super) fn remove(&mut self, line: Line) {
        let newest = Reverse(line.id);
        self.states.remove(&(line.stage, newest, line.region.to_ne_bytes()));
        self.created.remove(&(line.created, newest));
        match line.used {
            Some(used) => self.used.remove(&(used, newest)),
            None => self.unused.remove(&newest),
        }
        if let Some(of_use) = line.of_use() {
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
