//! Mirrors come first, and what they lack comes from the registry itself.

use axum::http::StatusCode;
use slipway_oci::MediaType;
use slipway_source::{Client, Config, NoCredentials};

use crate::image::{Content, noise};
use crate::upstream::{Upstream, error};
use crate::{For, basic, config, fetch, resolve_with};

#[tokio::test]
async fn a_mirror_serves_what_it_has_and_gets_no_foreign_credentials() {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, 1000));
    let root = content.image("linux/amd64", std::slice::from_ref(&layer));
    let mirror = Upstream::start(content.clone(), &root).await;
    let upstream = Upstream::start(content, &root).await;
    let name = upstream.address.to_string();
    let mirrors = [(name.clone(), vec![mirror.address.to_string()])].into();
    let client = Client::new(Config { mirrors, ..config() }).unwrap();

    let credentials = For(name, basic("s3cret"));
    let pull = resolve_with(&client, &upstream.image(), &credentials).await.unwrap();
    assert_eq!(pull.host(), mirror.address.to_string());
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), 1000);
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    assert!(upstream.seen().is_empty());

    for status in [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN, StatusCode::BAD_GATEWAY] {
        mirror.hook(move |_| Some(error(status, "X", "not here")));
        let pull = resolve_with(&client, &upstream.image(), &NoCredentials).await.unwrap();
        assert_eq!(pull.host(), upstream.address.to_string());
    }
}

#[tokio::test]
async fn docker_hub_is_mirrored_by_its_short_name() {
    let mut content = Content::default();
    let root = content.image("linux/amd64", &[]);
    let mirror = Upstream::start(content, &root).await;
    let mirrors = [("docker.io".to_owned(), vec![mirror.address.to_string()])].into();
    let client = Client::new(Config { mirrors, ..config() }).unwrap();
    let pull = resolve_with(&client, "debian:bookworm", &NoCredentials).await.unwrap();
    assert_eq!(pull.image().digest, root.digest);
    assert_eq!(mirror.seen()[0].path, "/v2/library/debian/manifests/bookworm");
}
