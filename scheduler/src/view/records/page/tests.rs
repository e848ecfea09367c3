#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;
use slipway_domain::Class;
use slipway_domain::failure::{Failure, FailureKind};
use slipway_domain::image::BuiltImage;
use slipway_domain::job::{JobEvent, NewJob, RetryPolicy};
use slipway_domain::snapshot::{NewSnapshot, SnapshotState, inactivity};
use slipway_domain::spec::{JobKind, JobSpec, PullSpec, Resources};
use uuid::Uuid;

use super::super::{Key, SortKey, Value, Watched};
use super::*;

fn organization(n: u128) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(n))
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn digest(n: u8) -> Digest {
    // Some begin alike.
    Digest::from_sha256_hex(&format!("{:062}{n:02}", n / 4)).unwrap()
}

fn image(n: u8) -> BuiltImage {
    BuiltImage {
        digest: digest(n),
        config_digest: digest(0),
        size: 1,
        entrypoint: vec![],
        cmd: vec![],
        layers: 1,
        cached_steps: 0,
        total_steps: 0,
    }
}

fn state(n: u8) -> SnapshotState {
    let failure = || Failure::new(FailureKind::RunFailed, "because");
    match n % 12 {
        0 => SnapshotState::Pending,
        1 => SnapshotState::Building,
        2 => SnapshotState::Removing,
        3 => SnapshotState::BuildFailed { failure: failure() },
        4 => SnapshotState::Error { failure: failure() },
        5 => SnapshotState::Inactive { image: image(n) },
        _ => SnapshotState::Active { image: image(n) },
    }
}

/// Few values of everything, so that many are equal.
fn snapshots() -> impl Strategy<Value = SnapshotRecord> {
    let about = (1..160_u128, 0..3_u128, 0..48_u8);
    let times = (0..9_i64, prop::option::of(0..9_i64));
    (about, times, prop::bool::weighted(0.1)).prop_map(|((id, job, which), times, general)| {
        let source = JobSpec::Pull(PullSpec {
            image: "python:3.12".into(),
            platform: "linux/amd64".into(),
            max_size: 1,
            entrypoint: None,
        });
        let new = NewSnapshot {
            id: SnapshotId::from_uuid(Uuid::from_u128(id)),
            // A snapshot stays in its organization, region and name.
            organization: organization(id % 3),
            name: ["a", "B", "ab", "AbC", "x", "é", "É/b"][id as usize % 7].into(),
            region: ["us", "eu"][(id as usize / 3) % 2].parse().unwrap(),
            class: Class::Cpu,
            resources: Resources::default(),
            source,
            job: JobId::from_uuid(Uuid::from_u128(1000 + id / 2 + job)),
        };
        let mut record = SnapshotRecord::new(new, time(times.0));
        (record.state, record.last_used_at) = (state(which), times.1.map(time));
        record.general = general;
        record
    })
}

#[derive(Debug, Clone)]
enum Change {
    Put(Box<SnapshotRecord>),
    Delete(SnapshotId),
}

/// Changes, and how many of them come while records are loaded.
fn changes() -> impl Strategy<Value = (Vec<Change>, usize)> {
    let put = snapshots().prop_map(|record| Change::Put(Box::new(record)));
    let delete =
        (1..160_u128).prop_map(|id| Change::Delete(SnapshotId::from_uuid(Uuid::from_u128(id))));
    (prop::collection::vec(prop_oneof![5 => put, 1 => delete], 0..900), 0..900_usize)
}

/// Records after changes, and what they are by a naive map.
fn changed(
    (changes, loaded): (Vec<Change>, usize),
) -> (Records, BTreeMap<SnapshotId, SnapshotRecord>) {
    let (mut records, mut naive) = (Records::loading(), BTreeMap::new());
    for (revision, change) in (1..).zip(changes) {
        if revision > loaded as u64 {
            records.complete();
        }
        let change = match change {
            Change::Put(record) => {
                naive.insert(record.id, (*record).clone());
                Watched::Put(Box::new(Value::Snapshot(*record).into()))
            }
            Change::Delete(id) => {
                naive.remove(&id);
                Watched::Deleted(Key::Snapshot(id))
            }
        };
        records.watched(change, revision);
    }
    records.complete();
    (records, naive)
}

const KEYS: [SortKey; 4] = [SortKey::Name, SortKey::State, SortKey::LastUsedAt, SortKey::CreatedAt];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_page_is_what_sorting_everything_would_give(
        changes in changes(),
        key in prop::sample::select(&KEYS[..]),
        descending: bool,
        name in prop::option::of(prop::sample::select(&["a", "b", "é", "none", ""][..])),
        everywhere: bool,
        start in 0..80_usize,
        limit in 1..30_usize,
    ) {
        let (records, naive) = changed(changes);
        let own = organization(1);
        let order = Order { key, descending };
        let regions = |region: &Region| everywhere || region.as_str() == "us";
        let mut all: Vec<&SnapshotRecord> = naive
            .values()
            .filter(|one| one.organization == own || one.general)
            .filter(|one| name.is_none_or(|name| one.name.to_lowercase().contains(name)))
            .filter(|one| regions(&one.region))
            .collect();
        all.sort_by(|a, b| {
            let is_foreign = |one: &SnapshotRecord| one.organization != own;
            is_foreign(a).cmp(&is_foreign(b)).then_with(|| order.compare(a, b))
        });
        let name = name.map(Needle::new);
        let page = records.visible_page(&own, &Listing { order, name, regions: &regions, start, limit });
        prop_assert_eq!(page.total, all.len());
        let wanted: Vec<SnapshotId> = all.iter().skip(start).take(limit).map(|one| one.id).collect();
        prop_assert_eq!(page.items.iter().map(|one| one.id).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn images_and_idle_ones_are_found_as_by_looking_at_everything(
        changes in changes(),
        before in 0..10_i64,
    ) {
        let (records, naive) = changed(changes);
        for n in 0..48 {
            let mut found: Vec<SnapshotId> = records.of_image(&digest(n)).map(|e| e.value.id).collect();
            found.sort();
            let has = |one: &&SnapshotRecord| one.state.image().is_some_and(|i| i.digest == digest(n));
            let wanted: Vec<SnapshotId> = naive.values().filter(has).map(|one| one.id).collect();
            prop_assert_eq!(found, wanted);
        }
        for n in 0..3 {
            let (own, now) = (organization(n), time(before));
            let near = records.idle(&own, now);
            let near = near.iter().map(|record| &**record);
            let mut found = inactivity::idle(near, SignedDuration::ZERO, now);
            found.sort();
            let all = naive.values().filter(|one| one.organization == own);
            let mut wanted = inactivity::idle(all, SignedDuration::ZERO, now);
            wanted.sort();
            prop_assert_eq!(found, wanted);
        }
    }

    #[test]
    fn nothing_is_left_of_what_was_deleted(changes in changes()) {
        let (mut records, naive) = changed(changes);
        for id in naive.keys() {
            records.watched(Watched::Deleted(Key::Snapshot(*id)), 10_000);
        }
        prop_assert!(records.index.own.is_empty());
        prop_assert_eq!(records.index.images.len() + records.followers.len(), 0);
    }
}

fn job(n: u128, event: Option<JobEvent>) -> JobRecord {
    let job = JobRecord::new(
        NewJob {
            id: JobId::from_uuid(Uuid::from_u128(n)),
            organization: organization(1),
            snapshot: SnapshotId::from_uuid(Uuid::from_u128(n)),
            region: ["us", "eu"][n as usize % 2].parse().unwrap(),
            class: Class::Cpu,
            kind: JobKind::Pull,
            trace: None,
        },
        time(0),
    );
    match event {
        Some(event) => job.apply(event, time(1), &RetryPolicy::default()).unwrap().next,
        None => job,
    }
}

#[test]
fn jobs_are_listed_newest_first_and_by_state_and_region() {
    // The first come while records are loaded, and one of them twice.
    let mut records = Records::loading();
    records.put(Value::Job(job(6, None)), 1);
    for n in 1..=9_u128 {
        if n == 8 {
            records.complete();
        }
        let event = (n % 3 == 0).then_some(JobEvent::Cancel);
        records.put(Value::Job(job(n, event)), 1 + n as u64);
    }
    let ids = |records: &Records, after: Option<u128>, state, region, limit| -> Vec<u128> {
        let after = after.map(|n| JobId::from_uuid(Uuid::from_u128(n)));
        let which = Jobs { after, state, region, limit };
        let found = records.jobs_of(&organization(1), &which, |_| true);
        found.iter().map(|job| job.id.as_uuid().as_u128()).collect()
    };
    assert_eq!(ids(&records, None, None, None, 9), [0_u128; 0], "no snapshot stands on them");
    for n in 1..=8_u128 {
        let source = JobSpec::Pull(PullSpec {
            image: "python:3.12".into(),
            platform: "linux/amd64".into(),
            max_size: 1,
            entrypoint: None,
        });
        let new = NewSnapshot {
            id: SnapshotId::from_uuid(Uuid::from_u128(n)),
            organization: organization(1),
            name: format!("s{n}"),
            region: "us".parse().unwrap(),
            class: Class::Cpu,
            resources: Resources::default(),
            source,
            job: JobId::from_uuid(Uuid::from_u128(n)),
        };
        records.put(Value::Snapshot(SnapshotRecord::new(new, time(0))), 20 + n as u64);
    }
    assert_eq!(ids(&records, None, None, None, 9), [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(ids(&records, Some(5), None, None, 2), [4, 3]);
    assert_eq!(ids(&records, None, Some("cancelled"), None, 9), [6, 3]);
    assert_eq!(ids(&records, None, Some("queued"), Some("us"), 9), [8, 4, 2]);
    assert_eq!(ids(&records, None, Some("none such"), None, 9), [0_u128; 0]);
    records.put(Value::Job(job(4, Some(JobEvent::Cancel))), 40);
    records.watched(Watched::Deleted(Key::Job(job(3, None).id)), 41);
    assert_eq!(ids(&records, None, Some("cancelled"), None, 9), [6, 4]);
}
