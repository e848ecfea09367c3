//! What belongs to somebody else does not exist, and cannot be found out.

use std::collections::BTreeSet;

use reqwest::{Method, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::Value;
use slipway_oci::Digest;
use slipway_registry::{Access, Scope};

use crate::harness::{
    ALICE, BOB, OCI_MANIFEST, Server, error, full_access, location, manifest, repository,
};

/// Everything of an answer that could tell two cases apart.
async fn observable(answer: Response) -> (StatusCode, Vec<String>, String) {
    let status = answer.status();
    let names = answer.headers().keys().map(ToString::to_string).collect();
    (status, names, answer.text().await.unwrap())
}

#[tokio::test]
async fn a_foreign_repository_looks_like_one_that_does_not_exist() {
    let server = Server::start().await;
    let image = server.push_image(&repository(1, "snapshots"), "v1").await;
    let blob = server.push(ALICE, &repository(1, "snapshots"), "hello").await;
    let paths = |name: &str| {
        [
            (Method::GET, format!("/v2/{name}/blobs/{blob}")),
            (Method::HEAD, format!("/v2/{name}/blobs/{blob}")),
            (Method::GET, format!("/v2/{name}/manifests/v1")),
            (Method::GET, format!("/v2/{name}/manifests/{}", image.digest)),
            (Method::GET, format!("/v2/{name}/tags/list")),
            (Method::POST, format!("/v2/{name}/blobs/uploads/")),
            (Method::PUT, format!("/v2/{name}/manifests/v1")),
            (Method::DELETE, format!("/v2/{name}/manifests/v1")),
        ]
    };
    let existing = paths(&repository(1, "snapshots"));
    let missing = paths(&repository(77, "nothing"));
    for ((method, there), (_, nowhere)) in existing.into_iter().zip(missing) {
        let there = server.bob(method.clone(), &there).send().await.unwrap();
        let nowhere = server.bob(method.clone(), &nowhere).send().await.unwrap();
        let expected = match method {
            Method::GET | Method::HEAD => StatusCode::NOT_FOUND,
            _ => StatusCode::FORBIDDEN,
        };
        assert_eq!(there.status(), expected);
        assert_eq!(observable(there).await, observable(nowhere).await);
    }
}

#[tokio::test]
async fn nothing_is_answered_without_credentials() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let blob = server.push(ALICE, &name, "hello").await;
    for (method, path) in [
        (Method::GET, format!("/v2/{name}/blobs/{blob}")),
        (Method::POST, format!("/v2/{name}/blobs/uploads/")),
        (Method::GET, "/v2/no/such/endpoint".into()),
        (Method::GET, "/v2/%ff/tags/list".into()),
    ] {
        let answer = server.anonymous(method, &path).send().await.unwrap();
        assert!(answer.headers().contains_key("www-authenticate"), "{path}");
        assert_eq!(error(answer).await, (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
    }
}

#[tokio::test]
async fn the_pool_tells_nobody_what_others_have() {
    let server = Server::start().await;
    let (config, layer) = (b"{}", b"private layer");
    for content in [&config[..], layer] {
        server.push(ALICE, &repository(1, "snapshots"), content).await;
    }
    let digest = Digest::sha256(layer);
    let bobs = repository(2, "mine");

    // Neither by looking, nor by mounting, nor by naming it in a manifest.
    let head = server.bob(Method::HEAD, &format!("/v2/{bobs}/blobs/{digest}"));
    assert_eq!(head.send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let from = repository(1, "snapshots");
    let mount = format!("/v2/{bobs}/blobs/uploads/?mount={digest}&from={from}");
    let mounted = server.bob(Method::POST, &mount).send().await.unwrap();
    assert_eq!(mounted.status(), StatusCode::ACCEPTED, "an ordinary upload begins");
    let body = serde_json::to_vec(&manifest(config, layer)).unwrap();
    let put = server.bob(Method::PUT, &format!("/v2/{bobs}/manifests/v1"));
    let put = put.header("content-type", OCI_MANIFEST).body(body.clone()).send().await.unwrap();
    assert_eq!(error(put).await, (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN".into()));

    // Who has the bytes may have the blob.
    server.push(BOB, &bobs, &config[..]).await;
    server.push(BOB, &bobs, &layer[..]).await;
    let put = server.bob(Method::PUT, &format!("/v2/{bobs}/manifests/v1"));
    let put = put.header("content-type", OCI_MANIFEST).body(body).send().await.unwrap();
    assert_eq!(put.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn an_upload_is_its_repositorys_alone() {
    let server = Server::start().await;
    let upload = server.begin(&repository(1, "a")).await;
    let id = upload.rsplit_once('/').unwrap().1;
    let elsewhere = format!("/v2/{}/blobs/uploads/{id}", repository(1, "b"));
    let answer = server.alice(Method::PATCH, &elsewhere).body("x").send().await.unwrap();
    assert_eq!(error(answer).await, (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN".into()));
    let bobs = format!("/v2/{}/blobs/uploads/{id}", repository(2, "a"));
    let answer = server.bob(Method::GET, &bobs).send().await.unwrap();
    assert_eq!(error(answer).await, (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN".into()));
    let stolen = server.bob(Method::DELETE, &upload).send().await.unwrap();
    assert_eq!(error(stolen).await, (StatusCode::FORBIDDEN, "DENIED".into()));
    let alive = server.alice(Method::GET, &upload).send().await.unwrap();
    assert_eq!(alive.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn scopes_bound_what_a_key_may_do() {
    let server = Server::start().await;
    let names = BTreeSet::from(["snapshots".parse().unwrap()]);
    let pull = Access { push: Scope::Nothing, ..full_access(1) };
    let push = Access { pull: Scope::Nothing, push: Scope::Repositories(names), ..full_access(1) };
    let (pull, push) = (server.authorizer.grant(pull), server.authorizer.grant(push));
    let (reader, writer) = (pull.secret().expose_secret(), push.secret().expose_secret());

    let uploads = |name: &str| format!("/v2/{}/blobs/uploads/", repository(1, name));
    let denied = server.request(reader, Method::POST, &uploads("snapshots")).send().await.unwrap();
    assert_eq!(error(denied).await, (StatusCode::FORBIDDEN, "DENIED".into()));
    let denied = server.request(writer, Method::POST, &uploads("other")).send().await.unwrap();
    assert_eq!(error(denied).await, (StatusCode::FORBIDDEN, "DENIED".into()));

    let digest = server.push(writer, &repository(1, "snapshots"), "hello").await;
    for secret in [reader, writer] {
        let path = format!("/v2/{}/blobs/{digest}", repository(1, "snapshots"));
        let get = server.request(secret, Method::GET, &path).send().await.unwrap();
        assert_eq!(get.text().await.unwrap(), "hello");
    }

    // A mount needs the right to read its source.
    server.push(ALICE, &repository(1, "other"), "other").await;
    let from = repository(1, "other");
    let mount = format!("{}?mount={}&from={from}", uploads("snapshots"), Digest::sha256("other"));
    let answer = server.request(writer, Method::POST, &mount).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert!(location(&answer).contains("/blobs/uploads/"));
}

#[tokio::test]
async fn a_grant_that_ended_opens_nothing() {
    let server = Server::start().await;
    let grant = server.authorizer.grant(full_access(1));
    let secret = grant.secret().expose_secret().to_owned();
    let ping = || server.request(&secret, Method::GET, "/v2/").send();
    assert_eq!(ping().await.unwrap().status(), StatusCode::OK);
    drop(grant);
    assert_eq!(ping().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_writer_with_a_malformed_name_is_told_its_form() {
    let server = Server::start().await;
    for name in ["snapshots", "library/debian"] {
        let path = format!("/v2/{name}/blobs/uploads/");
        let answer = server.alice(Method::POST, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["errors"][0]["code"], "NAME_INVALID");
        let message = body["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("<organization id>/<name>"));
    }
}
