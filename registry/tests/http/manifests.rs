//! Manifests: stored as they are, and only when complete.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_oci::{Algorithm, Descriptor, Digest, MediaType, Platform};
use slipway_registry::ManifestReader;

use crate::harness::{
    ALICE, OCI_INDEX, OCI_MANIFEST, Server, error, header, location, manifest, repository,
};

#[tokio::test]
async fn a_manifest_comes_back_as_it_was_sent() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    let image = server.push_image(&name, "v1").await;
    for reference in ["v1".to_owned(), image.digest.to_string()] {
        let path = format!("/v2/{name}/manifests/{reference}");
        for method in [Method::HEAD, Method::GET] {
            let answer = server.alice(method.clone(), &path).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(header(&answer, "content-type"), OCI_MANIFEST);
            assert_eq!(header(&answer, "content-length"), image.size.to_string());
            assert_eq!(header(&answer, "docker-content-digest"), image.digest.to_string());
            if method == Method::GET {
                let bytes = answer.bytes().await.unwrap();
                assert_eq!(Digest::sha256(bytes), image.digest);
            }
        }
    }
    let reader = ManifestReader::new(server.store.clone());
    let read = reader.image(&image.digest, &Platform::linux_amd64()).await.unwrap();
    assert_eq!(read.digest, image.digest);
}

#[tokio::test]
async fn a_push_by_digest_makes_no_tag() {
    let server = Server::start().await;
    let name = repository(1, "snapshots");
    server.push(ALICE, &name, "{}").await;
    server.push(ALICE, &name, "layer").await;
    let manifest = manifest(b"{}", b"layer");
    let bytes = serde_json::to_vec(&manifest).unwrap();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let digest = Digest::of(algorithm, &bytes).to_string();
        let answer = server.put_manifest(&name, &digest, OCI_MANIFEST, &manifest).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(header(&answer, "docker-content-digest"), digest);
        let get = server.alice(Method::GET, &location(&answer)).send().await.unwrap();
        assert_eq!(get.bytes().await.unwrap(), bytes);
    }
    let tags = server.alice(Method::GET, &format!("/v2/{name}/tags/list")).send().await.unwrap();
    let tags: Value = tags.json().await.unwrap();
    assert_eq!(tags, json!({ "name": name, "tags": [] }));

    let wrong = Digest::sha256("other").to_string();
    let answer = server.put_manifest(&name, &wrong, OCI_MANIFEST, &manifest).await;
    assert_eq!(error(answer).await, (StatusCode::BAD_REQUEST, "DIGEST_INVALID".into()));
}

#[tokio::test]
async fn a_manifest_needs_its_blobs_in_its_own_repository() {
    let server = Server::start().await;
    let (name, other) = (repository(1, "a"), repository(1, "b"));
    server.push(ALICE, &name, "{}").await;
    server.push(ALICE, &other, "layer").await;
    let manifest = manifest(b"{}", b"layer");
    let answer = server.put_manifest(&name, "v1", OCI_MANIFEST, &manifest).await;
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["errors"][0]["code"], "MANIFEST_BLOB_UNKNOWN");
    assert_eq!(body["errors"][0]["detail"]["missing"], json!([Digest::sha256("layer")]));
    let get = server.alice(Method::GET, &format!("/v2/{name}/manifests/v1"));
    assert_eq!(get.send().await.unwrap().status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_manifest_that_lies_or_is_none_is_refused() {
    let server = Server::start().await;
    let name = repository(1, "a");
    server.push(ALICE, &name, "{}").await;
    server.push(ALICE, &name, "layer").await;
    let good = manifest(b"{}", b"layer");
    let mut size = good.clone();
    size["layers"][0]["size"] = json!(6);
    let mut both = good.clone();
    both["manifests"] = json!([]);
    let schema1 = json!({ "schemaVersion": 1, "fsLayers": [] });
    let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let cases = [
        (OCI_MANIFEST, &size),
        (OCI_MANIFEST, &both),
        (OCI_INDEX, &good),
        ("text/html", &good),
        (signed, &schema1),
        (OCI_MANIFEST, &schema1),
    ];
    for (media_type, manifest) in cases {
        let answer = server.put_manifest(&name, "v1", media_type, manifest).await;
        let expected = (StatusCode::BAD_REQUEST, "MANIFEST_INVALID".to_owned());
        assert_eq!(error(answer).await, expected, "{media_type} {manifest}");
    }
    let mut huge = good.clone();
    huge["annotations"] = json!({ "a": "x".repeat(4 * 1024 * 1024) });
    let answer = server.put_manifest(&name, "v1", OCI_MANIFEST, &huge).await;
    assert_eq!(error(answer).await, (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID".into()));
    let answer = server.put_manifest(&name, "v1", OCI_MANIFEST, &good).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn an_index_needs_its_manifests() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let missing = Descriptor::new(MediaType::OciManifest, Digest::sha256("nowhere"), 7);
    let index = json!({ "schemaVersion": 2, "manifests": [missing] });
    let answer = server.put_manifest(&name, "v1", OCI_INDEX, &index).await;
    assert_eq!(error(answer).await, (StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN".into()));
    let image = server.push_image(&name, "image").await;
    let index = json!({ "schemaVersion": 2, "manifests": [image] });
    let answer = server.put_manifest(&name, "v1", OCI_INDEX, &index).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let get = server.alice(Method::GET, &format!("/v2/{name}/manifests/v1")).send().await.unwrap();
    assert_eq!(header(&get, "content-type"), OCI_INDEX);
}

/// BuildKit's build cache is an index whose members are blobs.
#[tokio::test]
async fn the_cache_of_buildkit_is_taken() {
    let server = Server::start().await;
    let name = repository(1, "cache");
    server.push(ALICE, &name, "layer").await;
    server.push(ALICE, &name, "cache config").await;
    let config = MediaType::from("application/vnd.buildkit.cacheconfig.v0");
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
        Descriptor::of(MediaType::OciLayerGzip, b"layer"),
        Descriptor::of(config, b"cache config"),
    ] });
    let answer = server.put_manifest(&name, "main", OCI_INDEX, &index).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[tokio::test]
async fn a_tag_moves_and_the_old_manifest_stays() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let first = server.push_image(&name, "v1").await;
    let second = server.push_image(&name, "v2").await;
    let path = format!("/v2/{name}/manifests/{}", second.digest);
    let bytes = server.alice(Method::GET, &path).send().await.unwrap().bytes().await.unwrap();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap();
    server.put_manifest(&name, "v1", OCI_MANIFEST, &manifest).await;
    let head = |reference: String| {
        server.alice(Method::HEAD, &format!("/v2/{name}/manifests/{reference}")).send()
    };
    let now = head("v1".into()).await.unwrap();
    assert_eq!(header(&now, "docker-content-digest"), second.digest.to_string());
    assert_eq!(head(first.digest.to_string()).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn tags_are_listed_in_order_and_by_page() {
    let server = Server::start().await;
    let name = repository(1, "a");
    for tag in ["v2", "v1", "a", "v10"] {
        server.push_image(&name, tag).await;
    }
    server.push_image(&repository(1, "a/below"), "other").await;
    let mut path = Some(format!("/v2/{name}/tags/list?n=3"));
    let mut pages = Vec::new();
    while let Some(next) = path {
        let answer = server.alice(Method::GET, &next).send().await.unwrap();
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        path = link.map(|link| {
            let (url, relation) = link.split_once('>').unwrap();
            assert_eq!(relation, "; rel=\"next\"");
            url[1..].to_owned()
        });
        let body: Value = answer.json().await.unwrap();
        pages.push(body["tags"].clone());
    }
    assert_eq!(pages, [json!(["a", "v1", "v10"]), json!(["v2"])]);
}
