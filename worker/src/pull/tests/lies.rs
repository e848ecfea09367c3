//! What a registry lies about leaves no trace.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use slipway_blobstore::ObjectKey;
use slipway_domain::failure::{Cause, FailureKind};
use slipway_oci::MediaType;

use super::bench::Bench;
use super::image::{Content, noise};
use super::upstream::{Upstream, error, promising, redirect};

const SIZE: usize = 200_000;

/// What is answered, and what comes of it.
type Lie = (fn() -> Response, FailureKind, &'static str);

fn endless() -> Response {
    let chunks = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![0; 4096])));
    Body::from_stream(chunks).into_response()
}

#[tokio::test]
async fn nothing_of_a_lie_becomes_visible() {
    use FailureKind::{ImageInvalid, RegistryUnavailable};
    let lies: [Lie; 9] = [
        (|| noise(9, SIZE).into_response(), ImageInvalid, "content has digest"),
        (|| noise(1, SIZE - 1).into_response(), ImageInvalid, "offers 199999 bytes"),
        (|| noise(1, SIZE + 1).into_response(), ImageInvalid, "offers 200001 bytes"),
        (endless, ImageInvalid, "longer than 200000 bytes"),
        (
            || promising(SIZE, Body::from(noise(1, 70_000))),
            RegistryUnavailable,
            "cannot be reached",
        ),
        (|| Html("<html>log in").into_response(), ImageInvalid, "a web page"),
        (|| redirect("/v2/round"), ImageInvalid, "redirects in a circle"),
        (|| error(StatusCode::OK, "DENIED", "no"), ImageInvalid, "an error instead of content"),
        (|| StatusCode::BAD_GATEWAY.into_response(), RegistryUnavailable, "status 502"),
    ];
    for (lie, kind, reason) in lies {
        let mut content = Content::default();
        let layer = content.blob(MediaType::OciLayerGzip, noise(1, SIZE));
        let others =
            (2..5).map(|seed| content.blob(MediaType::OciLayer, noise(seed * 2, SIZE / 2)));
        let layers: Vec<_> =
            [layer.clone()].into_iter().chain(others.collect::<Vec<_>>()).collect();
        let root = content.image("linux/amd64", &layers);
        let upstream = Upstream::start(content, &root).await;
        let hex = layer.digest.hex();
        upstream
            .hook(move |seen| (seen.path.ends_with(&hex) || seen.path == "/v2/round").then(lie));
        let bench = Bench::new();
        let (pulled, said) = bench.pull(&upstream.image()).await;
        let failure = pulled.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(reason), "{}", failure.message);
        let is_input = kind.cause() == Cause::Input;
        assert_eq!(is_input, kind == ImageInvalid);
        bench.settled().await;
        assert!(bench.links().await.is_empty());
        assert!(!bench.keys().await.contains(&ObjectKey::Blob(layer.digest)));
        assert!(!said.lines.iter().any(|line| line.contains("publish")), "{:?}", said.lines);
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_understood_ends_the_job() {
    for image in ["app//deep:1", "app:1@md5:x", ""] {
        let failure = Bench::new().pull(image).await.0.unwrap_err();
        assert_eq!(failure.kind, FailureKind::JobInvalid, "{image}");
    }
    let failure = Bench::new().pull("127.0.0.1:1/app").await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ImageNotFound);
}
