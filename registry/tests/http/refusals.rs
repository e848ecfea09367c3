//! Content that is not what it claims to be leaves no trace.

use std::time::Duration;

use futures::stream;
use reqwest::{Body, Method, StatusCode};
use slipway_blobstore::ObjectKey;
use slipway_oci::Digest;
use slipway_registry::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ALICE, Server, error, header, large, repository};

#[tokio::test]
async fn a_wrong_digest_is_refused_however_it_arrives() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let claimed = Digest::sha256("something else");
    let bad = (StatusCode::BAD_REQUEST, "DIGEST_INVALID".to_owned());
    for content in [bytes::Bytes::from("small"), large()] {
        let post = format!("/v2/{name}/blobs/uploads/?digest={claimed}");
        let answer = server.alice(Method::POST, &post).body(content.clone()).send().await.unwrap();
        assert_eq!(error(answer).await, bad);

        let put = format!("{}?digest={claimed}", server.begin(&name).await);
        let answer = server.alice(Method::PUT, &put).body(content.clone()).send().await.unwrap();
        assert_eq!(error(answer).await, bad);

        let upload = server.begin(&name).await;
        let patch = server.alice(Method::PATCH, &upload).body(content);
        assert_eq!(patch.send().await.unwrap().status(), StatusCode::ACCEPTED);
        let put = format!("{upload}?digest={claimed}");
        let answer = server.alice(Method::PUT, &put).send().await.unwrap();
        assert_eq!(error(answer).await, bad);
    }
    assert_eq!(server.counts().uploads_refused, 6);
    assert_eq!(server.counts().blobs_received, 0);
    server.assert_only(&[]).await;
}

#[tokio::test]
async fn a_commit_without_a_digest_is_refused() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    for query in ["", "?digest=", "?digest=sha256:abc"] {
        let put = server.alice(Method::PUT, &format!("{upload}{query}")).body("x");
        let answer = put.send().await.unwrap();
        assert_eq!(error(answer).await, (StatusCode::BAD_REQUEST, "DIGEST_INVALID".into()));
    }
}

/// The client promises more than it sends, and hangs up.
#[tokio::test]
async fn a_truncated_body_leaves_nothing() {
    let server = Server::start().await;
    let name = repository(1, "a");
    for content in [bytes::Bytes::from("small"), large()] {
        let digest = Digest::sha256(&content);
        let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let mut stream = connect(&server, "POST", &path, content.len() + 1).await;
        let before = server.counts().bytes_received;
        stream.write_all(&content).await.unwrap();
        server.await_bytes(before + content.len() as u64).await;
        drop(stream);
        server.assert_only(&[]).await;
        let head = format!("/v2/{name}/blobs/{digest}");
        let answer = server.alice(Method::HEAD, &head).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
    server.assert_only(&[]).await;
    assert_eq!(server.counts().blobs_received, 0);
}

/// The whole content is there, so that its digest would fit, but the request
/// never ended.
#[tokio::test]
async fn a_body_of_unknown_length_must_end_properly() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let digest = Digest::sha256("hello");
    let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let head = request_head(&server, "POST", &path, "transfer-encoding: chunked");
    stream.write_all(format!("{head}5\r\nhello\r\n").as_bytes()).await.unwrap();
    server.await_bytes(5).await;
    drop(stream);
    server.assert_only(&[]).await;

    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(format!("{head}5\r\nhello\r\n0\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_ends() {
    let limits = Limits { blob_size: 1_000_000, ..Limits::default() };
    let server = Server::with(limits).await;
    let name = repository(1, "a");
    let digest = Digest::sha256("x");
    let endless =
        || Body::wrap_stream(stream::repeat_with(|| Ok::<_, std::io::Error>(vec![7; 65_536])));
    let upload = server.begin(&name).await;
    let paths = [
        (Method::POST, format!("/v2/{name}/blobs/uploads/?digest={digest}")),
        (Method::PUT, format!("{}?digest={digest}", server.begin(&name).await)),
        (Method::PATCH, upload),
    ];
    for (method, path) in paths {
        // The connection may be closed under a client that goes on sending;
        // what counts is that it ends.
        let sent = server.alice(method, &path).body(endless()).send();
        let answer = tokio::time::timeout(Duration::from_secs(20), sent).await.unwrap();
        assert!(answer.is_err() || answer.unwrap().status().is_client_error(), "{path}");
    }
    let promised =
        server.alice(Method::POST, &format!("/v2/{name}/blobs/uploads/?digest={digest}"));
    let answer = promised.body(vec![0; 1_000_001]).send().await.unwrap();
    assert_eq!(error(answer).await, (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID".into()));
    server.registry.close().await;
    server.assert_only(&[]).await;
}

/// After a cut connection, the client asks how far it came and goes on.
#[tokio::test]
async fn a_cut_chunk_is_resumed_where_it_broke_off() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let content = large();
    let upload = server.begin(&name).await;
    let mut stream = connect(&server, "PATCH", &upload, content.len()).await;
    stream.write_all(&content[..3_000_000]).await.unwrap();
    server.await_bytes(3_000_000).await;
    drop(stream);

    let status = server.alice(Method::GET, &upload).send().await.unwrap();
    assert_eq!(status.status(), StatusCode::NO_CONTENT);
    let range = header(&status, "range");
    let offset: usize = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    let rest = content.slice(offset..);
    let digest = Digest::sha256(&content);
    let range = format!("{offset}-{}", content.len() - 1);
    let put = server.alice(Method::PUT, &format!("{upload}?digest={digest}"));
    let answer = put.header("content-range", range).body(rest).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let link = ObjectKey::BlobLink { repository: name.parse().unwrap(), digest };
    server.assert_only(&[ObjectKey::Blob(digest), link]).await;
}

/// The pool has the blob already; a liar still gets nothing for its digest.
#[tokio::test]
async fn a_known_digest_must_still_be_proven() {
    let server = Server::start().await;
    let digest = server.push(ALICE, &repository(1, "a"), "hello").await;
    let name = repository(1, "b");
    let post = format!("/v2/{name}/blobs/uploads/?digest={digest}");
    for body in ["jello", "hell", ""] {
        let answer = server.alice(Method::POST, &post).body(body).send().await.unwrap();
        assert_eq!(error(answer).await.0, StatusCode::BAD_REQUEST);
    }
    let head = server.alice(Method::HEAD, &format!("/v2/{name}/blobs/{digest}"));
    assert_eq!(head.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let answer = server.alice(Method::POST, &post).body("hello").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

async fn connect(server: &Server, method: &str, path: &str, length: usize) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let length = format!("content-length: {length}");
    let head = request_head(server, method, path, &length);
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

fn request_head(server: &Server, method: &str, path: &str, length: &str) -> String {
    let host = &server.address;
    format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {ALICE}\r\n{length}\r\n\r\n"
    )
}
