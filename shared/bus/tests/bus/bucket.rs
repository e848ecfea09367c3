use std::time::Duration;

use slipway_bus::Config;
use slipway_bus::bucket::{Batch, Bucket, Change, DeleteReason, Error, Expected};
use slipway_bus::topology::{BucketName, keys};

use super::{eventually, job, region, soon, start};

const TTL: Option<Duration> = Some(Duration::from_secs(1));

async fn expired(leases: &Bucket, key: &str) -> u64 {
    let mut watch = leases.watch_keys(key, None);
    soon(async {
        loop {
            if let Change::Deleted { reason, revision, .. } = watch.next().await.unwrap() {
                assert_eq!(reason, DeleteReason::Expired);
                return revision;
            }
        }
    })
    .await
}

#[tokio::test]
async fn claim_is_exclusive_renewable_and_fenced_by_its_revision() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    let key = keys::job(&job());
    let first = leases.create(&key, "a", Some(Duration::from_secs(30))).await.unwrap();
    assert!(leases.create(&key, "b", TTL).await.unwrap_err().is_conflict());
    let second = leases.update(&key, "a2", first, Some(Duration::from_secs(30))).await.unwrap();
    assert!(second > first);
    assert!(leases.update(&key, "zombie", first, TTL).await.unwrap_err().is_conflict());
    let entry = leases.get(&key).await.unwrap().unwrap();
    assert_eq!((entry.revision, entry.json::<String>().unwrap().as_str()), (second, "a2"));
    assert_eq!(leases.get_any(&key).await.unwrap().unwrap().revision, second);
}

#[tokio::test]
async fn claim_over_an_expiry_marker_keeps_its_time_to_live() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    let key = keys::job(&job());
    leases.create(&key, "a", TTL).await.unwrap();
    let marker = expired(&leases, &key).await;
    assert_eq!(leases.get(&key).await.unwrap(), None);
    assert_eq!(leases.get_any(&key).await.unwrap(), None);
    let again = leases.create(&key, "b", TTL).await.unwrap();
    assert!(again > marker);
    assert!(expired(&leases, &key).await > again);
}

#[tokio::test]
async fn claim_over_a_deletion_keeps_its_time_to_live() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    let key = keys::job(&job());
    let revision = leases.create(&key, "a", None).await.unwrap();
    assert!(leases.delete(&key, revision + 1).await.unwrap_err().is_conflict());
    leases.delete(&key, revision).await.unwrap();
    assert_eq!(leases.get(&key).await.unwrap(), None);
    leases.create(&key, "b", TTL).await.unwrap();
    expired(&leases, &key).await;
}

#[tokio::test]
async fn renewal_without_time_to_live_makes_a_key_permanent_and_with_one_extends_it() {
    let (_server, bus) = start().await;
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    let key = keys::job(&job());
    let revision = leases.create(&key, "a", TTL).await.unwrap();
    let kept = leases.update(&key, "b", revision, None).await.unwrap();
    let (other, mut watch) = (keys::job(&job()), leases.watch(Some(kept)));
    leases.create(&other, "later", Some(Duration::from_secs(2))).await.unwrap();
    soon(async {
        loop {
            match watch.next().await.unwrap() {
                Change::Deleted { key: gone, .. } if gone == other => break,
                Change::Deleted { key: gone, .. } => panic!("`{gone}` expired"),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(leases.get(&key).await.unwrap().unwrap().revision, kept);
}

#[tokio::test]
async fn batch_writes_all_keys_under_consecutive_revisions() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let old = records.put("snapshot.old", "x", None).await.unwrap();
    let mut batch = Batch::new();
    batch.put("snapshot.a", &1, Expected::Absent).unwrap();
    batch.put("job.a", &2, Expected::Any).unwrap();
    batch.delete("snapshot.old", Expected::Revision(old));
    let revisions = records.commit(&batch).await.unwrap();
    assert_eq!(revisions.len(), 3);
    assert_eq!(revisions[2], revisions[0] + 2);
    for (key, revision) in [("snapshot.a", revisions[0]), ("job.a", revisions[1])] {
        assert_eq!(records.get(key).await.unwrap().unwrap().revision, revision);
    }
    assert_eq!(records.get("snapshot.old").await.unwrap(), None);

    let mut single = Batch::new();
    single.put("snapshot.old", &4, Expected::Absent).unwrap();
    let revisions = records.commit(&single).await.unwrap();
    assert_eq!(records.get("snapshot.old").await.unwrap().unwrap().revision, revisions[0]);
}

#[tokio::test]
async fn stale_batch_leaves_nothing_behind() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let stale = records.put("snapshot.a", "1", None).await.unwrap();
    let current = records.put("snapshot.a", "2", None).await.unwrap();
    let mut batch = Batch::new();
    batch.put("job.a", "new", Expected::Absent).unwrap();
    batch.put("snapshot.a", "3", Expected::Revision(stale)).unwrap();
    batch.put("name.a", "new", Expected::Absent).unwrap();
    assert!(records.commit(&batch).await.unwrap_err().is_conflict());
    assert_eq!(records.get("job.a").await.unwrap(), None);
    assert_eq!(records.get("name.a").await.unwrap(), None);
    assert_eq!(records.get("snapshot.a").await.unwrap().unwrap().revision, current);

    let mut taken = Batch::new();
    taken.put("job.a", "new", Expected::Any).unwrap();
    taken.put("snapshot.a", "3", Expected::Absent).unwrap();
    let error = records.commit(&taken).await.unwrap_err();
    assert!(matches!(&error, Error::Conflict { key, .. } if key == "snapshot.a"), "{error}");
    assert_eq!(records.get("job.a").await.unwrap(), None);
}

#[tokio::test]
async fn batch_of_a_thousand_keys_is_written() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let mut batch = Batch::new();
    for n in 0..1000 {
        batch.put(format!("job.{n}"), &n, Expected::Any).unwrap();
    }
    let revisions = records.commit(&batch).await.unwrap();
    assert_eq!(records.get("job.999").await.unwrap().unwrap().revision, revisions[999]);
}

#[tokio::test]
async fn concurrent_batches_on_the_same_key_have_one_winner() {
    let (_server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    let claims = (0..16).map(|n| {
        let records = records.clone();
        async move {
            let mut batch = Batch::new();
            batch.put("name.same", &n, Expected::Absent).unwrap();
            batch.put(format!("job.{n}"), &n, Expected::Absent).unwrap();
            records.commit(&batch).await
        }
    });
    let outcomes = futures::future::join_all(claims).await;
    let lost = outcomes.iter().filter(|o| o.as_ref().is_err_and(Error::is_conflict)).count();
    assert_eq!((outcomes.iter().filter(|o| o.is_ok()).count(), lost), (1, 15), "{outcomes:?}");
    let winner: i32 = records.get("name.same").await.unwrap().unwrap().json().unwrap();
    for n in 0..16 {
        let written = records.get(&format!("job.{n}")).await.unwrap().is_some();
        assert_eq!(written, n == winner, "{n}");
    }
}

#[tokio::test]
async fn write_waits_for_a_server_that_restarts() {
    let (mut server, bus) = start().await;
    let records = bus.bucket(&BucketName::Records);
    records.put("snapshot.a", "1", None).await.unwrap();
    server.kill9().await;
    let write = records.put("snapshot.a", "2", None);
    let (written, ()) = tokio::join!(write, server.restart());
    let revision = written.unwrap();
    assert_eq!(soon(records.get("snapshot.a")).await.unwrap().unwrap().revision, revision);
}

#[tokio::test]
async fn bucket_that_does_not_exist_is_unavailable() {
    let (_server, bus) = start().await;
    let nowhere = bus.bucket(&BucketName::Leases(region("mars")));
    let error = soon(nowhere.put("a", "1", None)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(soon(nowhere.watch(None).next()).await.is_err());
}

#[tokio::test]
async fn write_whose_answer_was_lost_is_no_conflict_with_itself() {
    let (server, _) = start().await;
    let config = Config {
        request_timeout: Duration::from_millis(300),
        ..Config::new(server.url(), "impatient")
    };
    let bus = slipway_bus::connect(&config).await.unwrap();
    let records = bus.bucket(&BucketName::Records);
    let old = records.put("job.a", "0", None).await.unwrap();
    server.child().pause();
    let writes = async {
        let mut batch = Batch::new();
        batch.put("job.c", "1", Expected::Any).unwrap();
        tokio::join!(
            records.update("job.a", "1", old, None),
            records.put("job.b", "1", None),
            records.commit(&batch),
        )
    };
    // Long enough for the first tries to time out; the server does them later.
    let pause = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        server.child().resume();
    };
    let ((updated, put, committed), ()) =
        soon(Box::pin(async { tokio::join!(writes, pause) })).await;
    for (key, revision) in [("job.a", updated.unwrap()), ("job.b", put.unwrap())] {
        assert_eq!(records.get(key).await.unwrap().unwrap().revision, revision);
    }
    // A batch is not repeated: it may be told from its id, or must be read.
    match committed {
        Ok(revisions) => {
            assert_eq!(records.get("job.c").await.unwrap().unwrap().revision, revisions[0]);
        }
        Err(error) => assert!(matches!(error, Error::Ambiguous { .. }), "{error:?}"),
    }
}

#[tokio::test]
async fn deletion_leaves_nothing_behind_for_ever() {
    let (server, bus) = start().await;
    let raw = async_nats::connect(server.url()).await.unwrap();
    let context = async_nats::jetstream::new(raw.clone());
    let mut stream = context.get_stream("KV_leases_us").await.unwrap();
    let mut quick = stream.info().await.unwrap().config.clone();
    quick.subject_delete_marker_ttl = Some(Duration::from_secs(1));
    context.update_stream(quick).await.unwrap();
    let leases = bus.bucket(&BucketName::Leases(region("us")));
    leases.put("job.a", "1", None).await.unwrap();
    // As `delete` writes it, but to expire soon.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    headers.insert("Nats-TTL", "1s");
    raw.request_with_headers("$KV.leases_us.job.a", headers, "".into()).await.unwrap();
    eventually(async || stream.get_info().await.unwrap().state.messages == 0).await;
    leases.create("job.a", "2", None).await.unwrap();
}
