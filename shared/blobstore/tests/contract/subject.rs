//! The stores under test, and a look behind them for what was left over.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use slipway_blobstore::{Config, ObjectKey, Store};
use slipway_oci::Digest;
use tempfile::TempDir;
use url::Url;
use uuid::Uuid;

/// Larger than three parts of any store, and no multiple of one.
pub const LARGE: usize = 26 * 1024 * 1024 + 7;

pub struct Subject {
    pub store: Store,
    backstage: Backstage,
}

enum Backstage {
    Memory,
    Folder(TempDir),
    S3 { bucket: String },
}

impl Subject {
    pub fn memory() -> Self {
        Self { store: Store::in_memory(), backstage: Backstage::Memory }
    }

    pub fn folder() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = Url::from_file_path(folder.path()).unwrap();
        let store = Store::open(&Config::new(url)).unwrap();
        Self { store, backstage: Backstage::Folder(folder) }
    }

    /// A new bucket on the server that `SLIPWAY_TEST_S3` names.
    pub async fn s3() -> Self {
        let endpoint = std::env::var("SLIPWAY_TEST_S3").expect(
            "SLIPWAY_TEST_S3 must be the address of an S3 server such as moto's, with \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set; `make test` starts one",
        );
        let name = format!("contract-{}", Uuid::new_v4());
        let bucket = format!("{}/{name}", endpoint.trim_end_matches('/'));
        let made = reqwest::Client::new().put(&bucket).send().await.unwrap();
        assert!(made.status().is_success(), "bucket: {}", made.text().await.unwrap());
        let config = Config {
            url: format!("s3://{name}/some/prefix").parse().unwrap(),
            endpoint: Some(endpoint.parse().unwrap()),
            region: Some("us-east-1".to_owned()),
            allow_http: true,
            faults: None,
        };
        let store = Store::open(&config).unwrap();
        Self { store, backstage: Backstage::S3 { bucket } }
    }

    pub fn is_s3(&self) -> bool {
        matches!(self.backstage, Backstage::S3 { .. })
    }

    /// Waits until no upload is left unfinished behind the scenes; what is
    /// dropped is cleared away in the background.
    pub async fn assert_nothing_unfinished(&self) {
        let mut left = self.unfinished().await;
        for _ in 0..200 {
            if left.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
            left = self.unfinished().await;
        }
        panic!("left over: {left:?}");
    }

    pub async fn unfinished(&self) -> Vec<String> {
        match &self.backstage {
            Backstage::Memory => Vec::new(),
            Backstage::Folder(folder) => {
                let mut names = Vec::new();
                files(folder.path(), &mut names);
                names.retain(|name| name.contains('#'));
                names
            }
            Backstage::S3 { bucket } => {
                let answer = reqwest::get(format!("{bucket}?uploads")).await.unwrap();
                let text = answer.text().await.unwrap();
                assert!(text.contains("ListMultipartUploadsResult"), "{text}");
                text.match_indices("<UploadId>").map(|(at, _)| text[at..].to_owned()).collect()
            }
        }
    }

    /// Asserts that neither the key nor anything unfinished is there.
    pub async fn assert_no_trace(&self, key: &ObjectKey) {
        assert!(!self.store.exists(key).await.unwrap());
        self.assert_nothing_unfinished().await;
    }
}

fn files(folder: &std::path::Path, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, names);
        } else {
            names.push(path.display().to_string());
        }
    }
}

/// Bytes that do not repeat with the size of a part.
pub fn content(size: usize) -> Bytes {
    (0..size).map(|at| (at % 251 + at / 65_521) as u8).collect()
}

pub fn blob(content: &[u8]) -> ObjectKey {
    ObjectKey::Blob(Digest::sha256(content))
}

/// The content in chunks of varying size, as a network brings it.
pub fn chunks(
    content: &Bytes,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static {
    let sizes = [1, 300_000, 17, 65_536, 4_000_000, 5];
    let mut rest = content.clone();
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        chunks.push(Ok(rest.split_to((*size).min(rest.len()))));
    }
    stream::iter(chunks)
}
