//! Blobs that clients fetch from the object store by themselves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use slipway_blobstore::{Config, Repository, Store};
use slipway_oci::Digest;
use slipway_registry::{Options, REDIRECT_TTL, UseObserver};
use uuid::Uuid;

use crate::harness::{ALICE, Server, header, large, location, repository};

/// Over a bucket of its own on the server that `SLIPWAY_TEST_S3` names.
async fn over_s3(options: Options) -> Server {
    let endpoint = std::env::var("SLIPWAY_TEST_S3").expect(
        "SLIPWAY_TEST_S3 must be the address of an S3 server such as moto's, with \
         AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY set; `make test` starts one",
    );
    let name = format!("registry-{}", Uuid::new_v4());
    let bucket = format!("{}/{name}", endpoint.trim_end_matches('/'));
    let made = reqwest::Client::new().put(&bucket).send().await.unwrap();
    assert!(made.status().is_success());
    let config = Config {
        endpoint: Some(endpoint.parse().unwrap()),
        region: Some("us-east-1".to_owned()),
        allow_http: true,
        faults: None,
        ..Config::new(format!("s3://{name}/some/prefix").parse().unwrap())
    };
    let store = Store::open(&config).unwrap();
    Server::over(store, tempfile::tempdir().unwrap(), options).await
}

fn redirecting(ttl: Duration) -> Options {
    Options { redirect_blobs: Some(ttl), ..Options::default() }
}

#[tokio::test]
async fn a_blob_in_a_bucket_is_fetched_from_there() {
    let server = over_s3(redirecting(REDIRECT_TTL)).await;
    let name = repository(1, "a");
    let content = large();
    let digest = server.push(ALICE, &name, content.clone()).await;
    let path = format!("/v2/{name}/blobs/{digest}");
    let client = reqwest::Client::builder().redirect(Policy::none()).build().unwrap();
    let request = client.get(server.url(&path)).bearer_auth(ALICE);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    let url = location(&answer);
    assert!(url.contains("X-Amz-Signature=") && url.contains("X-Amz-Expires=900"), "{url}");
    let part = client.get(&url).header("range", "bytes=3-5").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.bytes().await.unwrap(), content.slice(3..6));

    // What a client does by itself, and what stays with the registry.
    let followed = server.alice(Method::GET, &path).send().await.unwrap();
    assert!(followed.bytes().await.unwrap() == content);
    let head = server.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(header(&head, "content-length"), content.len().to_string());
    let counts = server.counts();
    assert_eq!((counts.blobs_redirected, counts.blobs_sent, counts.bytes_sent), (2, 0, 0));
}

#[tokio::test]
async fn nobody_is_redirected_to_what_is_not_theirs() {
    let server = over_s3(redirecting(REDIRECT_TTL)).await;
    let name = repository(1, "a");
    let digest = server.push(ALICE, &name, "hello").await;
    for path in
        [format!("/v2/{name}/blobs/{digest}"), format!("/v2/{}/blobs/{digest}", repository(2, "a"))]
    {
        let answer = server.bob(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let answer = server.anonymous(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(server.counts().blobs_redirected, 0);
}

#[tokio::test]
async fn a_blob_passes_through_unless_redirects_are_wanted_and_possible() {
    for server in [over_s3(Options::default()).await, Server::with(redirecting(REDIRECT_TTL)).await]
    {
        let name = repository(1, "a");
        let digest = server.push(ALICE, &name, "hello").await;
        let path = format!("/v2/{name}/blobs/{digest}");
        let get = server.alice(Method::GET, &path).send().await.unwrap();
        assert_eq!(get.text().await.unwrap(), "hello");
        let counts = server.counts();
        assert_eq!((counts.blobs_redirected, counts.blobs_sent), (0, 1));
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<(String, Digest)>>);

impl UseObserver for Seen {
    fn served(&self, repository: &Repository, digest: &Digest) {
        self.0.lock().unwrap().push((repository.to_string(), *digest));
    }
}

#[tokio::test]
async fn getting_a_manifest_is_a_use_and_looking_is_none() {
    let seen = Arc::new(Seen::default());
    let server = Server::with(Options { observer: Some(seen.clone()), ..Options::default() }).await;
    let name = repository(1, "a");
    let image = server.push_image(&name, "v1").await;
    let path = format!("/v2/{name}/manifests/v1");
    server.alice(Method::HEAD, &path).send().await.unwrap();
    server.bob(Method::GET, &path).send().await.unwrap();
    let picky = server.alice(Method::GET, &path).header("accept", "text/html").send().await;
    assert_eq!(picky.unwrap().status(), StatusCode::NOT_FOUND);
    assert!(seen.0.lock().unwrap().is_empty());
    server.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(*seen.0.lock().unwrap(), [(name, image.digest)]);
}
