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

#[derive(Debug, PartialEq, Deserialize)]
struct Outline {
    rests: bool,
}

impl From<&Thing> for Outline {
    fn from(thing: &Thing) -> Self {
        Self { rests: thing.rests }
    }
}

impl AtRest for Thing {
    type Outline = Outline;

    fn rests(outline: &Outline) -> bool {
        outline.rests
    }
}

/// As it comes from a bucket.
fn read(thing: &Thing, packer: Option<Arc<Packer>>) -> Prepared<Thing> {
    Prepared::read(&serde_json::to_vec(thing).unwrap(), packer.as_ref()).unwrap()
}

fn thing(n: u64, rests: bool) -> Thing {
    let text = format!("{:x} is text that has something in common with others", n * 0x9e37_79b9);
    Thing { text, rests }
}

fn filled(count: u64) -> Kept<u64, Thing> {
    let mut kept = Kept::default();
    for n in 0..count {
        kept.insert(n, Prepared::new(thing(n, true)), n);
    }
    settle(&mut kept);
    kept
}

/// Waits for the packer, if one is being made, and has everything packed that waits.
fn settle(kept: &mut Kept<u64, Thing>) {
    while kept.training.as_ref().is_some_and(|training| !training.is_finished()) {
        thread::yield_now();
    }
    kept.catch_up();
    while kept.packer.is_some() && !kept.samples.is_empty() {
        kept.catch_up();
    }
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
    many.insert(7, read(&thing(7, false), many.packer()), 1000);
    assert_eq!(many.live(&7).map(|entry| entry.revision), Some(1000));
    assert!(!many.resting.contains_key(&7));
}

#[test]
fn nobody_waits_for_a_dictionary() {
    let mut kept = Kept::default();
    for n in 0..SAMPLES as u64 {
        kept.insert(n, Prepared::new(thing(n, true)), n);
    }
    assert!(kept.training.is_some() && kept.resting.is_empty());
    // One of those it is made of moves, and another goes.
    kept.insert(7, Prepared::new(thing(7, false)), 1000);
    kept.remove(&8);
    settle(&mut kept);
    assert_eq!((kept.live.len(), kept.resting.len()), (1, SAMPLES - 2));
    assert_eq!(kept.live(&7).map(|entry| entry.revision), Some(1000));
    assert!(!kept.has(&8));
}

#[test]
fn what_another_dictionary_packed_is_packed_anew() {
    let (one, mut other) = (filled(SAMPLES as u64), filled(SAMPLES as u64 * 3));
    other.insert(9999, read(&thing(9999, true), one.packer()), 1);
    assert!(other.resting.contains_key(&9999));
    assert_eq!(*other.get(&9999).unwrap().value, thing(9999, true));
    // And who has none yet takes it over.
    let mut few = filled(3);
    few.insert(9999, read(&thing(9999, true), one.packer()), 1);
    few.insert(8888, Prepared::new(thing(8888, true)), 1);
    assert!(few.resting.contains_key(&9999) && few.resting.contains_key(&8888));
    assert_eq!(*few.get(&9999).unwrap().value, thing(9999, true));
}

#[test]
fn what_does_not_hold_what_its_outline_promised_is_left_out_by_whoever_reads_it() {
    let mut kept = filled(SAMPLES as u64);
    let odd = Prepared::read(b"{\"rests\":true}", kept.packer().as_ref()).unwrap();
    kept.insert(9999, odd, 1);
    assert!(kept.get(&9999).is_none());
    assert_eq!(kept.outline(&9999), Some(Outline { rests: true }));
    assert!(Prepared::<Thing>::read(b"{\"text\":\"\"}", kept.packer().as_ref()).is_err());
    assert!(Prepared::<Thing>::read(b"{\"rests\":false}", kept.packer().as_ref()).is_err());
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
            } else if what == 1 && id < 100 {
                settle(&mut kept);
            } else {
                let thing = Thing { rests: what > 1, ..thing(n >> 40, true) };
                // Some are packed ahead.
                let prepared = match what > 4 {
                    true => read(&thing, kept.packer()),
                    false => Prepared::new(thing.clone()),
                };
                kept.insert(id, prepared, revision as u64);
                naive.insert(id, (thing, revision as u64));
            }
        }
        for id in 0..600 {
            let found = kept.get(&id).map(|entry| ((*entry.value).clone(), entry.revision));
            prop_assert_eq!(kept.has(&id), found.is_some());
            let outline = found.as_ref().map(|(thing, _)| Outline::from(thing));
            prop_assert_eq!(kept.outline(&id), outline);
            prop_assert_eq!(kept.revision(&id), found.as_ref().map(|(_, revision)| *revision));
            prop_assert_eq!(found.as_ref(), naive.get(&id));
        }
    }
}
