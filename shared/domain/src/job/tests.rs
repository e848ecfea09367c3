#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use slipway_oci::Digest;
use uuid::Uuid;

use super::*;
use crate::attempt::Nonce;
use crate::failure::FailureKind;
use crate::snapshot::SnapshotEvent;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn digest(n: u8) -> Digest {
    format!("sha256:{}", format!("{n:02x}").repeat(32)).parse().unwrap()
}

fn image(n: u8) -> BuiltImage {
    BuiltImage {
        digest: digest(n),
        config_digest: digest(n),
        size: 1,
        entrypoint: vec![],
        cmd: vec![],
        layers: 1,
        cached_steps: 0,
        total_steps: 1,
    }
}

fn job() -> JobRecord {
    let new = NewJob {
        id: JobId::from_uuid(Uuid::from_u128(7)),
        organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
        snapshot: SnapshotId::from_uuid(Uuid::from_u128(2)),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        kind: JobKind::Build,
        trace: None,
    };
    JobRecord::new(new, NOW)
}

fn claim(number: u32, nonce: u128) -> Attempt {
    let nonce = Nonce::from_uuid(Uuid::from_u128(nonce));
    Attempt { number: AttemptNumber::new(number), nonce }
}

fn worker() -> WorkerId {
    "w1".parse().unwrap()
}

fn started(attempt: Attempt) -> JobEvent {
    JobEvent::Started { attempt, worker: worker() }
}

fn published(attempt: Attempt, n: u8) -> JobEvent {
    JobEvent::Published { attempt, worker: worker(), image: image(n) }
}

fn failed(attempt: Attempt, kind: FailureKind) -> JobEvent {
    JobEvent::Failed { attempt, worker: worker(), failure: Failure::new(kind, "because") }
}

fn step(job: &JobRecord, event: JobEvent) -> Transition {
    job.apply(event, NOW, &RetryPolicy::default()).unwrap()
}

#[test]
fn a_build_runs_and_succeeds_once() {
    let running = step(&job(), started(claim(1, 1)));
    assert_eq!(running.next.word(), Some(SnapshotEvent::Started));
    let done = step(&running.next, published(claim(1, 1), 9));
    assert_eq!(done.next.state.name(), "succeeded");
    assert_eq!(done.next.word(), Some(SnapshotEvent::Published(image(9))));
    assert_eq!(done.effects, vec![Effect::SealLog]);

    let again = step(&done.next, published(claim(1, 1), 9));
    assert_eq!((again.next, again.effects), (done.next, vec![]));
}

#[test]
fn a_lost_lease_sends_the_next_attempt_and_refuses_the_old_one() {
    let running = step(&job(), started(claim(1, 1))).next;
    let lost = step(&running, JobEvent::LeaseLost { attempt: claim(1, 1) });
    let waiting = AttemptNumber::new(2);
    assert_eq!(lost.next.state, JobState::Queued { attempt: waiting, not_before: None });
    assert!(lost.effects.contains(&Effect::Dispatch));

    let zombie = lost.next.apply(published(claim(1, 1), 9), NOW, &RetryPolicy::default());
    assert!(matches!(zombie, Err(IllegalTransition::StaleAttempt { .. })), "{zombie:?}");
}

#[test]
fn a_second_claim_of_the_same_attempt_is_refused() {
    let running = step(&job(), started(claim(1, 1))).next;
    for event in [started(claim(1, 2)), published(claim(1, 2), 9)] {
        let refused = running.apply(event, NOW, &RetryPolicy::default());
        assert!(matches!(refused, Err(IllegalTransition::OtherClaim { .. })), "{refused:?}");
    }
}

#[test]
fn the_users_own_failure_ends_the_job_at_once() {
    let running = step(&job(), started(claim(1, 1))).next;
    let over = step(&running, failed(claim(1, 1), FailureKind::RunFailed));
    assert_eq!(over.next.state.name(), "failed");
    assert!(!over.effects.contains(&Effect::Dispatch));
}

#[test]
fn infrastructure_failures_are_retried_with_growing_pauses_and_then_dead() {
    let retry = RetryPolicy::default();
    let mut job = job();
    let mut pauses = vec![];
    for number in 1..=retry.max_attempts {
        job = step(&job, started(claim(number, 1))).next;
        job = step(&job, failed(claim(number, 1), FailureKind::BuildkitUnavailable)).next;
        if let JobState::Queued { not_before: Some(time), .. } = job.state {
            pauses.push(time.duration_since(NOW));
        }
    }
    assert_eq!(job.state.name(), "dead");
    assert_eq!(job.attempts.len(), 5);
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= retry.max));
}

#[test]
fn a_job_that_is_handed_back_loses_no_attempt() {
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    let mut job = job();
    for number in 1..=6 {
        job = job.apply(started(claim(number, 1)), NOW, &retry).unwrap().next;
        let back = failed(claim(number, 1), FailureKind::HandedBack);
        job = job.apply(back, NOW, &retry).unwrap().next;
        let waiting = AttemptNumber::new(number + 1);
        assert_eq!(job.state, JobState::Queued { attempt: waiting, not_before: None });
    }
    for number in [7, 8] {
        let gone = failed(claim(number, 1), FailureKind::BuildkitUnavailable);
        job = job.apply(gone, NOW, &retry).unwrap().next;
    }
    assert_eq!(job.state.name(), "dead");
}

#[test]
fn cancel_stops_the_holder_and_nothing_comes_after() {
    let running = step(&job(), started(claim(1, 1))).next;
    let over = step(&running, JobEvent::Cancel);
    let stop = Effect::StopAttempt { attempt: AttemptNumber::FIRST };
    assert_eq!(over.effects, vec![stop, Effect::SealLog]);
    let late = step(&over.next, published(claim(1, 1), 9));
    assert_eq!(late.next, over.next);
    assert_eq!(late.next.word(), Some(SnapshotEvent::Cancelled));
}

/// Dead after a single attempt.
fn dead() -> JobRecord {
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let gone = failed(claim(1, 1), FailureKind::BuildkitUnavailable);
    job().apply(gone, NOW, &retry).unwrap().next
}

#[test]
fn a_redriven_job_has_all_its_attempts_again() {
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    let mut job = step(&dead(), JobEvent::LogArchived).next;
    let redriven = step(&job, JobEvent::Redrive);
    assert_eq!(redriven.next.word(), None, "its snapshot waits as in the beginning");
    assert_eq!(redriven.effects, vec![Effect::Dispatch]);
    assert_eq!(redriven.next.log, LogState::Streamed);
    job = redriven.next;
    for number in [2, 3] {
        assert_eq!(job.current_attempt(), AttemptNumber::new(number));
        let gone = failed(claim(number, 1), FailureKind::BuildkitUnavailable);
        job = job.apply(gone, NOW, &retry).unwrap().next;
    }
    assert_eq!(job.state.name(), "dead");
    assert_eq!(job.attempts.len(), 3, "every attempt stays on record");
    let late = step(&job, JobEvent::LogArchived).next.apply(
        published(claim(1, 1), 9),
        NOW,
        &RetryPolicy::default(),
    );
    assert!(matches!(late, Err(IllegalTransition::StaleAttempt { .. })), "{late:?}");
}

#[test]
fn a_dead_job_waits_for_its_log_before_it_is_redriven() {
    let refused = dead().apply(JobEvent::Redrive, NOW, &RetryPolicy::default());
    assert!(matches!(refused, Err(IllegalTransition::Unsettled { .. })), "{refused:?}");
    let dropped = step(&dead(), JobEvent::Drop).next;
    assert!(dropped.revival.dropped && dropped.state == dead().state);
    // One that is redriven after all is back on the list when it dies again.
    let redriven = step(&step(&dropped, JobEvent::LogArchived).next, JobEvent::Redrive).next;
    assert!(!redriven.revival.dropped);
}

#[test]
fn a_record_of_the_first_form_is_read() {
    let mut value = serde_json::to_value(job()).unwrap();
    assert!(value.as_object_mut().unwrap().remove("revival").is_none(), "nothing is written");
    assert_eq!(serde_json::from_value::<JobRecord>(value).unwrap(), job());
}

#[test]
fn every_state_answers_every_event() {
    let queued = job();
    let running = step(&queued, started(claim(1, 1))).next;
    let retried = step(&running, JobEvent::LeaseLost { attempt: claim(1, 1) }).next;
    let states = [
        ("queued 1", queued.clone()),
        ("running 1", running.clone()),
        ("queued 2", retried.clone()),
        ("running 2", step(&retried, started(claim(2, 1))).next),
        ("succeeded 1", step(&running, published(claim(1, 1), 9)).next),
        ("failed 1", step(&running, failed(claim(1, 1), FailureKind::RunFailed)).next),
        ("cancelled", step(&queued, JobEvent::Cancel).next),
        ("dead", dead()),
        ("dead, stored", step(&dead(), JobEvent::LogArchived).next),
    ];
    let events = [
        ("started 1", started(claim(1, 1))),
        ("published 1", published(claim(1, 1), 9)),
        ("failed 1", failed(claim(1, 1), FailureKind::RunFailed)),
        ("unavailable 1", failed(claim(1, 1), FailureKind::StoreUnavailable)),
        ("lease lost 1", JobEvent::LeaseLost { attempt: claim(1, 1) }),
        ("started 2", started(claim(2, 1))),
        ("cancel", JobEvent::Cancel),
        ("log archived", JobEvent::LogArchived),
        ("redrive", JobEvent::Redrive),
        ("drop", JobEvent::Drop),
    ];
    let mut table = String::new();
    for (state, record) in &states {
        for (name, event) in &events {
            let outcome = match record.apply(event.clone(), NOW, &RetryPolicy::default()) {
                Ok(t) if t.next == *record && t.effects.is_empty() => "-".to_owned(),
                Ok(t) => format!("{} {:?}", t.next.state.name(), t.effects),
                Err(refused) => format!("refused: {refused}"),
            };
            table.push_str(&format!("{state:12} + {name:14} => {outcome}\n"));
        }
    }
    insta::assert_snapshot!(table);
}

/// Any worker's event, as the streams may deliver it.
fn any_event() -> impl Strategy<Value = JobEvent> {
    let claims = (1..=6_u32, 1..=2_u128).prop_map(|(number, nonce)| claim(number, nonce));
    (claims, 0..10_u8).prop_map(|(attempt, which)| match which {
        0 | 1 => started(attempt),
        2 => published(attempt, attempt.number.get() as u8),
        3 => failed(attempt, FailureKind::RunFailed),
        4 => failed(attempt, FailureKind::StoreUnavailable),
        5 => JobEvent::LeaseLost { attempt },
        6 => failed(attempt, FailureKind::HandedBack),
        7 => failed(attempt, FailureKind::WorkerLost),
        8 => JobEvent::LogArchived,
        _ => JobEvent::Cancel,
    })
}

proptest! {
    /// Whatever is duplicated, dropped or reordered: a job ends at most once,
    /// attempts never go back, and a repeated event changes nothing.
    #[test]
    fn any_history_ends_at_most_once(events in prop::collection::vec(any_event(), 0..60)) {
        let retry = RetryPolicy::default();
        let mut job = job();
        let mut endings = 0;
        for event in events {
            let Ok(transition) = job.apply(event.clone(), NOW, &retry) else { continue };
            prop_assert!(transition.next.current_attempt() >= job.current_attempt());
            if job.state.is_over() {
                let log = transition.next.log;
                prop_assert_eq!(&transition.next, &JobRecord { log, ..job });
                prop_assert!(transition.effects.is_empty());
            } else if transition.next.state.is_over() {
                endings += 1;
                prop_assert!(transition.effects.contains(&Effect::SealLog));
            }
            if let Ok(again) = transition.next.apply(event, NOW, &retry) {
                prop_assert_eq!(&again.next, &transition.next);
                prop_assert!(again.effects.is_empty());
            }
            let owed = transition.next.owed();
            prop_assert!(transition.effects.iter().all(|effect| owed.contains(effect)));
            job = transition.next;
        }
        prop_assert!(endings <= 1);
        prop_assert!(job.attempts.len() <= 50);
    }

    /// Only the claim that the record names can make an image count.
    #[test]
    fn only_the_holder_publishes(noise in prop::collection::vec(any_event(), 0..40)) {
        let retry = RetryPolicy::default();
        let mut job = job();
        for event in noise {
            let holder = match &job.state {
                JobState::Running { attempt, .. } => Some(*attempt),
                _ => None,
            };
            let waiting = matches!(job.state, JobState::Queued { .. });
            let Ok(transition) = job.apply(event.clone(), NOW, &retry) else { continue };
            let published = |job: &JobRecord| matches!(job.word(), Some(SnapshotEvent::Published(_)));
            if published(&transition.next) && !published(&job) {
                let JobEvent::Published { attempt, .. } = &event else {
                    panic!("{event:?} published an image");
                };
                prop_assert!(holder == Some(*attempt)
                    || (waiting && attempt.number == job.current_attempt()));
            }
            job = transition.next;
        }
    }
}

#[test]
fn a_place_in_a_trace_names_the_request_too() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (own, request) =
        (format!("00-{trace}-00f067aa0ba902b7-01"), format!("00-{trace}-0000000000000001-01"));
    assert_eq!(JobTrace::new(&own, Some(&request)).request(), Some(request));
    assert_eq!(JobTrace::new(&own, None).request(), None);
}

#[test]
fn a_clock_that_is_set_back_makes_no_pause_longer() {
    let (retry, now) =
        (RetryPolicy::default(), Timestamp::UNIX_EPOCH + SignedDuration::from_hours(9));
    let mut job = job();
    let pause = |job: &JobRecord, now| job.pause_left(now, &retry);
    assert_eq!(pause(&job, now), None);
    let until = now + SignedDuration::from_secs(20);
    job.state = JobState::Queued { attempt: AttemptNumber::new(2), not_before: Some(until) };
    assert_eq!(pause(&job, now), Some(SignedDuration::from_secs(20)));
    assert_eq!(pause(&job, until), None);
    assert_eq!(pause(&job, now - SignedDuration::from_hours(1)), None);
}
