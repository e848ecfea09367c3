use uuid::Uuid;

use super::*;

fn job(n: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(n))
}

#[test]
fn what_is_known_without_a_gap_goes_and_what_is_gone_is_forgotten() {
    let (mut shelf, now) = (Shelf::default(), Instant::now());
    shelf.note(job(1), &[3, 5], now);
    shelf.note(job(2), &[4, 7], now);
    assert_eq!(shelf.known_to(2), 2, "the first one is not ours");
    assert_eq!(shelf.known_to(3), 6);
    assert_eq!(shelf.known_to(5), 6);
    assert_eq!(shelf.chunks.keys().copied().collect::<Vec<_>>(), [5, 7]);
    assert_eq!(shelf.known_to(8), 8);
    assert!(shelf.chunks.is_empty());
}

#[test]
fn a_log_waits_from_when_it_was_archived_and_goes_up_to_its_last_chunk() {
    let (mut shelf, now) = (Shelf::default(), Instant::now());
    let later = now + Duration::from_secs(1);
    shelf.note(job(1), &[3, 5], now);
    shelf.note(job(2), &[4, 7], later);
    assert_eq!(shelf.waiting_since(now), BTreeMap::from([(job(1), 5)]));
    assert_eq!(shelf.waiting_since(later), BTreeMap::from([(job(1), 5), (job(2), 7)]));
    shelf.forget(job(1));
    assert_eq!(shelf.waiting_since(later), BTreeMap::from([(job(2), 7)]));
}
