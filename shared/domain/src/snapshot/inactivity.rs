//! Which snapshots nobody has used for long.
//!
//! Pure: the time is handed in, so two weeks pass at once in tests.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use slipway_oci::Digest;

use super::{SnapshotRecord, SnapshotState};
use crate::ids::{OrganizationId, SnapshotId};
use crate::region::Region;

impl SnapshotRecord {
    /// When it was last of use: used, or else made.
    #[must_use]
    pub fn last_of_use(&self) -> Timestamp {
        self.last_used_at.map_or(self.created_at, |used| used.max(self.created_at))
    }

    /// Whether it is active, and of no use to anybody since `before`. General
    /// snapshots are others' to use, and never idle.
    #[must_use]
    pub fn is_idle(&self, before: Timestamp) -> bool {
        let is_active = matches!(self.state, SnapshotState::Active { .. });
        is_active && !self.general && self.last_of_use() < before
    }
}

/// Those of `snapshots` that are due to become inactive: idle for longer than
/// `after`, as are all their twins, the active snapshots of the same organization
/// with the same image in the same region.
pub fn idle<'a>(
    snapshots: impl Iterator<Item = &'a SnapshotRecord>,
    after: SignedDuration,
    now: Timestamp,
) -> Vec<SnapshotId> {
    let Ok(before) = now.checked_sub(after) else { return vec![] };
    let mut twins: HashMap<(OrganizationId, &Region, Digest), Vec<&SnapshotRecord>> =
        HashMap::new();
    for snapshot in snapshots {
        if let SnapshotState::Active { image } = &snapshot.state {
            let image = (snapshot.organization, &snapshot.region, image.digest);
            twins.entry(image).or_default().push(snapshot);
        }
    }
    let all_idle = twins.into_values().filter(|twins| twins.iter().all(|one| one.is_idle(before)));
    all_idle.flatten().map(|snapshot| snapshot.id).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use uuid::Uuid;

    use super::*;
    use crate::snapshot::SnapshotEvent;
    use crate::snapshot::tests::{image, snapshot};

    const TWO_WEEKS: SignedDuration = SignedDuration::from_hours(14 * 24);

    fn day(days: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days)
    }

    fn active(n: u128) -> SnapshotRecord {
        let mut record = snapshot();
        record.id = SnapshotId::from_uuid(Uuid::from_u128(n));
        record.state = SnapshotState::Active { image: image() };
        record
    }

    fn idle_ids(snapshots: &[SnapshotRecord], now: Timestamp) -> Vec<SnapshotId> {
        let mut ids = idle(snapshots.iter(), TWO_WEEKS, now);
        ids.sort();
        ids
    }

    #[test]
    fn after_two_weeks_without_use_it_is_due() {
        let record = active(1);
        assert_eq!(idle_ids(std::slice::from_ref(&record), day(14)), []);
        assert_eq!(idle_ids(std::slice::from_ref(&record), day(15)), [record.id]);
        let used = record.used(day(10)).unwrap();
        assert_eq!(idle_ids(std::slice::from_ref(&used), day(15)), []);
        assert_eq!(idle_ids(std::slice::from_ref(&used), day(25)), [record.id]);
    }

    #[test]
    fn a_twin_that_is_used_keeps_it_and_another_image_or_region_does_not() {
        let used = active(2).used(day(10)).unwrap();
        assert_eq!(idle_ids(&[active(1), used.clone()], day(15)), []);
        assert_eq!(idle_ids(&[active(1), used.clone()], day(25)), [active(1).id, used.id]);
        let mut elsewhere = used.clone();
        elsewhere.region = "eu".parse().unwrap();
        assert_eq!(idle_ids(&[active(1), elsewhere], day(15)), [active(1).id]);
        let mut other = used.clone();
        let digest = format!("sha256:{}", "cd".repeat(32)).parse().unwrap();
        other.state = SnapshotState::Active { image: crate::BuiltImage { digest, ..image() } };
        assert_eq!(idle_ids(&[active(1), other], day(15)), [active(1).id]);
        // An inactive twin that was used is none.
        let rests = used.apply(used.job, SnapshotEvent::Deactivate, day(11));
        assert_eq!(idle_ids(&[active(1), rests], day(15)), [active(1).id]);
    }

    #[test]
    fn what_is_general_or_not_active_is_never_due() {
        let mut general = active(1);
        general.general = true;
        let waiting = snapshot();
        let rests = active(3).apply(active(3).job, SnapshotEvent::Deactivate, day(1));
        assert_eq!(idle_ids(&[general, waiting, rests], day(99)), []);
        // Before the beginning of time nothing was used.
        assert_eq!(idle([active(1)].iter(), SignedDuration::MAX, day(1)), []);
    }
}
