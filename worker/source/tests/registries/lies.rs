//! A registry that lies gets nothing in, and its lie a name.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _};
use bytes::Bytes;
use futures::stream;
use serde_json::json;
use slipway_oci::{Descriptor, Digest, MediaType};
use slipway_source::{Error, Fault};

use crate::image::{Content, noise};
use crate::upstream::{Upstream, error, promising};
use crate::{chain, fetch, resolve};

/// An image of one layer, its registry, and the layer.
async fn upstream() -> (Upstream, Descriptor) {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, 100_000));
    let root = content.image("linux/amd64", std::slice::from_ref(&layer));
    (Upstream::start(content, &root).await, layer)
}

async fn resolve_error(upstream: &Upstream, fault: Fault) -> String {
    let error = resolve(&upstream.image()).await.unwrap_err();
    assert_eq!(error.fault(), fault, "{error:?}");
    chain(&error)
}

/// What comes of a layer whose requests `body` answers.
async fn blob_error(body: impl Fn() -> axum::response::Response + Send + 'static) -> String {
    let (upstream, layer) = upstream().await;
    upstream.hook(move |seen| seen.is_blob().then(&body));
    let pull = resolve(&upstream.image()).await.unwrap();
    fetch(&pull, &layer).await.unwrap_err()
}

#[tokio::test]
async fn wrong_content_is_found_by_its_digest() {
    let wrong = || noise(2, 100_000).into_response();
    let text = blob_error(wrong).await;
    assert!(text.starts_with("content has digest `sha256:"), "{text}");
}

#[tokio::test]
async fn a_wrong_length_is_found_before_the_first_byte() {
    for length in [99_999, 100_001] {
        let text = blob_error(move || noise(1, length).into_response()).await;
        assert!(text.contains(&format!("offers {length} bytes")), "{text}");
        assert!(text.contains("but the manifest says 100000"), "{text}");
    }
}

#[tokio::test]
async fn an_endless_body_ends_where_the_manifest_says() {
    let endless = || {
        let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 4096])));
        Body::from_stream(chunks).into_response()
    };
    let text = blob_error(endless).await;
    assert!(text.ends_with("content is longer than 100000 bytes"), "{text}");
}

#[tokio::test]
async fn a_truncated_body_is_asked_for_again_and_then_given_up() {
    // Ended without an error, and cut off: both are too short.
    let ended = || {
        Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::from(noise(1, 500)))]))
            .into_response()
    };
    let text = blob_error(ended).await;
    assert!(text.ends_with("content ended after 500 of 100000 bytes"), "{text}");
    let cut = || promising(100_000, Body::from(noise(1, 500)));
    let text = blob_error(cut).await;
    assert!(text.contains("cannot be reached"), "{text}");
}

#[tokio::test]
async fn a_login_page_is_called_one() {
    let page = || Html("<html>log in</html>").into_response();
    let text = blob_error(page).await;
    assert!(text.contains("answered with a web page"), "{text}");
    let (upstream, _) = upstream().await;
    upstream.hook(move |seen| seen.is_manifest().then(page));
    assert!(resolve_error(&upstream, Fault::Registry).await.contains("login page"));
    // Even if it says that it is a manifest, or is larger than one.
    upstream.hook(|seen| {
        let typed = [(header::CONTENT_TYPE, MediaType::OciManifest.to_string())];
        seen.is_manifest().then(|| (typed, "\n<!doctype html>").into_response())
    });
    assert!(resolve_error(&upstream, Fault::Registry).await.contains("login page"));
    upstream
        .hook(|seen| seen.is_manifest().then(|| Html("<html>".repeat(1 << 20)).into_response()));
    assert!(resolve_error(&upstream, Fault::Registry).await.contains("login page"));
}

#[tokio::test]
async fn success_that_carries_an_error_is_an_error() {
    let lie = || error(StatusCode::OK, "DENIED", "quota\u{1b}[2J used up");
    let text = blob_error(lie).await;
    assert!(text.contains("instead of content: DENIED: quota [2J used up"), "{text}");
    let (upstream, _) = upstream().await;
    upstream.hook(move |seen| seen.is_manifest().then(lie));
    assert!(resolve_error(&upstream, Fault::Registry).await.contains("DENIED"));
}

#[tokio::test]
async fn another_manifest_than_the_one_named_is_refused() {
    let (upstream, _) = upstream().await;
    let pinned = format!("{}/team/app@{}", upstream.address, Digest::sha256("other"));
    assert!(matches!(resolve(&pinned).await, Err(Error::NotFound { .. })));
    let other = json!({ "schemaVersion": 2, "config": {} }).to_string();
    upstream.hook(move |seen| {
        let typed = [(header::CONTENT_TYPE, MediaType::OciManifest.to_string())];
        seen.is_manifest().then(|| (typed, other.clone()).into_response())
    });
    let error = resolve(&pinned).await.unwrap_err();
    assert!(matches!(&error, Error::Content { .. }), "{error:?}");
    // By tag, the registry's own header binds it.
    upstream.hook(|seen| {
        let digest = [("docker-content-digest", Digest::sha256("x").to_string())];
        seen.is_manifest().then(|| (digest, "{}").into_response())
    });
    let text = resolve_error(&upstream, Fault::Registry).await;
    assert!(text.contains("sent wrong content for `sha256:2d711"), "{text}");
}

#[tokio::test]
async fn a_manifest_has_a_largest_size() {
    let (upstream, _) = upstream().await;
    for is_announced in [true, false] {
        upstream.hook(move |seen| {
            let large = vec![b' '; (4 << 20) + 1];
            let chunk = stream::iter([Ok::<_, std::io::Error>(large.clone())]);
            let body = if is_announced { Body::from(large) } else { Body::from_stream(chunk) };
            seen.is_manifest().then(|| body.into_response())
        });
        let text = resolve_error(&upstream, Fault::TooLarge).await;
        assert!(text.contains("is larger than 4194304 bytes"), "{text}");
    }
}

#[tokio::test]
async fn what_is_no_image_for_the_platform_is_refused_with_the_reason() {
    let schema1 = json!({ "schemaVersion": 1, "fsLayers": [], "history": [] });
    let mut content = Content::default();
    let plain = content.blob(MediaType::OciLayer, "layer");
    let mut foreign = plain.clone();
    foreign.media_type = MediaType::DockerForeignLayerGzip;
    let mut secret = plain.clone();
    secret.media_type = "application/vnd.oci.image.layer.v1.tar+encrypted".into();
    let mut other_size = plain.clone();
    other_size.size += 1;
    let chart = content.blob("application/vnd.cncf.helm.config.v1+json".into(), "{}");
    let chart = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest, "config": chart, "layers": [],
    });
    let signed = MediaType::DockerSchema1Signed;
    let arm = content.image("linux/arm64", &[]);
    let nested = content.index(std::slice::from_ref(&arm));
    let mut nested_for_us = nested.clone();
    nested_for_us.platform = Some("linux/amd64".parse().unwrap());
    let cases = [
        (content.document(signed, &schema1), "docker schema 1 manifests are not supported"),
        (content.image("linux/amd64", &[foreign]), "(a foreign layer)"),
        (content.image("linux/amd64", &[secret]), "+encrypted`, which cannot be unpacked"),
        (content.image("linux/amd64", &[plain, other_size]), "listed with two sizes"),
        (content.document(MediaType::OciManifest, &chart), "helm.config.v1+json`, not an image"),
        (nested, "it is for linux/arm64"),
        (content.index(&[nested_for_us]), "is an index where an image should be"),
    ];
    for (root, reason) in cases {
        let upstream = Upstream::start(content.clone(), &root).await;
        let error = resolve(&upstream.image()).await.unwrap_err();
        assert!(chain(&error).contains(reason), "{}", chain(&error));
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_config_that_contradicts_its_manifest_is_refused() {
    let mut content = Content::default();
    let arm = content.image("linux/arm64", &[]);
    let upstream = Upstream::start(content.clone(), &arm).await;
    let error = resolve(&upstream.image()).await.unwrap().config().await.unwrap_err();
    assert!(error.to_string().contains("it is for linux/arm64"), "{error}");

    let layer = content.blob(MediaType::OciLayer, "layer");
    let config = json!({ "os": "linux", "architecture": "amd64", "rootfs": null });
    let config = content.blob(MediaType::OciImageConfig, config.to_string());
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let root = content.document(MediaType::OciManifest, &manifest);
    let upstream = Upstream::start(content, &root).await;
    let error = resolve(&upstream.image()).await.unwrap().config().await.unwrap_err();
    assert!(error.to_string().contains("lists 1 layers, its config 0"), "{error}");
}

#[tokio::test]
async fn a_part_that_was_not_asked_for_is_refused() {
    let (upstream, layer) = upstream().await;
    upstream.hook(|seen| {
        let elsewhere = [(header::CONTENT_RANGE, "bytes 5-9/100000")];
        seen.is_blob().then(|| (StatusCode::PARTIAL_CONTENT, elsewhere, "xxxxx").into_response())
    });
    let pull = resolve(&upstream.image()).await.unwrap();
    assert!(fetch(&pull, &layer).await.unwrap_err().contains("another part"));
    assert!(matches!(pull.part(&layer, 7..9).await, Err(Error::Range { .. })));
}
