//! A blob passes through in bounded memory. A file of its own, so that the
//! process measured does nothing else.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use slipway_blobstore::{Config, Store};
use slipway_domain::OrganizationId;
use slipway_oci::{Algorithm, DigestWriter};
use slipway_registry::{Access, Limits, Registry, Scope, StaticAuthorizer, router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

const CHUNK: usize = 1024 * 1024;
const CHUNKS: u8 = 250;
/// Client and server are one process, so this is for both.
const MOST: u64 = 100 * 1024 * 1024;

fn chunks() -> impl Iterator<Item = Bytes> {
    (0..CHUNKS).map(|fill| Bytes::from(vec![fill; CHUNK]))
}

#[tokio::test]
async fn a_large_blob_is_never_whole_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display()).parse().unwrap();
    let store = Store::open(&Config::new(url)).unwrap();
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    let access = Access { organization, pull: Scope::Everything, push: Scope::Everything };
    let authorizer = StaticAuthorizer::new();
    authorizer.insert(&"secret".into(), access);
    let registry = Registry::new(store, Arc::new(authorizer), Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router(registry)).await.unwrap() });

    let mut hash = DigestWriter::new(Algorithm::Sha256);
    chunks().for_each(|chunk| hash.update(&chunk));
    let (digest, size) = (hash.clone().finish(), hash.written());
    let repository = format!("http://{address}/v2/{organization}/a/blobs");
    let body = reqwest::Body::wrap_stream(stream::iter(chunks().map(Ok::<_, std::io::Error>)));
    let http = reqwest::Client::new();
    let push = http.post(format!("{repository}/uploads/?digest={digest}")).bearer_auth("secret");
    let push = push.header("content-length", size).body(body).send().await.unwrap();
    assert_eq!(push.status(), 201);

    let pull = http.get(format!("{repository}/{digest}")).bearer_auth("secret");
    let mut body = pull.send().await.unwrap().bytes_stream();
    let mut hash = DigestWriter::new(Algorithm::Sha256);
    while let Some(chunk) = body.next().await {
        hash.update(&chunk.unwrap());
    }
    assert_eq!((hash.written(), hash.finish()), (size, digest));
    let peak = peak_memory();
    assert!(peak < MOST, "{} MiB", peak / 1024 / 1024);
}

/// Greatest resident memory of this process, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}
