//! Pushing blobs: in one request, in chunks, by mount.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use slipway_blobstore::ObjectKey;
use slipway_oci::{Algorithm, Digest};
use slipway_registry::Limits;

use crate::harness::{ALICE, Server, error, header, large, location, repository};

#[tokio::test]
async fn one_post_with_a_digest_is_a_whole_push() {
    let server = Server::start().await;
    let name = repository(1, "a/b");
    let digest = Digest::sha256("hello");
    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let answer = server.alice(Method::POST, &path).body("hello").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(location(&answer), format!("/v2/{name}/blobs/{digest}"));
    let get = server.alice(Method::GET, &location(&answer)).send().await.unwrap();
    assert_eq!(get.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn chunks_add_up_to_a_blob() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let content = large();
    let upload = server.begin(&name).await;
    let mut sent = 0;
    for end in [7, 3_000_000, content.len() - 1] {
        let chunk = content.slice(sent..end);
        let range = format!("{sent}-{}", end - 1);
        let request = server.alice(Method::PATCH, &upload).header("content-range", range);
        let answer = request.body(chunk).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert_eq!(header(&answer, "range"), format!("0-{}", end - 1));
        assert_eq!(location(&answer), upload);
        sent = end;
    }
    let status = server.alice(Method::GET, &upload).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    assert_eq!(header(&status, "range"), format!("0-{}", sent - 1));

    let digest = Digest::sha256(&content);
    let put = server.alice(Method::PUT, &format!("{upload}?digest={digest}"));
    let answer = put.body(content.slice(sent..)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let get = server.alice(Method::GET, &location(&answer)).send().await.unwrap();
    assert!(get.bytes().await.unwrap() == content);
    let gone = server.alice(Method::GET, &upload).send().await.unwrap();
    assert_eq!(error(gone).await.1, "BLOB_UPLOAD_UNKNOWN");
    let link = ObjectKey::BlobLink { repository: name.parse().unwrap(), digest };
    server.assert_only(&[ObjectKey::Blob(digest), link]).await;
}

#[tokio::test]
async fn a_chunk_out_of_order_says_where_to_go_on() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    let patch = |range: &'static str, body: &'static str| {
        server.alice(Method::PATCH, &upload).header("content-range", range).body(body).send()
    };
    assert_eq!(patch("0-4", "01234").await.unwrap().status(), StatusCode::ACCEPTED);
    let answer = patch("7-9", "789").await.unwrap();
    assert_eq!(header(&answer, "range"), "0-4");
    assert_eq!(location(&answer), upload);
    assert_eq!(error(answer).await, (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID".into()));
    assert_eq!(patch("5-9", "56789").await.unwrap().status(), StatusCode::ACCEPTED);
    let put = format!("{upload}?digest={}", Digest::sha256("0123456789"));
    let answer = server.alice(Method::PUT, &put).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_chunk_that_is_not_what_its_range_says_is_not_taken() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    for range in ["1-5", "0-9", "4-0", "x", "-", "18446744073709551615-18446744073709551615"] {
        for (method, path) in [
            (Method::PATCH, upload.clone()),
            (Method::PUT, format!("{upload}?digest={}", Digest::sha256("01234"))),
        ] {
            let request = server.alice(method, &path).header("content-range", range).body("01234");
            let answer = request.send().await.unwrap();
            let expected = (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID".to_owned());
            assert_eq!(error(answer).await, expected, "{range} {path}");
        }
    }
    let put = server.alice(Method::PUT, &format!("{upload}?digest={}", Digest::sha256("01234")));
    let answer = put.header("content-range", "0-4").body("01234").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_client_is_told_what_chunks_are_worth_a_request() {
    let server = Server::start().await;
    let path = format!("/v2/{}/blobs/uploads/", repository(1, "a"));
    let begun = server.alice(Method::POST, &path).send().await.unwrap();
    assert_eq!(header(&begun, "oci-chunk-min-length"), (1024 * 1024).to_string());
    let head = server.alice(Method::HEAD, &location(&begun)).send().await.unwrap();
    assert_eq!((head.status(), header(&head, "range").as_str()), (StatusCode::NO_CONTENT, "0-0"));
}

#[tokio::test]
async fn a_digest_of_the_other_algorithm_is_verified_too() {
    let server = Server::start().await;
    let name = repository(1, "a");
    for query in ["", "?digest-algorithm=sha512"] {
        for content in [bytes::Bytes::from(format!("small {query}")), large()] {
            let path = format!("/v2/{name}/blobs/uploads/{query}");
            let begun = server.alice(Method::POST, &path).send().await.unwrap();
            let upload = location(&begun);
            let patch = server.alice(Method::PATCH, &upload).body(content.clone());
            assert_eq!(patch.send().await.unwrap().status(), StatusCode::ACCEPTED);
            let digest = Digest::of(Algorithm::Sha512, &content);
            let put = server.alice(Method::PUT, &format!("{upload}?digest={digest}"));
            let answer = put.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            let get = server.alice(Method::GET, &location(&answer)).send().await.unwrap();
            assert!(get.bytes().await.unwrap() == content);
        }
    }
    assert!(!server.stored_keys().await.iter().any(|key| matches!(key, ObjectKey::Upload(_))));
}

#[tokio::test]
async fn a_cancelled_upload_leaves_nothing() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    let patch = server.alice(Method::PATCH, &upload).body(large());
    assert_eq!(patch.send().await.unwrap().status(), StatusCode::ACCEPTED);
    let answer = server.alice(Method::DELETE, &upload).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let again = server.alice(Method::DELETE, &upload).send().await.unwrap();
    assert_eq!(error(again).await, (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN".into()));
    server.assert_only(&[]).await;
}

#[tokio::test]
async fn a_resting_upload_is_dropped_with_what_it_wrote() {
    let limits = Limits { upload_idle: Duration::ZERO, ..Limits::default() };
    let server = Server::with(limits).await;
    let upload = server.begin(&repository(1, "a")).await;
    let patch = server.alice(Method::PATCH, &upload).body(large());
    assert_eq!(patch.send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert_eq!(server.registry.expire_uploads().await, 1);
    let gone = server.alice(Method::PATCH, &upload).body("x").send().await.unwrap();
    assert_eq!(error(gone).await.1, "BLOB_UPLOAD_UNKNOWN");
    server.assert_only(&[]).await;
}

#[tokio::test]
async fn closing_the_registry_drops_open_uploads() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    let patch = server.alice(Method::PATCH, &upload).body(large());
    assert_eq!(patch.send().await.unwrap().status(), StatusCode::ACCEPTED);
    server.registry.close().await;
    server.assert_only(&[]).await;
}

#[tokio::test]
async fn a_blob_is_mounted_from_another_repository_of_its_organization() {
    let server = Server::start().await;
    let (source, target) = (repository(1, "source"), repository(1, "target"));
    let digest = server.push(ALICE, &source, "hello").await;
    let before = server.counts();
    let path = format!("/v2/{target}/blobs/uploads/?mount={digest}&from={source}");
    let answer = server.alice(Method::POST, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
    let get = server.alice(Method::GET, &location(&answer)).send().await.unwrap();
    assert_eq!(get.text().await.unwrap(), "hello");
    let after = server.counts();
    assert_eq!(after.bytes_received, before.bytes_received);
    assert_eq!(after.blobs_mounted, 1);
}

#[tokio::test]
async fn a_mount_that_cannot_be_becomes_an_upload() {
    let server = Server::start().await;
    let name = repository(1, "target");
    let digest = Digest::sha256("hello");
    for from in [repository(1, "empty"), "library/debian".into(), "..".into()] {
        let path = format!("/v2/{name}/blobs/uploads/?mount={digest}&from={from}");
        let answer = server.alice(Method::POST, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{from}");
        let put = format!("{}?digest={digest}", location(&answer));
        let put = server.alice(Method::PUT, &put).body("hello").send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }
}

#[tokio::test]
async fn two_pushes_of_one_blob_at_once_both_succeed() {
    let server = Server::start().await;
    let content = large();
    let (one, two) = (repository(1, "one"), repository(1, "two"));
    let pushes = (0..3).flat_map(|_| {
        [server.push(ALICE, &one, content.clone()), server.push(ALICE, &two, content.clone())]
    });
    let digests = futures::future::join_all(pushes).await;
    assert_eq!(digests, [Digest::sha256(&content); 6]);
    let link =
        |name: &str| ObjectKey::BlobLink { repository: name.parse().unwrap(), digest: digests[0] };
    server.assert_only(&[ObjectKey::Blob(digests[0]), link(&one), link(&two)]).await;
}

#[tokio::test]
async fn a_second_push_finds_its_blobs_and_sends_none() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    server.push_image(&name, "v1").await;
    let before = server.counts();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#;
    let digest = Digest::sha256(config);
    let path = format!("/v2/{name}/blobs/{digest}");
    let head = server.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(server.counts(), before, "looking costs nothing");
}
