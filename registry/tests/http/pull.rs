//! Reading: ping, blobs, ranges, and the forms of headers and errors.

use reqwest::{Method, StatusCode};
use slipway_oci::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{ALICE, Server, error, header, large, repository};

#[tokio::test]
async fn ping_demands_credentials_in_the_form_that_clients_know() {
    let server = Server::start().await;
    for path in ["/v2/", "/v2"] {
        let answer = server.anonymous(Method::GET, path).send().await.unwrap();
        assert!(header(&answer, "www-authenticate").starts_with("Basic realm="));
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
        assert_eq!(error(answer).await, (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
        let answer = server.alice(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "docker-distribution-api-version"), "registry/2.0");
        let bearer = server.anonymous(Method::GET, path).bearer_auth(ALICE);
        assert_eq!(bearer.send().await.unwrap().status(), StatusCode::OK);
        let wrong = server.request("wrong", Method::GET, path).send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_blob_comes_back_with_its_headers() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let content = large();
    let digest = server.push(ALICE, &name, content.clone()).await;
    let path = format!("/v2/{name}/blobs/{digest}");

    let head = server.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(&head, "content-length"), content.len().to_string());
    assert_eq!(header(&head, "docker-content-digest"), digest.to_string());
    assert_eq!(header(&head, "accept-ranges"), "bytes");

    let get = server.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(header(&get, "content-type"), "application/octet-stream");
    assert_eq!(header(&get, "content-length"), content.len().to_string());
    assert!(get.bytes().await.unwrap() == content);
    let counts = server.counts();
    assert_eq!((counts.blobs_sent, counts.bytes_sent), (1, content.len() as u64));
}

#[tokio::test]
async fn ranges_bring_parts_of_a_blob() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let digest = server.push(ALICE, &name, "0123456789").await;
    let path = format!("/v2/{name}/blobs/{digest}");
    let cases = [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=3-5", "345", "bytes 3-5/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
        ("bytes=8-99", "89", "bytes 8-9/10"),
    ];
    for (range, body, content_range) in cases {
        let request = server.alice(Method::GET, &path).header("range", range);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(header(&answer, "content-range"), content_range);
        assert_eq!(answer.text().await.unwrap(), body);
    }
    let beyond =
        server.alice(Method::GET, &path).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(header(&beyond, "content-range"), "bytes */10");
    assert_eq!(error(beyond).await, (StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID".into()));
    let several = server.alice(Method::GET, &path).header("range", "bytes=0-1,3-4");
    let several = several.send().await.unwrap();
    assert_eq!((several.status(), several.text().await.unwrap().len()), (StatusCode::OK, 10));
}

#[tokio::test]
async fn errors_have_the_codes_of_the_specification() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let digest = Digest::sha256("nobody has this");
    let cases = [
        (format!("/v2/{name}/blobs/{digest}"), 404, "BLOB_UNKNOWN"),
        (format!("/v2/{name}/blobs/sha256:abc"), 400, "DIGEST_INVALID"),
        (format!("/v2/{name}/blobs/md5:abc"), 400, "DIGEST_INVALID"),
        (format!("/v2/{name}/manifests/{digest}"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/{name}/manifests/v1"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/{name}/manifests/-x"), 404, "MANIFEST_UNKNOWN"),
        (format!("/v2/{name}/tags/list"), 404, "NAME_UNKNOWN"),
        (format!("/v2/snapshots/blobs/{digest}"), 404, "NAME_UNKNOWN"),
        (format!("/v2/{}/blobs/{digest}", repository(1, "Upper")), 404, "NAME_UNKNOWN"),
        (format!("/v2/{name}/referrers/sha256:abc"), 400, "DIGEST_INVALID"),
        (format!("/v2/{}/referrers/{digest}", repository(2, "a")), 404, "NAME_UNKNOWN"),
        ("/v2/_catalog".to_owned(), 404, "UNSUPPORTED"),
    ];
    for (path, status, code) in cases {
        let answer = server.alice(Method::GET, &path).send().await.unwrap();
        let (found, text) = error(answer).await;
        assert_eq!((found.as_u16(), text.as_str()), (status, code), "{path}");
    }
    for path in [format!("/v2/{name}/referrers/{digest}"), format!("/v2/{name}/tags/list")] {
        let answer = server.alice(Method::DELETE, &path).send().await.unwrap();
        let expected = (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED".to_owned());
        assert_eq!(error(answer).await, expected, "{path}");
    }
}

#[tokio::test]
async fn a_path_cannot_leave_the_repositories() {
    let server = Server::start().await;
    let secret = server.folder.path().join("secret");
    std::fs::write(&secret, "x").unwrap();
    let digest = Digest::sha256("x");
    let organization = repository(1, "");
    for path in [
        format!("/v2/{organization}..%2f..%2fsecret/blobs/{digest}"),
        format!("/v2/{organization}a/manifests/..%2f..%2f..%2fsecret"),
        format!("/v2/{organization}%00/manifests/v1"),
        format!("/v2/{organization}a/blobs/sha256:..%2fsecret"),
        format!("/v2/{organization}%ff/tags/list"),
    ] {
        let answer = server.alice(Method::GET, &path).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
    }
}

/// BuildKit tries HTTPS first and falls back on seeing an answer that begins
/// with `HTTP/`.
#[tokio::test]
async fn a_tls_probe_gets_an_http_answer_and_the_server_goes_on() {
    let server = Server::start().await;
    let mut probe = TcpStream::connect(&server.address).await.unwrap();
    let hello = [0x16, 0x03, 0x01, 0x00, 0x2f, 0x01, 0x00, 0x00, 0x2b, 0x03, 0x03];
    probe.write_all(&hello).await.unwrap();
    let mut answer = Vec::new();
    probe.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let ping = server.alice(Method::GET, "/v2/").send().await.unwrap();
    assert_eq!(ping.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_was_pushed_is_there_after_a_restart() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let manifest = server.push_image(&name, "v1").await;
    let again = slipway_registry::Registry::new(
        server.store.clone(),
        server.authorizer.clone(),
        slipway_registry::Limits::default(),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let routes = slipway_registry::router(again);
    tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let url = format!("http://{address}/v2/{name}/manifests/v1");
    let request = reqwest::Client::new().get(url).basic_auth("any", Some(ALICE));
    let answer = request.send().await.unwrap();
    assert_eq!(header(&answer, "docker-content-digest"), manifest.digest.to_string());
    assert_eq!(answer.bytes().await.unwrap().len() as u64, manifest.size);
}
