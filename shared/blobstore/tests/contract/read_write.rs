//! What goes in comes out.

use std::time::Duration;

use futures::TryStreamExt;
use slipway_blobstore::{ByteRange, Error, ObjectKey, Prefix, Stored};
use slipway_oci::{Digest, Verifier};
use uuid::Uuid;

use crate::subject::{LARGE, Subject, blob, chunks, content};

async fn read(subject: &Subject, key: &ObjectKey, range: Option<ByteRange>) -> Vec<u8> {
    let stream = subject.store.get(key, range).await.unwrap().into_stream();
    let chunks: Vec<_> = stream.try_collect().await.unwrap();
    chunks.concat()
}

pub async fn small_objects_come_back_whole(subject: Subject) {
    let store = &subject.store;
    let key = ObjectKey::JobLog(Uuid::new_v4());
    assert!(!store.exists(&key).await.unwrap());
    assert!(store.get(&key, None).await.unwrap_err().is_not_found());
    store.put_bytes(&key, "hello").await.unwrap();
    assert!(store.exists(&key).await.unwrap());
    let metadata = store.head(&key).await.unwrap();
    assert_eq!(metadata.size, 5);
    assert!(metadata.etag.is_some());
    assert_eq!(store.get_bytes(&key, 5).await.unwrap(), "hello");
}

pub async fn large_objects_come_back_whole(subject: Subject) {
    let content = content(LARGE);
    let digest = Digest::sha256(&content);
    let key = blob(&content);
    let verifier = Verifier::new(digest).size(content.len() as u64);
    let stored = subject.store.put_stream(&key, chunks(&content), verifier).await.unwrap();
    assert_eq!(stored, Stored { digest, size: LARGE as u64 });
    let object = subject.store.get(&key, None).await.unwrap();
    assert_eq!((object.metadata.size, object.range.clone()), (LARGE as u64, 0..LARGE as u64));
    assert_eq!(Digest::sha256(read(&subject, &key, None).await), digest);
    subject.assert_nothing_unfinished().await;
}

pub async fn an_empty_object_exists(subject: Subject) {
    let key = blob(b"");
    let verifier = Verifier::new(Digest::sha256("")).size(0);
    let stored = subject.store.put_stream(&key, chunks(&content(0)), verifier).await.unwrap();
    assert_eq!(stored.size, 0);
    assert_eq!(subject.store.head(&key).await.unwrap().size, 0);
    assert!(read(&subject, &key, None).await.is_empty());
}

pub async fn ranges_bring_their_bytes(subject: Subject) {
    let content = content(700_001);
    let key = blob(&content);
    subject.store.put_bytes(&key, content.clone()).await.unwrap();
    let cases = [
        (ByteRange::Bounded(0, 1), 0..1),
        (ByteRange::Bounded(299_999, 600_000), 299_999..600_000),
        (ByteRange::Bounded(700_000, 900_000), 700_000..700_001),
        (ByteRange::From(1), 1..700_001),
        (ByteRange::Last(10), 699_991..700_001),
    ];
    for (range, offsets) in cases {
        let object = subject.store.get(&key, Some(range)).await.unwrap();
        assert_eq!(object.metadata.size, 700_001);
        assert_eq!(object.range, offsets.start as u64..offsets.end as u64);
        assert!(read(&subject, &key, Some(range)).await == content[offsets], "{range:?}");
    }
    let beyond = subject.store.get(&key, Some(ByteRange::From(700_001))).await;
    assert!(matches!(beyond, Err(Error::Range { size: 700_001, .. })));
}

pub async fn a_second_write_replaces_the_first(subject: Subject) {
    let key = ObjectKey::JobLog(Uuid::new_v4());
    for text in ["first", "second, longer", "3"] {
        subject.store.put_bytes(&key, text).await.unwrap();
        assert_eq!(subject.store.get_bytes(&key, 100).await.unwrap(), text);
    }
}

pub async fn deleting_twice_is_no_error(subject: Subject) {
    let key = ObjectKey::JobLog(Uuid::new_v4());
    subject.store.put_bytes(&key, "x").await.unwrap();
    subject.store.delete(&key).await.unwrap();
    assert!(!subject.store.exists(&key).await.unwrap());
    subject.store.delete(&key).await.unwrap();
}

pub async fn a_list_has_what_lies_below_its_prefix(subject: Subject) {
    let store = &subject.store;
    let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
    let tag = |organization: Uuid, name: &str, tag: &str| ObjectKey::TagLink {
        repository: format!("{organization}/{name}").parse().unwrap(),
        tag: tag.parse().unwrap(),
    };
    let keys = [
        tag(ours, "a", "one"),
        tag(ours, "a", "two"),
        tag(ours, "a/b", "three"),
        tag(ours, "ab", "four"),
        tag(theirs, "a", "five"),
    ];
    for key in &keys {
        store.put_bytes(key, "{}").await.unwrap();
    }
    let list = async |prefix: Prefix| {
        let mut found: Vec<ObjectKey> =
            store.list(&prefix).map_ok(|entry| entry.key).try_collect().await.unwrap();
        found.sort();
        found
    };
    let sorted = |keys: &[ObjectKey]| {
        let mut keys = keys.to_vec();
        keys.sort();
        keys
    };
    let repository = || format!("{ours}/a").parse().unwrap();
    assert_eq!(list(Prefix::Tags(repository())).await, sorted(&keys[..2]));
    assert_eq!(list(Prefix::Repository(repository())).await, sorted(&keys[..3]));
    assert_eq!(list(Prefix::Organization(ours)).await, sorted(&keys[..4]));
    assert_eq!(list(Prefix::All).await, sorted(&keys));
    assert!(list(Prefix::Logs).await.is_empty());
}

pub async fn objects_above_the_limit_are_not_read_into_memory(subject: Subject) {
    let key = ObjectKey::JobLog(Uuid::new_v4());
    subject.store.put_bytes(&key, "12345").await.unwrap();
    let read = subject.store.get_bytes(&key, 4).await;
    assert!(matches!(read, Err(Error::TooLarge { size: 5, limit: 4, .. })));
}

pub async fn check_finds_nothing_wrong(subject: Subject) {
    subject.store.check().await.unwrap();
}

pub async fn a_signed_url_reads_one_object(subject: Subject) {
    let key = blob(b"hello");
    subject.store.put_bytes(&key, "hello").await.unwrap();
    let url = subject.store.signed_url(&key, Duration::from_secs(60)).await.unwrap();
    assert_eq!(url.is_some(), subject.is_s3());
    let Some(url) = url else { return };
    assert!(url.as_str().contains("X-Amz-Expires=60"), "{url}");
    let read = reqwest::get(url).await.unwrap();
    assert_eq!(read.text().await.unwrap(), "hello");
}
