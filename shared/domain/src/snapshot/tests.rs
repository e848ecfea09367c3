#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::failure::FailureKind;
use crate::spec::{BuildSpec, PullSpec};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job_id(n: u128) -> JobId {
    JobId::from_uuid(Uuid::from_u128(n))
}

pub(super) fn snapshot() -> SnapshotRecord {
    let source = JobSpec::Build(BuildSpec {
        dockerfile: "FROM scratch".into(),
        contexts: vec![],
        context_filtered: false,
        build_args: BTreeMap::new(),
        target: None,
        no_cache: false,
        labels: BTreeMap::new(),
        platform: "linux/amd64".into(),
    });
    let new = NewSnapshot {
        id: SnapshotId::from_uuid(Uuid::from_u128(2)),
        organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
        name: "hello".into(),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        resources: Resources::default(),
        source,
        job: job_id(1),
    };
    SnapshotRecord::new(new, NOW)
}

pub(super) fn image() -> BuiltImage {
    let digest: slipway_oci::Digest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
    BuiltImage {
        digest,
        config_digest: digest,
        size: 1,
        entrypoint: vec![],
        cmd: vec![],
        layers: 1,
        cached_steps: 0,
        total_steps: 1,
    }
}

fn any_event() -> impl Strategy<Value = SnapshotEvent> {
    prop_oneof![
        Just(SnapshotEvent::Started),
        Just(SnapshotEvent::Published(image())),
        Just(SnapshotEvent::Failed(Failure::new(FailureKind::RunFailed, "x"))),
        Just(SnapshotEvent::Failed(Failure::new(FailureKind::ContextMissing, "x"))),
        Just(SnapshotEvent::Cancelled),
        Just(SnapshotEvent::Deactivate),
        Just(SnapshotEvent::Activate),
        Just(SnapshotEvent::Remove),
    ]
}

#[test]
fn a_dockerfile_failure_is_build_failed_and_any_other_is_error() {
    let building = snapshot().apply(job_id(1), SnapshotEvent::Started, NOW);
    for (kind, state) in
        [(FailureKind::RunFailed, "build_failed"), (FailureKind::ContextMissing, "error")]
    {
        let failed = SnapshotEvent::Failed(Failure::new(kind, "x"));
        assert_eq!(building.apply(job_id(1), failed, NOW).state.name(), state);
    }
}

#[test]
fn a_pull_is_pulling_and_fails_as_error() {
    let mut record = snapshot();
    record.source = JobSpec::Pull(PullSpec {
        image: "python:3.12".into(),
        platform: "linux/amd64".into(),
        max_size: 1,
        entrypoint: None,
    });
    let pulling = record.apply(job_id(1), SnapshotEvent::Started, NOW);
    assert_eq!(pulling.state.name(), "pulling");
    assert_eq!(pulling.apply(job_id(1), SnapshotEvent::Started, NOW), pulling);
    let missing = SnapshotEvent::Failed(Failure::new(FailureKind::ImageNotFound, "x"));
    assert_eq!(pulling.apply(job_id(1), missing, NOW).state.name(), "error");
    let published = SnapshotEvent::Published(image());
    assert_eq!(pulling.apply(job_id(1), published, NOW).state.name(), "active");
    assert_eq!(pulling.apply(job_id(1), SnapshotEvent::Cancelled, NOW).state.name(), "error");
}

#[test]
fn another_job_has_no_say() {
    let record = snapshot();
    assert_eq!(record.apply(job_id(9), SnapshotEvent::Published(image()), NOW), record);
}

#[test]
fn it_rests_and_comes_back_with_its_image_or_by_another_job() {
    let later = NOW + jiff::SignedDuration::from_secs(9);
    let active = snapshot().apply(job_id(1), SnapshotEvent::Published(image()), NOW);
    let rests = active.apply(job_id(1), SnapshotEvent::Deactivate, NOW);
    assert_eq!((rests.state.name(), rests.state.image()), ("inactive", Some(&image())));
    assert_eq!(rests.used(later), None);
    // What its job says late changes nothing.
    assert_eq!(rests.apply(job_id(1), SnapshotEvent::Published(image()), later), rests);
    let back = rests.apply(job_id(1), SnapshotEvent::Activate, later);
    assert_eq!((back.state.name(), back.last_used_at), ("active", Some(later)));
    let again = rests.apply(job_id(1), SnapshotEvent::Remake(job_id(2)), later);
    assert_eq!(
        (again.state.name(), again.job, again.last_used_at),
        ("pending", job_id(2), Some(later))
    );
    assert_eq!(again.apply(job_id(1), SnapshotEvent::Published(image()), later), again);
    let made = again.apply(job_id(2), SnapshotEvent::Published(image()), later);
    assert_eq!(made.state.name(), "active");
    for event in [SnapshotEvent::Deactivate, SnapshotEvent::Activate] {
        assert_eq!(snapshot().apply(job_id(1), event, later), snapshot(), "it is being made");
    }
}

proptest! {
    #[test]
    fn removal_is_final_and_outcomes_absorb(events in prop::collection::vec(any_event(), 0..30)) {
        let mut record = snapshot();
        for event in events {
            let next = record.apply(job_id(1), event.clone(), NOW);
            if record.state == SnapshotState::Removing {
                prop_assert_eq!(&next, &record);
            }
            if record.state.failure().is_some() {
                prop_assert!(next == record || next.state == SnapshotState::Removing);
            }
            if record.state.image().is_some() && next.state != SnapshotState::Removing {
                prop_assert_eq!(next.state.image(), record.state.image());
            }
            prop_assert_eq!(&next.apply(job_id(1), event, NOW), &next);
            record = next;
        }
    }
}
