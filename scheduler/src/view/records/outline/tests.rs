#![allow(clippy::unwrap_used)]
use slipway_domain::attempt::{Attempt, AttemptNumber, Nonce};
use slipway_domain::failure::{Failure, FailureKind};
use slipway_domain::image::BuiltImage;
use uuid::Uuid;

use super::*;
use crate::view::records::tests;

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn image() -> BuiltImage {
    BuiltImage {
        digest: Digest::sha256("manifest"),
        config_digest: Digest::sha256("config"),
        size: 1,
        entrypoint: vec!["a \"quoted\" word".into()],
        cmd: vec![],
        layers: 1,
        cached_steps: 0,
        total_steps: 0,
    }
}

fn failure() -> Failure {
    Failure::new(FailureKind::RunFailed, "because")
}

fn attempt() -> Attempt {
    Attempt { number: AttemptNumber::FIRST, nonce: Nonce::from_uuid(Uuid::from_u128(9)) }
}

/// One of each state: who adds one is told by [`SnapshotStage::from`].
fn snapshot_states() -> [SnapshotState; 8] {
    [
        SnapshotState::Active { image: image() },
        SnapshotState::BuildFailed { failure: failure() },
        SnapshotState::Building,
        SnapshotState::Error { failure: failure() },
        SnapshotState::Inactive { image: image() },
        SnapshotState::Pending,
        SnapshotState::Pulling,
        SnapshotState::Removing,
    ]
}

fn job_states() -> [JobState; 6] {
    let worker = || "us-1".parse().unwrap();
    [
        JobState::Queued { attempt: AttemptNumber::FIRST, not_before: Some(time(7)) },
        JobState::Running { attempt: attempt(), worker: worker() },
        JobState::Succeeded { attempt: attempt(), image: image() },
        JobState::Failed { failure: failure() },
        JobState::Cancelled,
        JobState::Dead { failure: failure() },
    ]
}

fn snapshot(state: SnapshotState) -> SnapshotRecord {
    let (name, created_at) = ("é \"x\"\n".into(), time(5));
    SnapshotRecord { name, class: Class::Gpu, created_at, state, ..tests::snapshot(1, 3) }
}

fn job(state: JobState) -> JobRecord {
    JobRecord { class: Class::Gpu, created_at: time(5), state, ..tests::job(3) }
}

fn of_json<T: for<'a> Deserialize<'a>>(record: &impl serde::Serialize) -> T {
    serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap()
}

#[test]
fn the_outline_of_a_snapshot_is_that_of_its_json() {
    for state in snapshot_states() {
        for (used, general) in [(None, false), (Some(time(4)), true), (Some(time(6)), false)] {
            let record = SnapshotRecord { last_used_at: used, general, ..snapshot(state.clone()) };
            let outline = SnapshotOutline::from(&record);
            assert_eq!(of_json::<SnapshotOutline>(&record), outline);
            assert_eq!(outline.state.stage.waits(), record.waits());
        }
    }
}

#[test]
fn the_outline_of_a_job_is_that_of_its_json() {
    for state in job_states() {
        let (name, is_over) = (state.name(), state.is_over());
        for (started_at, ended_at) in
            [(None, None), (Some(time(1)), None), (Some(time(1)), Some(time(2)))]
        {
            let last = AttemptRecord {
                number: AttemptNumber::FIRST,
                worker: Some("us-1".parse().unwrap()),
                started_at,
                ended_at,
                failure: Some(failure()),
            };
            let first = AttemptRecord { ended_at: Some(time(9)), ..last.clone() };
            let revival = Revival { redrives: 1, ..Revival::default() };
            let mut record = JobRecord { attempts: vec![first, last], ..job(state.clone()) };
            let outline = JobOutline::from(&record);
            assert_eq!(of_json::<JobOutline>(&record), outline);
            assert_eq!((outline.stage.name(), outline.stage.is_over()), (name, is_over));
            (record.revival, record.log) = (revival, LogState::Archived);
            let revived = JobOutline::from(&record);
            assert!(revived.is_revived && revived != outline);
            assert_eq!(of_json::<JobOutline>(&record), revived);
        }
    }
}

#[test]
fn stages_sort_as_the_names_of_the_states_do() {
    let states = snapshot_states();
    assert!(states.is_sorted_by_key(SnapshotState::name));
    assert!(states.is_sorted_by_key(SnapshotStage::from));
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    let read = |text: &str| serde_json::from_str::<StateOutline>(text);
    assert!(read("{\"state\":\"pending\",\"image\":null}").is_ok());
    assert!(read("{\"state\":\"frozen\"}").is_err());
    assert!(read("{\"state\":\"active\"}").is_err());
    assert!(read("{\"state\":\"active\",\"image\":{\"digest\":\"md5:0\"}}").is_err());
}
