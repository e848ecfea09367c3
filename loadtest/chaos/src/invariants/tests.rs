//! Each check fails on a history that was doctored for it, and on no other
//! ground.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::history;
use crate::plan::Shape;

fn job(revision: u64, state: &str, attempt: u32, nonce: Option<&str>) -> JobSeen {
    JobSeen {
        job: "j".into(),
        revision,
        state: state.into(),
        over: !matches!(state, "queued" | "running"),
        attempt,
        nonce: nonce.map(Into::into),
        digest: (state == "succeeded").then(|| "sha256:a".into()),
        reason: None,
    }
}

fn snapshot(revision: u64, state: &str) -> SnapshotSeen {
    SnapshotSeen {
        snapshot: "s".into(),
        name: "n".into(),
        revision,
        job: "j".into(),
        state: state.into(),
        digest: (state == "active").then(|| "sha256:a".into()),
    }
}

fn event(attempt: u32, nonce: &str, event: &str) -> What {
    What::Event(EventSeen {
        job: "j".into(),
        attempt,
        nonce: nonce.into(),
        worker: "w".into(),
        event: event.into(),
        digest: (event == "published").then(|| "sha256:a".into()),
    })
}

fn answered(scheduler: u32, state: Option<&str>) -> What {
    let digest = (state == Some("active")).then(|| "sha256:a".to_owned());
    What::Answered { scheduler, name: "n".into(), state: state.map(Into::into), digest }
}

fn log(gaps: u64, ended: bool) -> What {
    What::Log { job: "j".into(), entries: 9, gaps, ended, problem: None }
}

fn image(problem: Option<&str>) -> What {
    let digest = "sha256:a".to_owned();
    What::Image { snapshot: "s".into(), digest, blobs: 2, problem: problem.map(Into::into) }
}

/// A snapshot whose first worker was lost, and which became active. A stale
/// report was stored, and nothing came of it.
fn good() -> Vec<What> {
    let shape =
        Shape { regions: vec![], schedulers: 2, buildkit: false, lease_ms: 2_000, outage_ms: None };
    let name = || "n".to_owned();
    vec![
        What::Began { seed: 1, shape },
        What::Asked {
            name: name(),
            region: "us".into(),
            work: "pull".into(),
            expects: Some("sha256:a".into()),
        },
        What::Acknowledged { name: name(), snapshot: "s".into(), job: "j".into() },
        What::Job(job(1, "queued", 1, None)),
        What::Snapshot(snapshot(2, "pending")),
        What::Job(job(3, "running", 1, Some("x"))),
        What::Snapshot(snapshot(4, "pulling")),
        What::Job(job(5, "queued", 2, None)),
        What::Job(job(6, "running", 2, Some("y"))),
        What::Job(job(7, "succeeded", 2, Some("y"))),
        What::Snapshot(snapshot(8, "active")),
        What::Settled { after_ms: 5 },
        event(1, "x", "started"),
        event(2, "y", "published"),
        event(1, "x", "published"),
        What::LastJob(job(7, "succeeded", 2, Some("y"))),
        What::LastSnapshot(snapshot(8, "active")),
        answered(1, Some("active")),
        answered(2, Some("active")),
        image(None),
        log(0, true),
    ]
}

fn broken(history: Vec<What>) -> Vec<Invariant> {
    let entries: Vec<Entry> = history.into_iter().map(|what| Entry { at_ms: 0, what }).collect();
    // What is judged is what stands in the file.
    let lines: Vec<String> =
        entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
    let read = history::parse(&lines.join("\n")).unwrap();
    assert_eq!(read, entries);
    let broken: BTreeSet<_> =
        check(&read).into_iter().map(|violation| violation.invariant).collect();
    broken.into_iter().collect()
}

/// The good history with more at its end.
fn and(more: impl IntoIterator<Item = What>) -> Vec<What> {
    good().into_iter().chain(more).collect()
}

/// The good history without something.
fn without(gone: impl Fn(&What) -> bool) -> Vec<What> {
    good().into_iter().filter(|what| !gone(what)).collect()
}

/// The good history with something else in place of an entry.
fn with(place: impl Fn(&What) -> bool, new: &What) -> Vec<What> {
    let changed: Vec<What> =
        good().into_iter().map(|what| if place(&what) { new.clone() } else { what }).collect();
    assert_ne!(changed, good(), "nothing was doctored");
    changed
}

#[test]
fn a_good_history_breaks_nothing() {
    assert_eq!(broken(good()), []);
    let deleted = [
        What::DeleteAsked { name: "n".into() },
        What::Deleted { name: "n".into() },
        What::Snapshot(snapshot(9, "removing")),
    ];
    let gone = without(|what| {
        matches!(
            what,
            What::LastJob(_) | What::LastSnapshot(_) | What::Image { .. } | What::Log { .. }
        )
    });
    let gone: Vec<What> = gone
        .into_iter()
        .map(|what| {
            if let What::Answered { scheduler, .. } = what {
                answered(scheduler, None)
            } else {
                what
            }
        })
        .collect();
    assert_eq!(broken(gone.into_iter().chain(deleted).collect()), []);
}

#[test]
fn a_lost_request_is_seen() {
    let lost = without(|what| matches!(what, What::LastSnapshot(_)));
    assert_eq!(broken(lost), [Invariant::EndsOnce]);
}

#[test]
fn a_request_that_never_ends_is_seen() {
    let last = |what: &What| matches!(what, What::LastSnapshot(_));
    let mut stuck = with(last, &What::LastSnapshot(snapshot(4, "pulling")));
    stuck.retain(|what| !matches!(what, What::Snapshot(seen) if seen.revision == 8));
    let stuck: Vec<What> = stuck
        .into_iter()
        .map(|what| match what {
            What::Answered { scheduler, .. } => answered(scheduler, Some("pulling")),
            what => what,
        })
        .collect();
    assert_eq!(broken(stuck), [Invariant::EndsOnce]);
    let unsettled = and([What::Unsettled { what: "job j is queued".into() }]);
    assert_eq!(broken(unsettled), [Invariant::EndsOnce]);
}

#[test]
fn a_second_end_is_seen() {
    let twice = and([What::Snapshot(snapshot(7, "error"))]);
    assert_eq!(broken(twice), [Invariant::EndsOnce]);
    let revived = and([What::Job(job(8, "dead", 2, None))]);
    assert_eq!(broken(revived), [Invariant::EndsOnce]);
}

#[test]
fn a_deleted_snapshot_that_comes_back_is_seen() {
    let back = and([What::DeleteAsked { name: "n".into() }, What::Deleted { name: "n".into() }]);
    assert_eq!(broken(back), [Invariant::EndsOnce]);
}

#[test]
fn schedulers_that_disagree_are_seen() {
    let second = |what: &What| matches!(what, What::Answered { scheduler: 2, .. });
    assert_eq!(broken(with(second, &answered(2, Some("pulling")))), [Invariant::EndsOnce]);
    let silent = without(|what| matches!(what, What::Answered { .. }));
    assert_eq!(broken(silent), [Invariant::EndsOnce]);
}

#[test]
fn a_second_digest_is_seen() {
    let other = SnapshotSeen { digest: Some("sha256:b".into()), ..snapshot(7, "active") };
    assert_eq!(broken(and([What::Snapshot(other)])), [Invariant::OneDigest]);
}

#[test]
fn another_image_than_the_one_asked_for_is_seen() {
    let asked = |what: &What| matches!(what, What::Asked { .. });
    let other = What::Asked {
        name: "n".into(),
        region: "us".into(),
        work: "pull".into(),
        expects: Some("sha256:b".into()),
    };
    assert_eq!(broken(with(asked, &other)), [Invariant::OneDigest]);
}

#[test]
fn a_stale_attempt_that_takes_effect_is_seen() {
    let back = and([What::Job(job(6, "running", 1, Some("x")))]);
    assert_eq!(broken(back), [Invariant::NoStaleEffect]);
    let hands = and([What::Job(job(6, "running", 2, Some("z")))]);
    assert_eq!(broken(hands), [Invariant::NoStaleEffect]);
    let unsaid = without(|what| matches!(what, What::Event(event) if event.nonce == "y"));
    assert_eq!(broken(unsaid), [Invariant::NoStaleEffect]);
    let other = JobSeen { digest: Some("sha256:b".into()), ..job(7, "succeeded", 2, Some("y")) };
    let last = |what: &What| matches!(what, What::LastJob(_));
    assert_eq!(broken(with(last, &What::LastJob(other))), [Invariant::NoStaleEffect]);
}

#[test]
fn a_missing_blob_is_seen() {
    let looked = |what: &What| matches!(what, What::Image { .. });
    assert_eq!(broken(with(looked, &image(Some("gone")))), [Invariant::BlobsPresent]);
    assert_eq!(broken(without(looked)), [Invariant::BlobsPresent]);
}

#[test]
fn an_orphan_is_seen() {
    let left = and([What::Orphan { what: "job k without a snapshot".into() }]);
    assert_eq!(broken(left), [Invariant::NoOrphan]);
}

#[test]
fn a_log_with_a_gap_or_without_an_end_is_seen() {
    let read = |what: &What| matches!(what, What::Log { .. });
    assert_eq!(broken(with(read, &log(1, true))), [Invariant::LogsWhole]);
    assert_eq!(broken(with(read, &log(0, false))), [Invariant::LogsWhole]);
    assert_eq!(broken(without(read)), [Invariant::LogsWhole]);
}

#[test]
fn a_panic_is_seen() {
    let panicked =
        What::Panicked { process: "worker-us-1".into(), line: "thread 'x' panicked".into() };
    assert_eq!(broken(and([panicked])), [Invariant::ProcessesSound]);
}
