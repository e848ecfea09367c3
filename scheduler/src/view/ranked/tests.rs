use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

impl<T: Ord> Ranked<T> {
    fn check(&self) {
        assert!(self.chunks.iter().all(|chunk| (1..=FULL).contains(&chunk.len())));
        assert!(self.iter().is_sorted());
        assert_eq!(self.iter().count(), self.len());
    }
}

/// Inserts (even) and removals (odd) of few distinct entries, so that chunks fill,
/// split, shrink and join.
fn changes() -> impl Strategy<Value = Vec<(u16, bool)>> {
    prop::collection::vec((0..3000_u16, prop::bool::weighted(0.7)), 0..4000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_is_a_sorted_set_after_any_changes(
        at_once in prop::collection::vec(0..3000_u16, 0..2000),
        changes in changes(),
        ranks in prop::collection::vec(0..4000_usize, 20),
    ) {
        let mut naive: BTreeSet<u16> = at_once.iter().copied().collect();
        let mut ranked: Ranked<u16> = at_once.into_iter().collect();
        ranked.check();
        for (entry, is_insert) in changes {
            if is_insert {
                ranked.insert(entry);
                naive.insert(entry);
            } else {
                ranked.remove(&entry);
                naive.remove(&entry);
            }
        }
        ranked.check();
        let sorted: Vec<u16> = naive.into_iter().collect();
        prop_assert!(ranked.iter().eq(&sorted));
        for rank in ranks {
            let split = rank.min(sorted.len());
            prop_assert_eq!(ranked.get(rank), sorted.get(rank));
            prop_assert!(ranked.from(rank).eq(&sorted[split..]));
            prop_assert!(ranked.down_from(rank).eq(sorted[..split].iter().rev()));
            let bound = rank as u16;
            let below = sorted.iter().filter(|entry| **entry < bound).count();
            prop_assert_eq!(ranked.rank(|entry| *entry < bound), below);
        }
    }
}

#[test]
fn what_comes_in_order_fills_its_chunks() {
    let mut ranked = Ranked::default();
    for entry in 0..FULL * 4 {
        ranked.insert(entry);
    }
    assert_eq!(ranked.chunks.len(), 4);
    let mut down = Ranked::default();
    for entry in (0..FULL * 4).rev() {
        down.insert(entry);
    }
    assert_eq!(down.chunks.len(), 4);
    for entry in 0..FULL * 4 {
        ranked.remove(&entry);
        ranked.check();
    }
    assert_eq!((ranked.len(), ranked.get(0)), (0, None));
}
