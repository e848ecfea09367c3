//! Who has a name, and who is to have it.
//!
//! Owns the record of a name: the snapshots that were asked for under it, in the
//! order of the requests. The first has the name; the others are to replace it.
//! Invariants: a name is never of two; it moves to a snapshot only when that has an
//! image, or when nothing usable had it; a later request outlasts an earlier one.

use serde::{Deserialize, Serialize};

use super::SnapshotState;
use crate::ids::SnapshotId;

/// More do not wait for one name.
const MOST: usize = 10;

/// The record of a name, under `name.<org>.<base64url>` in `records`. Written by
/// compare-and-set, it settles whose the name is. A lone holder is stored as its
/// id, several as a list of ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct NameRecord {
    holder: SnapshotId,
    /// In the order of their requests.
    waiting: Vec<SnapshotId>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    One(SnapshotId),
    Several(Vec<SnapshotId>),
}

/// How a snapshot stands towards its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may get an image, or it is not stored yet.
    Waits,
    /// It has an image.
    Ready,
    /// It has none, and nobody makes one.
    Failed,
    /// It is being deleted.
    Going,
}

impl SnapshotState {
    /// How a snapshot in this state stands towards its name.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        match self {
            Self::Pending | Self::Building | Self::Pulling => Standing::Waits,
            Self::Active { .. } | Self::Inactive { .. } => Standing::Ready,
            Self::BuildFailed { .. } | Self::Error { .. } => Standing::Failed,
            Self::Removing => Standing::Going,
        }
    }
}

impl NameRecord {
    /// A name that was free.
    #[must_use]
    pub const fn new(holder: SnapshotId) -> Self {
        Self { holder, waiting: vec![] }
    }

    /// Whose the name is.
    #[must_use]
    pub const fn holder(&self) -> SnapshotId {
        self.holder
    }

    /// Whether nobody is to replace the holder.
    #[must_use]
    pub const fn is_lone(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The holder, then those that are to replace it.
    pub fn members(&self) -> impl Iterator<Item = SnapshotId> {
        std::iter::once(self.holder).chain(self.waiting.iter().copied())
    }

    /// Whether a snapshot has the name or is to have it.
    #[must_use]
    pub fn has(&self, id: SnapshotId) -> bool {
        self.members().any(|member| member == id)
    }

    /// The record with one more that is to replace the holder, unless too many are.
    #[must_use]
    pub fn joined(&self, id: SnapshotId) -> Option<Self> {
        if self.has(id) {
            return Some(self.clone());
        }
        let mut next = self.clone();
        next.waiting.push(id);
        (next.waiting.len() < MOST).then_some(next)
    }

    /// The record without a snapshot; nothing if nobody is left.
    #[must_use]
    pub fn without(&self, id: SnapshotId) -> Option<Self> {
        Self::of(self.members().filter(|member| *member != id).collect())
    }

    /// The record as the snapshots' standings want it. Who is being deleted leaves;
    /// who has an image makes all before it leave; who failed leaves when somebody
    /// comes after it. The last of them keeps a name that nobody else can have.
    #[must_use]
    pub fn settled(&self, standing: impl Fn(SnapshotId) -> Standing) -> Self {
        let mut kept: Vec<SnapshotId> = vec![];
        for id in self.waiting.iter().rev().copied().chain([self.holder]) {
            match standing(id) {
                Standing::Going => {}
                Standing::Failed if !kept.is_empty() => {}
                Standing::Waits | Standing::Failed => kept.push(id),
                Standing::Ready => {
                    kept.push(id);
                    break;
                }
            }
        }
        kept.reverse();
        Self::of(kept).unwrap_or_else(|| self.clone())
    }

    fn of(mut members: Vec<SnapshotId>) -> Option<Self> {
        if members.is_empty() {
            return None;
        }
        let holder = members.remove(0);
        Some(Self { holder, waiting: members })
    }
}

impl TryFrom<Form> for NameRecord {
    type Error = &'static str;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        match form {
            Form::One(holder) => Ok(Self::new(holder)),
            Form::Several(members) => Self::of(members).ok_or("a name without a snapshot"),
        }
    }
}

impl From<NameRecord> for Form {
    fn from(record: NameRecord) -> Self {
        if record.waiting.is_empty() {
            return Self::One(record.holder);
        }
        Self::Several(record.members().collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn id(n: usize) -> SnapshotId {
        SnapshotId::from_uuid(Uuid::from_u128(n as u128))
    }

    fn record(members: usize) -> NameRecord {
        NameRecord::of((0..members).map(id).collect()).unwrap()
    }

    /// The members that stay of some with these standings: `w`aiting, `r`eady,
    /// `f`ailed, `g`oing.
    fn settled(standings: &str) -> Vec<usize> {
        let standing = |of: SnapshotId| match standings.as_bytes()[of.as_uuid().as_u128() as usize]
        {
            b'w' => Standing::Waits,
            b'r' => Standing::Ready,
            b'f' => Standing::Failed,
            _ => Standing::Going,
        };
        let next = record(standings.len()).settled(standing);
        assert_eq!(next.settled(standing), next, "a second look changes nothing");
        next.members().map(|id| id.as_uuid().as_u128() as usize).collect()
    }

    #[test]
    fn a_name_moves_when_the_new_one_is_ready_and_stays_when_it_fails() {
        assert_eq!(settled("rw"), [0, 1]);
        assert_eq!(settled("rr"), [1]);
        assert_eq!(settled("rf"), [0, 1], "the failed one can still be read");
        assert_eq!(settled("rfw"), [0, 2]);
    }

    #[test]
    fn a_later_request_outlasts_an_earlier_one() {
        assert_eq!(settled("rww"), [0, 1, 2]);
        assert_eq!(settled("rrw"), [1, 2]);
        assert_eq!(settled("rwr"), [2], "the one between comes too late");
        assert_eq!(settled("wr"), [1]);
    }

    #[test]
    fn what_nobody_can_use_gives_way_at_once() {
        assert_eq!(settled("fw"), [1]);
        assert_eq!(settled("ff"), [1]);
        assert_eq!(settled("gw"), [1]);
        assert_eq!(settled("gf"), [1]);
        assert_eq!(settled("rg"), [0]);
        assert_eq!(settled("g"), [0], "its removal frees the name");
        assert_eq!(settled("gg"), [0, 1]);
    }

    #[test]
    fn a_lone_holder_is_stored_as_its_id_as_it_always_was() {
        let lone = record(1);
        let text = "\"00000000-0000-0000-0000-000000000000\"";
        assert_eq!(serde_json::to_string(&lone).unwrap(), text);
        assert_eq!(serde_json::from_str::<NameRecord>(text).unwrap(), lone);
        let both = lone.joined(id(1)).unwrap();
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<NameRecord>(&text).unwrap(), both);
        assert!(serde_json::from_str::<NameRecord>("[]").is_err());
    }

    #[test]
    fn members_come_and_go() {
        let both = record(1).joined(id(1)).unwrap();
        assert_eq!(both.joined(id(1)), Some(both.clone()));
        assert_eq!(both.without(id(0)), Some(NameRecord::new(id(1))));
        assert_eq!(record(1).without(id(0)), None);
        assert_eq!(record(1).without(id(7)), Some(record(1)));
        let full = (1..100).try_fold(record(1), |record, n| record.joined(id(n)));
        assert_eq!(full, None);
    }

    proptest! {
        /// Whatever the standings: somebody has the name, nobody is invented, the
        /// order stays, and a usable holder gives way only to a usable one.
        #[test]
        fn a_name_always_has_one_holder(standings in "[wrfg]{1,9}") {
            let kept = settled(&standings);
            prop_assert!(!kept.is_empty());
            prop_assert!(kept.is_sorted());
            let at = |n: usize| standings.as_bytes()[n];
            if at(0) == b'r' {
                prop_assert_eq!(at(kept[0]), b'r');
            }
            if let Some(last) = standings.rfind('r') {
                prop_assert_eq!(kept[0], last);
            }
        }
    }
}
