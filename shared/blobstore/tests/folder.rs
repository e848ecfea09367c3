//! What only a local folder has: files that outlive the process.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use slipway_blobstore::{Config, ObjectKey, Store};
use slipway_oci::Digest;
use url::Url;

/// Servers move futures between threads.
#[test]
fn writing_can_move_between_threads() {
    fn assert_send(_: impl Send) {}
    let store = Store::in_memory();
    let key = ObjectKey::Blob(Digest::sha256(""));
    let writer = || store.writer(key.clone());
    assert_send(writer().commit());
    assert_send(writer().commit_as(&key));
    assert_send(writer().abort());
    assert_send(writer());
    assert_send(store.get_bytes(&key, 1));
    assert_send(store.sweep_unfinished(Duration::ZERO));
}

#[tokio::test]
async fn objects_are_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(Url::from_file_path(folder.path()).unwrap());
    let key = ObjectKey::Blob(Digest::sha256("hello"));
    Store::open(&config).unwrap().put_bytes(&key, "hello").await.unwrap();
    let again = Store::open(&config).unwrap();
    assert_eq!(again.get_bytes(&key, 10).await.unwrap(), "hello");
    assert_eq!(std::fs::read(folder.path().join(key.to_string())).unwrap(), b"hello");
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(Url::from_file_path(folder.path()).unwrap());
    let store = Store::open(&config).unwrap();
    let key = ObjectKey::Blob(Digest::sha256("hello"));
    store.put_bytes(&key, "hello").await.unwrap();
    let left = folder.path().join(format!("{key}#1"));
    std::fs::write(&left, "hel").unwrap();
    assert_eq!(store.sweep_unfinished(Duration::from_secs(3600)).await.unwrap(), 0);
    assert!(left.exists(), "it may still be written");
    assert_eq!(store.sweep_unfinished(Duration::ZERO).await.unwrap(), 1);
    assert!(!left.exists());
    assert!(store.exists(&key).await.unwrap());
}

#[tokio::test]
async fn a_folder_that_is_gone_is_an_error_and_not_an_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::new(Url::from_file_path(folder.path()).unwrap());
    let store = Store::open(&config).unwrap();
    let swept = store.sweep_unfinished(Duration::ZERO).await;
    assert_eq!(swept.unwrap(), 0);
    drop(folder);
    let error = store.sweep_unfinished(Duration::ZERO).await.unwrap_err();
    assert!(error.is_retryable());
}

#[tokio::test]
async fn a_store_fails_while_its_file_of_faults_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("faults.json");
    let url = Url::from_file_path(folder.path().join("store")).unwrap();
    let store = Store::open(&Config { faults: Some(script.clone()), ..Config::new(url) }).unwrap();
    let key = ObjectKey::Blob(Digest::sha256("hello"));
    store.put_bytes(&key, "hello").await.unwrap();

    std::fs::write(&script, r#"{"fail_percent": 100}"#).unwrap();
    let error = store.get_bytes(&key, 10).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_not_found(), "{error}");
    let other = ObjectKey::Blob(Digest::sha256("other"));
    assert!(store.put_bytes(&other, "other").await.unwrap_err().is_retryable());
    assert!(store.delete(&key).await.unwrap_err().is_retryable());

    std::fs::remove_file(&script).unwrap();
    assert_eq!(store.get_bytes(&key, 10).await.unwrap(), "hello");
    assert!(!store.exists(&other).await.unwrap(), "what failed had no effect");
}
