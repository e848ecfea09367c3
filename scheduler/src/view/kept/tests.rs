#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thing {
    text: String,
    rests: bool,
}

impl AtRest for Thing {
    fn rests(&self) -> bool {
        self.rests
    }
}

fn thing(n: u64, rests: bool) -> Thing {
    let text = format!("{:x} is text that has something in common with others", n * 0x9e37_79b9);
    Thing { text, rests }
}

fn filled(count: u64) -> Kept<u64, Thing> {
    let mut kept = Kept::default();
    for n in 0..count {
        kept.insert(n, Prepared::new(thing(n, true), None), n);
    }
    kept
}

#[test]
fn few_are_held_as_they_are_and_many_packed() {
    let few = filled(SAMPLES as u64 - 1);
    assert!((0..few.live.len() as u64).all(|n| few.live(&n).is_some()));
    let mut many = filled(SAMPLES as u64 * 2);
    assert_eq!((many.live.len(), many.resting.len()), (0, SAMPLES * 2));
    let packed: usize = many.resting.values().map(|packed| packed.bytes.len()).sum();
    let plain = serde_json::to_vec(&thing(1, true)).unwrap().len();
    assert!(packed < plain * SAMPLES, "{packed} bytes are more than half of them");
    // One that moves is unpacked as long as it does.
    many.insert(7, Prepared::new(thing(7, false), many.packer().as_ref()), 1000);
    assert_eq!(many.live(&7).map(|entry| entry.revision), Some(1000));
    assert!(!many.resting.contains_key(&7));
}

#[test]
fn what_another_dictionary_packed_is_packed_anew() {
    let (one, mut other) = (filled(SAMPLES as u64), filled(SAMPLES as u64 * 3));
    let prepared = Prepared::new(thing(9999, true), one.packer().as_ref());
    other.insert(9999, prepared, 1);
    assert!(other.resting.contains_key(&9999));
    assert_eq!(*other.get(&9999).unwrap().value, thing(9999, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_read_is_what_was_put_in(
        changes in prop::collection::vec((0..600_u64, 0..u64::MAX / 2, 0..8_u8), 0..1500),
    ) {
        let (mut kept, mut naive) = (Kept::default(), HashMap::new());
        for (revision, (id, n, what)) in changes.into_iter().enumerate() {
            if what == 0 {
                kept.remove(&id);
                naive.remove(&id);
            } else {
                let thing = Thing { rests: what > 1, ..thing(n >> 40, true) };
                // Some are packed ahead.
                let packer = kept.packer().filter(|_| what > 4);
                kept.insert(id, Prepared::new(thing.clone(), packer.as_ref()), revision as u64);
                naive.insert(id, (thing, revision as u64));
            }
        }
        for id in 0..600 {
            let found = kept.get(&id).map(|entry| ((*entry.value).clone(), entry.revision));
            prop_assert_eq!(kept.has(&id), found.is_some());
            prop_assert_eq!(kept.revision(&id), found.as_ref().map(|(_, revision)| *revision));
            prop_assert_eq!(found.as_ref(), naive.get(&id));
        }
    }
}
