//! Exports by push to a registry.

use axum::http::Method;
use secrecy::SecretString;
use slipway_buildkit::{Compression, Credential, Export, SolveRequest};

use crate::support::{Registry, build, nonce, on_base};

fn push_to(registry: &Registry, compression: Compression) -> Export {
    let repository = format!("{}/acme/snapshots", registry.host());
    Export::PushByDigest { repository, insecure: true, compression }
}

fn blobs_sent(requests: &[(Method, String)]) -> usize {
    let is_blob =
        |(method, path): &&(Method, String)| *method == Method::PUT && path.contains("/blobs/");
    requests.iter().filter(is_blob).count()
}

#[tokio::test]
async fn an_image_is_pushed_by_digest_and_its_blobs_only_once() {
    let registry = Registry::start().await;
    let mut request = on_base(&format!("RUN echo {} > /file\nENV A=b", nonce()));
    request.labels.insert("org.example.key".into(), "a value, with = and \"quotes\"".into());
    request.export = push_to(&registry, Compression::Gzip);

    let built = build(request.clone()).await;
    let outcome = built.ok();
    let digest = outcome.digest.unwrap();
    let (kind, manifest) = registry.json(&digest);
    assert_eq!(kind, "application/vnd.oci.image.manifest.v1+json");
    let layer = manifest["layers"].as_array().unwrap().last().unwrap();
    assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let config_digest = outcome.config_digest.unwrap();
    assert_eq!(manifest["config"]["digest"], config_digest.to_string());
    let (_, config) = registry.json(&config_digest);
    let label = &config["config"]["Labels"]["org.example.key"];
    assert_eq!(label, "a value, with = and \"quotes\"");
    let requests = registry.take_requests();
    assert!(blobs_sent(&requests) >= 2, "{requests:?}");
    assert!(!requests.iter().any(|(_, path)| path.ends_with("/latest")), "no tag: {requests:?}");

    let again = build(request).await;
    assert_eq!(again.ok().digest, Some(digest));
    assert_eq!(blobs_sent(&registry.take_requests()), 0);
}

#[tokio::test]
async fn layers_are_compressed_as_told() {
    let registry = Registry::start().await;
    for (compression, ending) in [(Compression::Zstd, "+zstd"), (Compression::Uncompressed, ".tar")]
    {
        let mut request = on_base(&format!("RUN echo {} > /file", nonce()));
        request.export = push_to(&registry, compression);
        let digest = build(request).await.ok().digest.unwrap();
        let (_, manifest) = registry.json(&digest);
        let layer = manifest["layers"].as_array().unwrap().last().unwrap();
        assert!(layer["mediaType"].as_str().unwrap().ends_with(ending), "{manifest}");
    }
}

#[tokio::test]
async fn credentials_of_the_host_are_used_for_push_and_pull() {
    let registry = Registry::private("worker", "sesame").await;
    let mut request = on_base(&format!("RUN echo {} > /file", nonce()));
    request.export = push_to(&registry, Compression::Gzip);
    let secret = SecretString::from("sesame");
    let credential = Credential { username: "worker".into(), secret };
    request.credentials.insert(&registry.host(), credential);
    let digest = build(request.clone()).await.ok().digest.unwrap();

    let dockerfile = format!("FROM {}/acme/snapshots@{digest}\nRUN cat /file", registry.host());
    let pull = SolveRequest { export: Export::None, ..request };
    build(SolveRequest { dockerfile: dockerfile.into(), ..pull }).await.ok();
}
