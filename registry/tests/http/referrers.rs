//! The list of what refers to a manifest.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_oci::{Descriptor, Digest, MediaType};

use crate::harness::{ALICE, OCI_INDEX, OCI_MANIFEST, Server, error, header, repository};

const SBOM: &str = "application/vnd.example.sbom.v1";

/// A manifest without layers that refers to `subject`.
fn artifact(subject: &Digest, kind: Option<&str>, remark: &str) -> Value {
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor::of(MediaType::OciEmpty, b"{}"),
        "layers": [],
        "subject": Descriptor::new(MediaType::OciManifest, *subject, 7),
        "annotations": { "remark": remark },
    });
    if let Some(kind) = kind {
        manifest["artifactType"] = json!(kind);
    }
    manifest
}

async fn attach(server: &Server, name: &str, manifest: &Value) -> Digest {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let digest = Digest::sha256(bytes);
    let media_type = manifest["mediaType"].as_str().unwrap();
    let answer = server.put_manifest(name, &digest.to_string(), media_type, manifest).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let subject = manifest["subject"]["digest"].as_str().unwrap();
    assert_eq!(header(&answer, "oci-subject"), subject);
    digest
}

async fn list(server: &Server, path: &str) -> Vec<Value> {
    let answer = server.alice(Method::GET, path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(header(&answer, "content-type"), OCI_INDEX);
    let index: Value = answer.json().await.unwrap();
    assert_eq!((&index["schemaVersion"], &index["mediaType"]), (&json!(2), &json!(OCI_INDEX)));
    index["manifests"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_subject_lists_what_refers_to_it_with_kind_and_annotations() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let subject = server.push_image(&name, "v1").await.digest;
    server.push(ALICE, &name, "{}").await;
    let path = format!("/v2/{name}/referrers/{subject}");
    assert!(list(&server, &path).await.is_empty());

    let sbom = attach(&server, &name, &artifact(&subject, Some(SBOM), "one")).await;
    let plain = attach(&server, &name, &artifact(&subject, None, "two")).await;
    let blank = attach(&server, &name, &artifact(&subject, Some(""), "three")).await;
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [],
        "subject": Descriptor::new(MediaType::OciManifest, subject, 7),
    });
    let index = attach(&server, &name, &index).await;

    let listed = list(&server, &path).await;
    let entry = |digest: Digest| {
        let found = listed.iter().find(|entry| entry["digest"] == json!(digest));
        found.unwrap_or_else(|| panic!("no {digest} in {listed:?}"))
    };
    assert_eq!(listed.len(), 4);
    assert!(listed.is_sorted_by_key(|entry| entry["digest"].as_str().unwrap().to_owned()));
    assert_eq!(entry(sbom)["artifactType"], SBOM);
    assert_eq!(entry(sbom)["annotations"], json!({ "remark": "one" }));
    assert_eq!(entry(plain)["artifactType"], json!(MediaType::OciEmpty));
    assert_eq!(entry(blank)["artifactType"], json!(MediaType::OciEmpty));
    assert_eq!(entry(index).get("artifactType"), None);
    assert_eq!(entry(index)["mediaType"], OCI_INDEX);
}

#[tokio::test]
async fn a_filter_says_that_it_was_applied() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let subject = Digest::sha256("never pushed");
    server.push(ALICE, &name, "{}").await;
    let sbom = attach(&server, &name, &artifact(&subject, Some(SBOM), "one")).await;
    attach(&server, &name, &artifact(&subject, Some("application/other"), "two")).await;
    let path = format!("/v2/{name}/referrers/{subject}?artifactType={SBOM}");
    let listed = list(&server, &path).await;
    assert_eq!((listed.len(), &listed[0]["digest"]), (1, &json!(sbom)));
    let answer = server.alice(Method::GET, &path).send().await.unwrap();
    assert_eq!(header(&answer, "oci-filters-applied"), "artifactType");
    let all = server.alice(Method::GET, &format!("/v2/{name}/referrers/{subject}"));
    let all = all.send().await.unwrap();
    assert!(!all.headers().contains_key("oci-filters-applied"));
    let none = format!("/v2/{name}/referrers/{subject}?artifactType=application/none%2Bx");
    assert!(list(&server, &none).await.is_empty());
}

/// A page is no larger than a manifest may be.
#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let subject = Digest::sha256("never pushed");
    server.push(ALICE, &name, "{}").await;
    let mut pushed = Vec::new();
    for number in 0..5 {
        let remark = format!("{number}{}", "x".repeat(1_500_000));
        let manifest = artifact(&subject, Some("application/a+b"), &remark);
        pushed.push(attach(&server, &name, &manifest).await.to_string());
    }
    pushed.sort();
    let (mut found, mut pages) = (Vec::new(), 0);
    let first = format!("/v2/{name}/referrers/{subject}?artifactType=application/a%2Bb");
    let mut next = Some(first);
    while let Some(path) = next {
        let answer = server.alice(Method::GET, &path).send().await.unwrap();
        next = answer.headers().get("link").map(|link| {
            let link = link.to_str().unwrap();
            let path = link.strip_suffix(">; rel=\"next\"").unwrap();
            path.strip_prefix('<').unwrap().to_owned()
        });
        let bytes = answer.bytes().await.unwrap();
        assert!(bytes.len() < 4 * 1024 * 1024 + 1024, "{}", bytes.len());
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        found.extend(entries.iter().map(|entry| entry["digest"].as_str().unwrap().to_owned()));
        pages += 1;
    }
    assert_eq!((found, pages), (pushed, 3));
}

#[tokio::test]
async fn referrers_end_with_their_manifest_and_at_the_organization() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let subject = server.push_image(&name, "v1").await.digest;
    server.push(ALICE, &name, "{}").await;
    let sbom = attach(&server, &name, &artifact(&subject, Some(SBOM), "one")).await;
    let path = format!("/v2/{name}/referrers/{subject}");
    let bobs = server.bob(Method::GET, &path).send().await.unwrap();
    assert_eq!(error(bobs).await, (StatusCode::NOT_FOUND, "NAME_UNKNOWN".into()));
    let own = format!("/v2/{}/referrers/{subject}", repository(2, "a"));
    let own = server.bob(Method::GET, &own).send().await.unwrap();
    let own: Value = own.json().await.unwrap();
    assert_eq!(own["manifests"], json!([]));
    let elsewhere = format!("/v2/{}/referrers/{subject}", repository(1, "b"));
    assert!(list(&server, &elsewhere).await.is_empty());

    let delete = server.alice(Method::DELETE, &format!("/v2/{name}/manifests/{sbom}"));
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::ACCEPTED);
    assert!(list(&server, &path).await.is_empty());
}

#[tokio::test]
async fn many_may_refer_to_one_subject_at_once() {
    let server = Server::start().await;
    let name = repository(1, "a");
    let subject = Digest::sha256("never pushed");
    server.push(ALICE, &name, "{}").await;
    let manifests: Vec<Value> =
        (0..20).map(|number| artifact(&subject, Some(SBOM), &number.to_string())).collect();
    let attached = manifests.iter().map(|manifest| attach(&server, &name, manifest));
    futures::future::join_all(attached).await;
    assert_eq!(list(&server, &format!("/v2/{name}/referrers/{subject}")).await.len(), 20);
}
