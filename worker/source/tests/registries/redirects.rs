//! Redirects are followed a little way, and without credentials.

use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use slipway_oci::{Descriptor, MediaType};
use slipway_source::{Credential, Error, RedirectFault};

use crate::image::{Content, noise};
use crate::upstream::{Upstream, redirect};
use crate::{For, basic, client, fetch, resolve, resolve_with};

/// Where a path leads.
type Way = Box<dyn Fn(&str) -> String + Send>;

fn content() -> (Content, Descriptor, Descriptor) {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, 1000));
    let root = content.image("linux/amd64", std::slice::from_ref(&layer));
    (content, root, layer)
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let (content, root, layer) = content();
    let storage = Upstream::start(content.clone(), &root).await;
    let upstream = Upstream::start(content, &root).await;
    let to = storage.url("");
    upstream.hook(move |seen| {
        if seen.header("authorization").is_none() {
            let challenge = [("www-authenticate", "Basic realm=\"x\"")];
            return Some((StatusCode::UNAUTHORIZED, challenge).into_response());
        }
        // First within the host, then out of it.
        match seen.path.strip_prefix("/moved") {
            Some(path) => Some(redirect(format!("{to}{path}"))),
            None => seen.is_blob().then(|| redirect(format!("/moved{}", seen.path))),
        }
    });
    let credentials = For(upstream.address.to_string(), basic("s3cret"));
    let pull = resolve_with(&client(), &upstream.image(), &credentials).await.unwrap();
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), 1000);
    let moved = upstream.seen().into_iter().find(|seen| seen.path.starts_with("/moved")).unwrap();
    assert!(moved.header("authorization").is_some());
    let outside = storage.seen();
    assert_eq!(outside.len(), 1);
    assert_eq!(outside[0].header("authorization"), None);
}

#[tokio::test]
async fn credentials_do_not_come_back_with_the_way() {
    let (content, root, layer) = content();
    let storage = Upstream::empty().await;
    let upstream = Upstream::start(content, &root).await;
    let (out, back) = (storage.url("/out"), upstream.url("/back"));
    storage.hook(move |_| Some(redirect(back.clone())));
    upstream.hook(move |seen| seen.is_blob().then(|| redirect(out.clone())));
    let token = Credential::Bearer("t0ken".to_owned().into());
    let credentials = For(upstream.address.to_string(), token);
    let pull = resolve_with(&client(), &upstream.image(), &credentials).await.unwrap();
    fetch(&pull, &layer).await.unwrap_err();
    let back = upstream.seen().into_iter().find(|seen| seen.path == "/back").unwrap();
    assert_eq!(back.header("authorization"), None);
}

#[tokio::test]
async fn circles_long_ways_and_dead_ends_are_refused() {
    let upstream = Upstream::empty().await;
    let here = upstream.url("");
    let far: Way = Box::new(|path| format!("{path}x"));
    let ways: [(Way, RedirectFault); 5] = [
        (Box::new(move |_| format!("{here}/round")), RedirectFault::Loop),
        (far, RedirectFault::TooMany),
        (Box::new(|_| "ftp://files/x".into()), RedirectFault::Malformed),
        (Box::new(|_| "http://user:pass@127.0.0.1/x".into()), RedirectFault::Malformed),
        (Box::new(|_| "http://[".into()), RedirectFault::Malformed),
    ];
    for (way, wanted) in ways {
        upstream.hook(move |seen| Some(redirect(way(&seen.path))));
        let error = resolve(&upstream.image()).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { fault, .. } if fault == wanted), "{error:?}");
    }
}

#[tokio::test]
async fn a_storage_that_refuses_is_asked_again_by_way_of_the_registry() {
    let (content, root, layer) = content();
    let storage = Upstream::start(content.clone(), &root).await;
    let upstream = Upstream::start(content, &root).await;
    let mut is_first = true;
    storage.hook(move |_| {
        std::mem::take(&mut is_first).then(|| (StatusCode::FORBIDDEN, "expired").into_response())
    });
    let to = storage.url("");
    upstream.hook(move |seen| seen.is_blob().then(|| redirect(format!("{to}{}", seen.path))));
    let pull = resolve(&upstream.image()).await.unwrap();
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), 1000);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.is_blob()).count(), 2);
}
