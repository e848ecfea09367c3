use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use slipway_bus::bucket::{Change, DeleteReason, Watch};
use slipway_bus::topology::BucketName;

use super::{connect, eventually, region, soon, start, topology};

async fn change(watch: &mut Watch) -> Change {
    soon(watch.next()).await.unwrap()
}

/// Applies changes to a view as a scheduler does, until `done`.
async fn follow(
    watch: &mut Watch,
    view: &mut BTreeMap<String, u64>,
    mut done: impl FnMut(&Change, &BTreeMap<String, u64>) -> bool,
) {
    soon(async {
        loop {
            let change = watch.next().await.unwrap();
            match &change {
                Change::Put(entry) => {
                    let before = view.insert(entry.key.clone(), entry.revision);
                    assert!(before.is_none_or(|before| before < entry.revision), "{change:?}");
                }
                Change::Deleted { key, .. } => {
                    view.remove(key);
                }
                Change::Reset => view.clear(),
                Change::Ready => {}
            }
            if done(&change, view) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn empty_bucket_is_ready_at_once_and_then_live() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let mut watch = records.watch(None);
    assert_eq!(change(&mut watch).await, Change::Ready);
    let revision = records.put("snapshot.a", "1", None).await.unwrap();
    let Change::Put(entry) = change(&mut watch).await else { panic!("no put") };
    assert_eq!((entry.key.as_str(), entry.revision), ("snapshot.a", revision));
    assert_eq!(entry.json::<String>().unwrap(), "1");
}

#[tokio::test]
async fn initial_state_precedes_ready_and_has_one_value_per_key() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    for n in 0..500 {
        records.put(&format!("job.{}", n % 100), &n, None).await.unwrap();
    }
    let gone = records.put("job.gone", "x", None).await.unwrap();
    records.delete("job.gone", gone).await.unwrap();
    let mut view = BTreeMap::new();
    let mut watch = records.watch(None);
    let mut puts = 0;
    follow(&mut watch, &mut view, |change, _| {
        puts += u32::from(matches!(change, Change::Put(_)));
        *change == Change::Ready
    })
    .await;
    assert_eq!((view.len(), puts), (100, 100));
}

#[tokio::test]
async fn watch_from_a_revision_sees_only_what_came_later() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let first = records.put("a", "1", None).await.unwrap();
    let second = records.put("b", "1", None).await.unwrap();
    let mut watch = records.watch(Some(first));
    let Change::Put(entry) = change(&mut watch).await else { panic!("no put") };
    assert_eq!(entry.revision, second);
    assert_eq!(change(&mut watch).await, Change::Ready);
    assert_eq!(change(&mut records.watch(Some(second))).await, Change::Ready);
}

#[tokio::test]
async fn filtered_watch_is_ready_although_the_last_entry_is_not_its_own() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    leases.put("worker.a", "1", None).await.unwrap();
    leases.put("job.b", "1", None).await.unwrap();
    let mut watch = leases.watch_keys("worker.>", None);
    assert!(matches!(change(&mut watch).await, Change::Put(entry) if entry.key == "worker.a"));
    assert_eq!(change(&mut watch).await, Change::Ready);
}

#[tokio::test]
async fn deletion_and_expiry_are_told_apart() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    let mut watch = leases.watch(None);
    assert_eq!(change(&mut watch).await, Change::Ready);
    let revision = leases.create("job.a", "1", None).await.unwrap();
    leases.delete("job.a", revision).await.unwrap();
    leases.create("job.b", "1", Some(Duration::from_secs(1))).await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        if let Change::Deleted { key, reason, .. } = change(&mut watch).await {
            reasons.push((key, reason));
        }
    }
    let expected =
        [("job.a".to_owned(), DeleteReason::Deleted), ("job.b".to_owned(), DeleteReason::Expired)];
    assert_eq!(reasons, expected);
}

#[tokio::test]
async fn it_is_known_since_when_a_bucket_is_heard_without_interruption() {
    let (mut server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let mut watch = records.watch(None);
    let contact = watch.contact();
    assert_eq!(*contact.borrow(), None);
    assert_eq!(change(&mut watch).await, Change::Ready);
    let first = contact.borrow().expect("it is heard");
    records.put("job.a", "1", None).await.unwrap();
    assert!(matches!(change(&mut watch).await, Change::Put(_)));
    assert_eq!(*contact.borrow(), Some(first));
    server.kill9().await;
    server.restart().await;
    records.put("job.a", "2", None).await.unwrap();
    assert!(matches!(change(&mut watch).await, Change::Put(_)));
    assert!(contact.borrow().expect("it is heard again") > first);
}

#[tokio::test]
async fn watch_goes_on_after_kill_and_restart_without_gap_or_duplicate() {
    let (mut server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    for n in 0..50 {
        records.put(&format!("job.{n}"), &n, None).await.unwrap();
    }
    let mut watch = records.watch(None);
    let mut view = BTreeMap::new();
    follow(&mut watch, &mut view, |change, _| *change == Change::Ready).await;
    let gone = view["job.7"];
    for round in 0..2 {
        server.kill9().await;
        server.restart().await;
        // Written by another client, maybe before the watch is back.
        let other = connect(&server).await.bucket(&BucketName::Records);
        if round == 0 {
            other.delete("job.7", gone).await.unwrap();
        }
        for n in 50..60 {
            other.put(&format!("job.{n}"), &round, None).await.unwrap();
        }
        let last = other.put("job.last", &round, None).await.unwrap();
        let mut puts = 0;
        follow(&mut watch, &mut view, |change, view| {
            assert!(!matches!(change, Change::Reset | Change::Ready), "{change:?}");
            puts += u32::from(matches!(change, Change::Put(_)));
            view.get("job.last") == Some(&last)
        })
        .await;
        assert_eq!((puts, view.len()), (11, 60), "round {round}");
    }
}

#[tokio::test]
async fn restart_in_the_middle_of_the_initial_state_repeats_nothing() {
    let (mut server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let puts = (0..3000).map(|n| {
        let records = records.clone();
        async move { records.put(&format!("job.{n}"), &n, None).await.unwrap() }
    });
    futures::future::join_all(puts).await;
    let mut watch = records.watch(None);
    let mut view = BTreeMap::new();
    follow(&mut watch, &mut view, |_, view| view.len() == 100).await;
    server.restart().await;
    let mut puts = view.len();
    follow(&mut watch, &mut view, |change, _| {
        puts += usize::from(matches!(change, Change::Put(_)));
        *change == Change::Ready
    })
    .await;
    assert_eq!((puts, view.len()), (3000, 3000));
}

#[tokio::test]
async fn lost_data_resets_the_watch() {
    let (server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    for n in 0..10 {
        records.put(&format!("job.{n}"), &n, None).await.unwrap();
    }
    let mut watch = records.watch(None);
    let mut view = BTreeMap::new();
    follow(&mut watch, &mut view, |change, _| *change == Change::Ready).await;
    // What an operator does who restores from nothing, or a disk that lied.
    let raw = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    raw.delete_stream("KV_records").await.unwrap();
    bus.ensure(&topology()).await.unwrap();
    records.put("job.new", "1", None).await.unwrap();
    let mut resets = 0;
    follow(&mut watch, &mut view, |change, view| {
        resets += u32::from(*change == Change::Reset);
        view.contains_key("job.new") && *change == Change::Ready || resets > 1
    })
    .await;
    assert_eq!((resets, view.len()), (1, 1));
}

#[tokio::test]
async fn watchers_that_are_dropped_leave_no_consumer_behind() {
    let (server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    for _ in 0..20 {
        assert_eq!(change(&mut records.watch(None)).await, Change::Ready);
    }
    let raw = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut stream = raw.get_stream("KV_records").await.unwrap();
    eventually(async || stream.info().await.unwrap().state.consumer_count == 0).await;
}

#[tokio::test]
async fn what_takes_many_requests_comes_whole_and_in_order() {
    const MANY: u64 = 12_000;
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let puts = (0..MANY).map(|n| {
        let records = &records;
        async move { records.put(&format!("job.{n}"), &n, None).await.unwrap() }
    });
    futures::stream::iter(puts).buffer_unordered(256).collect::<Vec<_>>().await;
    let mut watch = records.watch(None);
    for revision in 1..=MANY {
        let Change::Put(entry) = change(&mut watch).await else { panic!("no put") };
        assert_eq!(entry.revision, revision);
    }
    assert_eq!(change(&mut watch).await, Change::Ready);
    let last = records.put("job.0", "again", None).await.unwrap();
    let Change::Put(entry) = change(&mut watch).await else { panic!("no put") };
    assert_eq!(entry.revision, last);
}
