#![allow(clippy::unwrap_used)]
use slipway_domain::Class;
use slipway_domain::job::NewJob;
use slipway_domain::snapshot::name::NameRecord;
use slipway_domain::spec::JobKind;
use uuid::Uuid;

use super::*;

pub(super) fn job(n: u128) -> JobRecord {
    let uuid = Uuid::from_u128(n);
    let new = NewJob {
        id: JobId::from_uuid(uuid),
        organization: OrganizationId::from_uuid(uuid),
        snapshot: SnapshotId::from_uuid(uuid),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        kind: JobKind::Build,
        trace: None,
    };
    JobRecord::new(new, jiff::Timestamp::UNIX_EPOCH)
}

fn put(value: Value) -> Watched {
    Watched::Put(Box::new(value.into()))
}

#[test]
fn an_older_revision_never_replaces_a_newer_one() {
    let mut records = Records::default();
    let mut newer = job(1);
    newer.updated_at = jiff::Timestamp::from_second(9).unwrap();
    records.put(Value::Job(newer.clone()), 5);
    records.put(Value::Job(job(1)), 4);
    records.watched(Watched::Deleted(Key::Job(newer.id)), 3);
    assert_eq!(*records.job(&newer.id).unwrap().value, newer);
    assert_eq!(records.open_jobs().count(), 1);
    records.watched(Watched::Deleted(Key::Job(newer.id)), 6);
    assert!(records.job(&newer.id).is_none());
    assert_eq!(records.open_jobs().count(), 0);
    // A read that began before the deletion does not bring it back.
    records.put(Value::Job(newer.clone()), 5);
    assert!(records.job(&newer.id).is_none());
    records.put(Value::Job(newer.clone()), 7);
    assert!(records.job(&newer.id).is_some());
}

pub(super) fn snapshot(n: u128, job: u128) -> SnapshotRecord {
    let source = slipway_domain::spec::JobSpec::Pull(slipway_domain::spec::PullSpec {
        image: "python:3.12".into(),
        platform: "linux/amd64".into(),
        max_size: 1,
        entrypoint: None,
    });
    let new = slipway_domain::snapshot::NewSnapshot {
        id: SnapshotId::from_uuid(Uuid::from_u128(n)),
        organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
        name: format!("s{n}"),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        resources: slipway_domain::spec::Resources::default(),
        source,
        job: JobId::from_uuid(Uuid::from_u128(job)),
    };
    SnapshotRecord::new(new, jiff::Timestamp::UNIX_EPOCH)
}

#[test]
fn what_is_derived_follows_every_change_of_a_snapshot() {
    let mut records = Records::default();
    let (a, b) = (snapshot(1, 7), snapshot(2, 7));
    let (organization, job) = (a.organization, a.job);
    records.put(Value::Snapshot(a.clone()), 1);
    records.put(Value::Snapshot(b.clone()), 2);
    assert_eq!(records.followers(job).count(), 2);
    assert_eq!(records.usage(&organization).unwrap().in_use(), 2);
    let remove = slipway_domain::snapshot::SnapshotEvent::Remove;
    let going = a.apply(job, remove, jiff::Timestamp::UNIX_EPOCH);
    records.put(Value::Snapshot(going), 3);
    assert_eq!(records.usage(&organization).unwrap().in_use(), 1);
    assert_eq!(records.removing().count(), 1);
    let elsewhere = SnapshotRecord { job: snapshot(2, 8).job, ..b.clone() };
    records.put(Value::Snapshot(elsewhere.clone()), 4);
    assert_eq!(records.followers(job).count(), 1);
    assert_eq!(records.followers(elsewhere.job).count(), 1);
    records.watched(Watched::Deleted(Key::Snapshot(a.id)), 5);
    records.watched(Watched::Deleted(Key::Snapshot(b.id)), 6);
    assert!(records.usage(&organization).is_none());
    assert_eq!(records.followers(job).chain(records.followers(elsewhere.job)).count(), 0);
    assert_eq!(records.removing().count(), 0);
}

#[test]
fn what_lacks_its_counterpart_is_debris_until_the_counterpart_comes() {
    let mut records = Records::default();
    let lone = snapshot(1, 7);
    let name = Value::Name(name_of(&lone), NameRecord::new(lone.id));
    records.watched(put(name.clone()), 1);
    assert_eq!(records.debris(), [Debris::Name(lone.id, name_of(&lone))]);
    records.watched(put(Value::Snapshot(lone.clone())), 2);
    assert_eq!(records.debris(), [Debris::Snapshot(lone.id)]);
    let record = JobRecord { id: lone.job, snapshot: lone.id, ..job(7) };
    records.watched(put(Value::Job(record.clone())), 3);
    assert_eq!(records.debris(), []);
    records.watched(Watched::Deleted(Key::Snapshot(lone.id)), 4);
    assert_eq!(records.debris(), [Debris::Name(lone.id, name_of(&lone)), Debris::Job(record.id)]);
    records.watched(Watched::Deleted(Key::Job(record.id)), 5);
    records.watched(put(name), 6);
    records.watched(Watched::Deleted(Key::Name(name_of(&lone))), 7);
    assert_eq!(records.debris(), []);
}

#[test]
fn names_that_came_while_records_were_loaded_are_as_if_they_had_come_later() {
    let (whole, lone, gone) = (snapshot(1, 7), snapshot(2, 8), snapshot(3, 9));
    let changes = || {
        let name = |of: &SnapshotRecord| put(Value::Name(name_of(of), NameRecord::new(of.id)));
        [
            name(&whole),
            put(Value::Snapshot(whole.clone())),
            put(Value::Snapshot(lone.clone())),
            name(&gone),
            put(Value::Snapshot(gone.clone())),
            Watched::Deleted(Key::Snapshot(gone.id)),
        ]
    };
    let (mut loaded, mut followed) = (Records::loading(), Records::default());
    for (revision, change) in (1..).zip(changes()) {
        loaded.watched(change, revision);
    }
    for (revision, change) in (1..).zip(changes()) {
        followed.watched(change, revision);
    }
    loaded.complete();
    for records in [&loaded, &followed] {
        assert_eq!(records.unsettled_names(), [name_of(&lone)]);
        let debris = records.debris();
        assert!(debris.contains(&Debris::Name(gone.id, name_of(&gone))), "{debris:?}");
        assert_eq!(debris.len(), 3, "{debris:?}");
        assert_eq!(records.usage(&whole.organization).unwrap().in_use(), 2);
        assert_eq!(records.waiting().count(), 2);
        assert_eq!(records.find(&whole.organization, "s1").unwrap().value.id, whole.id);
    }
}

#[test]
fn keys_of_a_newer_version_are_ignored() {
    assert!(Key::parse("job.018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f").is_some());
    assert_eq!(Key::parse("volume.x"), None);
    assert_eq!(Key::parse("snapshot.x"), None);
}
