//! Deletion: what a repository has no more, and what others keep.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_oci::Digest;
use slipway_registry::{Access, Scope};

use crate::harness::{
    ALICE, OCI_INDEX, OCI_MANIFEST, Server, error, full_access, manifest, repository,
};

async fn delete(server: &Server, path: &str) -> (StatusCode, String) {
    let answer = server.alice(Method::DELETE, path).send().await.unwrap();
    match answer.status() {
        StatusCode::ACCEPTED => (StatusCode::ACCEPTED, String::new()),
        _ => error(answer).await,
    }
}

fn accepted() -> (StatusCode, String) {
    (StatusCode::ACCEPTED, String::new())
}

async fn tags(server: &Server, name: &str) -> Value {
    let path = format!("/v2/{name}/tags/list");
    let list: Value = server.alice(Method::GET, &path).send().await.unwrap().json().await.unwrap();
    list["tags"].clone()
}

#[tokio::test]
async fn a_deleted_tag_leaves_its_manifest() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let image = server.push_image(&name, "v1").await;
    assert_eq!(delete(&server, &format!("/v2/{name}/manifests/v1")).await, accepted());
    let unknown = (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN".to_owned());
    assert_eq!(delete(&server, &format!("/v2/{name}/manifests/v1")).await, unknown);
    let head = server.alice(Method::HEAD, &format!("/v2/{name}/manifests/v1")).send().await;
    assert_eq!(head.unwrap().status(), StatusCode::NOT_FOUND);
    let by_digest = format!("/v2/{name}/manifests/{}", image.digest);
    let head = server.alice(Method::HEAD, &by_digest).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(tags(&server, &name).await, json!([]));
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_along_and_comes_back_without_them() {
    let server = Server::start().await;
    let name = repository(1, "a");
    server.push(ALICE, &name, "{}").await;
    server.push(ALICE, &name, "layer").await;
    let image = manifest(b"{}", b"layer");
    for tag in ["v1", "v2"] {
        let put = server.put_manifest(&name, tag, OCI_MANIFEST, &image).await;
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    let index = json!({ "schemaVersion": 2, "manifests": [] });
    server.put_manifest(&name, "other", OCI_INDEX, &index).await;
    let digest = Digest::sha256(serde_json::to_vec(&image).unwrap());
    let path = format!("/v2/{name}/manifests/{digest}");
    assert_eq!(delete(&server, &path).await, accepted());
    assert_eq!(delete(&server, &path).await.1, "MANIFEST_UNKNOWN");
    for reference in ["v1", "v2", &digest.to_string()] {
        let path = format!("/v2/{name}/manifests/{reference}");
        let get = server.alice(Method::GET, &path).send().await.unwrap();
        assert_eq!(error(get).await.1, "MANIFEST_UNKNOWN");
    }
    assert_eq!(tags(&server, &name).await, json!(["other"]));

    let put = server.put_manifest(&name, "v3", OCI_MANIFEST, &image).await;
    assert_eq!(put.status(), StatusCode::CREATED);
    assert_eq!(tags(&server, &name).await, json!(["other", "v3"]));
}

#[tokio::test]
async fn a_deleted_blob_is_gone_from_its_repository_alone() {
    let server = Server::start().await;
    let (one, two) = (repository(1, "one"), repository(1, "two"));
    let digest = server.push(ALICE, &one, "layer").await;
    server.push(ALICE, &two, "layer").await;
    server.push(ALICE, &one, "{}").await;
    let path = format!("/v2/{one}/blobs/{digest}");
    assert_eq!(delete(&server, &path).await, accepted());
    assert_eq!(delete(&server, &path).await, (StatusCode::NOT_FOUND, "BLOB_UNKNOWN".into()));
    let head = server.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    let other = server.alice(Method::GET, &format!("/v2/{two}/blobs/{digest}"));
    assert_eq!(other.send().await.unwrap().text().await.unwrap(), "layer");

    // A manifest that needs it is refused until it is sent again.
    let image = manifest(b"{}", b"layer");
    let put = server.put_manifest(&one, "v1", OCI_MANIFEST, &image).await;
    assert_eq!(error(put).await.1, "MANIFEST_BLOB_UNKNOWN");
    server.push(ALICE, &one, "layer").await;
    let put = server.put_manifest(&one, "v1", OCI_MANIFEST, &image).await;
    assert_eq!(put.status(), StatusCode::CREATED);
}

/// Two processes of a region share the store, not what they remember.
#[tokio::test]
async fn a_manifest_does_not_rest_on_a_blob_that_another_process_deleted() {
    let server = Server::start().await;
    let name = repository(1, "a");
    server.push(ALICE, &name, "{}").await;
    let layer = server.push(ALICE, &name, "layer").await;
    let link =
        slipway_blobstore::ObjectKey::BlobLink { repository: name.parse().unwrap(), digest: layer };
    server.store.delete(&link).await.unwrap();
    let put = server.put_manifest(&name, "v1", OCI_MANIFEST, &manifest(b"{}", b"layer")).await;
    assert_eq!(error(put).await.1, "MANIFEST_BLOB_UNKNOWN");
    let head = server.alice(Method::HEAD, &format!("/v2/{name}/blobs/{layer}")).send().await;
    assert_eq!(head.unwrap().status(), StatusCode::NOT_FOUND, "the client learns what to send");
}

#[tokio::test]
async fn only_who_may_push_may_delete() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let image = server.push_image(&name, "v1").await;
    let reader = server.authorizer.grant(Access { push: Scope::Nothing, ..full_access(1) });
    let reader = secrecy::ExposeSecret::expose_secret(reader.secret()).to_owned();
    let blob = Digest::sha256(format!("layer of {name} v1"));
    let paths = [
        format!("/v2/{name}/manifests/v1"),
        format!("/v2/{name}/manifests/{}", image.digest),
        format!("/v2/{name}/blobs/{blob}"),
    ];
    for path in &paths {
        let bobs = server.bob(Method::DELETE, path).send().await.unwrap();
        assert_eq!(error(bobs).await, (StatusCode::FORBIDDEN, "DENIED".into()));
        let answer = server.request(&reader, Method::DELETE, path).send().await.unwrap();
        assert!(answer.status().is_client_error());
        let head = server.alice(Method::HEAD, path).send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn pushes_and_deletions_at_once_leave_a_repository_whole() {
    let server = Server::start().await;
    let name = repository(1, "a");
    server.push(ALICE, &name, "{}").await;
    server.push(ALICE, &name, "layer").await;
    let image = manifest(b"{}", b"layer");
    let digest = Digest::sha256(serde_json::to_vec(&image).unwrap());
    let path = format!("/v2/{name}/manifests/{digest}");
    let push = async |number: usize| {
        let tag = format!("v{number}");
        let put = server.put_manifest(&name, &tag, OCI_MANIFEST, &image).await;
        assert_eq!(put.status(), StatusCode::CREATED);
    };
    let remove = async || {
        let status = delete(&server, &path).await.0;
        assert!(matches!(status, StatusCode::ACCEPTED | StatusCode::NOT_FOUND), "{status}");
    };
    let pushes = (0..10).map(push);
    let removals = (0..10).map(|_| remove());
    futures::join!(futures::future::join_all(pushes), futures::future::join_all(removals));
    // Whatever came last: every tag that is listed and answers is whole. If that
    // was a deletion there is no list, since nothing is left to know the name by.
    for tag in tags(&server, &name).await.as_array().into_iter().flatten() {
        let path = format!("/v2/{name}/manifests/{}", tag.as_str().unwrap());
        let get = server.alice(Method::GET, &path).send().await.unwrap();
        if get.status() == StatusCode::OK {
            assert_eq!(Digest::sha256(get.bytes().await.unwrap()), digest);
        }
    }
    push(100).await;
    let head = server.alice(Method::HEAD, &path).send().await.unwrap();
    assert_eq!(head.status(), StatusCode::OK);
}
