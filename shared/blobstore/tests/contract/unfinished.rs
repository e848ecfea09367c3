//! Objects under way: invisible until they are complete, gone if given up.

use futures::{StreamExt, TryStreamExt, stream};
use slipway_blobstore::ObjectKey;
use slipway_oci::{Digest, Verifier};
use uuid::Uuid;

use crate::subject::{LARGE, Subject, blob, chunks, content};

pub async fn a_writer_shows_nothing_before_its_commit(subject: Subject) {
    for size in [10, LARGE] {
        let content = content(size);
        let key = blob(&content);
        let mut writer = subject.store.writer(key.clone());
        let mut body = chunks(&content);
        while let Some(chunk) = body.try_next().await.unwrap() {
            writer.write(chunk).await.unwrap();
            assert!(size > 10 || !subject.store.exists(&key).await.unwrap());
        }
        assert_eq!(writer.written(), size as u64);
        assert!(!subject.store.exists(&key).await.unwrap());
        let version = writer.commit().await.unwrap();
        let metadata = subject.store.head(&key).await.unwrap();
        assert_eq!((metadata.size, metadata.etag), (size as u64, version));
    }
}

pub async fn a_dropped_writer_leaves_nothing(subject: Subject) {
    let key = ObjectKey::Upload(Uuid::new_v4());
    let mut writer = subject.store.writer(key.clone());
    writer.write(content(LARGE)).await.unwrap();
    drop(writer);
    subject.assert_no_trace(&key).await;
    let mut writer = subject.store.writer(key.clone());
    writer.write(content(LARGE)).await.unwrap();
    writer.abort().await;
    subject.assert_no_trace(&key).await;
}

pub async fn an_abandoned_stream_leaves_nothing(subject: Subject) {
    let content = content(LARGE);
    let key = blob(&content);
    let body = chunks(&content).chain(stream::pending());
    let verifier = Verifier::new(Digest::sha256(&content));
    let write = subject.store.put_stream(&key, body, verifier);
    let deadline = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(deadline, write).await.is_err(), "the body never ends");
    subject.assert_no_trace(&key).await;
}

pub async fn an_upload_that_is_given_up_as_it_begins_leaves_nothing(subject: Subject) {
    let content = content(LARGE);
    let key = blob(&content);
    for patience in (0..40).map(std::time::Duration::from_millis) {
        let body = chunks(&content).chain(stream::pending());
        let verifier = Verifier::new(Digest::sha256(&content));
        let write = subject.store.put_stream(&key, body, verifier);
        let _ = tokio::time::timeout(patience, write).await.unwrap_err();
    }
    subject.assert_no_trace(&key).await;
}

pub async fn an_upload_gets_its_name_at_the_end(subject: Subject) {
    for size in [10, LARGE] {
        let content = content(size);
        let staged = ObjectKey::Upload(Uuid::new_v4());
        let mut writer = subject.store.writer(staged.clone());
        let mut body = chunks(&content);
        while let Some(chunk) = body.try_next().await.unwrap() {
            writer.write(chunk).await.unwrap();
        }
        let key = blob(&content);
        writer.commit_as(&key).await.unwrap();
        assert!(!subject.store.exists(&staged).await.unwrap());
        let stored = subject.store.get_bytes(&key, size as u64).await.unwrap();
        assert_eq!(Digest::sha256(stored), Digest::sha256(&content));
        subject.assert_nothing_unfinished().await;
    }
}

pub async fn two_writers_of_one_key_both_succeed(subject: Subject) {
    let content = content(LARGE);
    let key = blob(&content);
    let digest = Digest::sha256(&content);
    let write = || subject.store.put_stream(&key, chunks(&content), Verifier::new(digest));
    let (one, two) = tokio::join!(write(), write());
    assert_eq!(one.unwrap(), two.unwrap());
    let stored = subject.store.get_bytes(&key, LARGE as u64).await.unwrap();
    assert_eq!(Digest::sha256(stored), digest);
    subject.assert_nothing_unfinished().await;
}
