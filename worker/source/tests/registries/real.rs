//! Real registries of the distribution project: open, with passwords, and with
//! tokens that they verify.

use std::path::Path;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;
use slipway_oci::{Descriptor, MediaType};
use slipway_source::{Credential, Fault, NoCredentials};
use slipway_testkit::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth};

use crate::image::{Content, gzip, noise, tar, zstd};
use crate::issuer::Issuer;
use crate::upstream::{Seen, Upstream};
use crate::{For, basic, chain, client, fetch, resolve, resolve_with};

async fn skopeo(arguments: &[&str]) {
    let mut command = tokio::process::Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]).args(arguments);
    let ran = command.kill_on_drop(true).output().await;
    let ran = ran.expect("skopeo is missing. Remedy: `apt-get install skopeo`, or `make deps`");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// An index of two platforms; that for us has a layer of every kind.
async fn images() -> (Content, Descriptor, Vec<Descriptor>) {
    let mut content = Content::default();
    let file = tar("file", &noise(7, 300_000));
    let layers = vec![
        content.blob(MediaType::OciLayerGzip, gzip(&file)),
        content.blob(MediaType::OciLayerZstd, zstd(&file).await),
        content.blob(MediaType::OciLayer, file),
        content.blob(MediaType::OciLayerGzip, gzip(&[0; 1024])),
        content.blob(MediaType::OciLayerGzip, gzip(&[0; 1024])),
    ];
    let arm = content.image("linux/arm64", &[]);
    let amd = content.image("linux/amd64", &layers);
    let index = content.index(&[arm, amd]);
    (content, index, layers)
}

async fn push(content: &Content, root: &Descriptor, more: &[&str], to: &str) {
    let folder = tempfile::tempdir().unwrap();
    content.write_layout(folder.path(), root);
    let from = format!("oci:{}:image", folder.path().display());
    skopeo(&[more, &[&from, &format!("docker://{to}")]].concat()).await;
}

const AS_IT_IS: &[&str] = &["--all", "--preserve-digests"];

#[tokio::test]
async fn an_image_comes_as_it_is_by_tag_and_by_digest() {
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let (content, index, layers) = images().await;
    let repository = format!("{}/deep/er/app", registry.address());
    push(&content, &index, AS_IT_IS, &format!("{repository}:v1")).await;
    let names = [":v1".to_owned(), format!("@{}", index.digest), format!(":old@{}", index.digest)];
    for name in names {
        let pull = resolve(&format!("{repository}{name}")).await.unwrap();
        let image = pull.image();
        assert_eq!(image.index, Some(index.digest));
        assert_eq!(image.bytes, content.manifests[&image.digest].1);
        assert_eq!(image.manifest.layers, layers);
        let (bytes, config) = pull.config().await.unwrap();
        assert_eq!(bytes, content.blobs[&image.manifest.config.digest]);
        assert_eq!(config.entrypoint(), ["/entry"]);
        for layer in &layers {
            assert_eq!(fetch(&pull, layer).await.unwrap(), content.blobs[&layer.digest]);
        }
        let part = pull.part(&layers[0], 100..1100).await.unwrap();
        assert_eq!(part, content.blobs[&layers[0].digest].slice(100..1100));
    }
    let missing = resolve(&format!("{repository}:v2")).await.unwrap_err();
    assert_eq!(missing.fault(), Fault::Missing);
    let wanted = format!("`deep/er/app:v2` was not found in the registry `{}`", registry.address());
    assert_eq!(missing.to_string(), wanted);
}

#[tokio::test]
async fn docker_schema_2_comes_as_it_is() {
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, gzip(&tar("file", b"hello")));
    let root = content.image("linux/amd64", &[layer]);
    let image = format!("{}/app:v1", registry.address());
    push(&content, &root, &["--format", "v2s2"], &image).await;
    let pull = resolve(&image).await.unwrap();
    assert_eq!(pull.image().media_type, MediaType::DockerManifest);
    assert_eq!(pull.image().manifest.layers[0].media_type, MediaType::DockerLayerGzip);
    pull.config().await.unwrap();
}

#[tokio::test]
async fn a_password_opens_its_registry_and_a_wrong_one_does_not() {
    let registry = DockerRegistry::start(RegistryAuth::Password).await;
    let (content, index, layers) = images().await;
    let image = format!("{}/app:v1", registry.address());
    let credentials = format!("tester:{REGISTRY_PASSWORD}");
    push(&content, &index, &[AS_IT_IS, &["--dest-creds", &credentials]].concat(), &image).await;
    let with = |password: &str| For(registry.address().to_string(), basic(password));

    let pull = resolve_with(&client(), &image, &with(REGISTRY_PASSWORD)).await.unwrap();
    assert_eq!(fetch(&pull, &layers[0]).await.unwrap(), content.blobs[&layers[0].digest]);
    let refused = resolve_with(&client(), &image, &with("wr0ng")).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Rights);
    let text = format!("{} {refused:?}", chain(&refused));
    assert!(text.contains("does not allow these credentials to read `app`"), "{text}");
    assert!(!text.contains("wr0ng"), "{text}");
    let refused = resolve(&image).await.unwrap_err();
    assert!(refused.to_string().contains("does not allow anonymous clients"), "{refused}");
}

/// Answers the requests of registries' clients: `tester` may do what is asked.
fn answer(issuer: &Issuer, seen: &Seen) -> Response {
    let may = match seen.header("authorization") {
        Some(shown) => shown == format!("Basic {}", BASE64_STANDARD.encode("tester:open sesame")),
        None => seen.body.contains("refresh_token=identity"),
    };
    let asked = if seen.body.is_empty() { &seen.query } else { &seen.body };
    match may {
        true => Json(json!({ "token": issuer.token(asked) })).into_response(),
        false => StatusCode::UNAUTHORIZED.into_response(),
    }
}

#[tokio::test]
async fn tokens_open_a_registry_that_verifies_them() {
    let issuer = Issuer::new();
    let certificate = issuer.certificate();
    let server = Upstream::empty().await;
    server.hook(move |seen| Some(answer(&issuer, seen)));
    let realm = server.url("/token");
    let registry = DockerRegistry::start(RegistryAuth::Token { realm, certificate }).await;
    let (content, index, layers) = images().await;
    let image = format!("{}/team/app:v1", registry.address());
    let login: &[&str] = &["--dest-creds", "tester:open sesame"];
    push(&content, &index, &[AS_IT_IS, login].concat(), &image).await;
    let before = server.seen().len();

    let host = registry.address().to_string();
    for credential in
        [basic("open sesame"), Credential::IdentityToken("identity".to_owned().into())]
    {
        let client = client();
        let pull = resolve_with(&client, &image, &For(host.clone(), credential)).await.unwrap();
        for layer in &layers {
            assert_eq!(fetch(&pull, layer).await.unwrap(), content.blobs[&layer.digest]);
        }
    }
    assert_eq!(server.seen().len(), before + 2);
    let refused = resolve_with(&client(), &image, &NoCredentials).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Rights);
}

#[test]
fn layouts_are_complete() {
    let mut content = Content::default();
    let root = content.image("linux/amd64", &[]);
    let folder = tempfile::tempdir().unwrap();
    content.write_layout(folder.path(), &root);
    let exists = |path: &str| Path::new(folder.path()).join(path).is_file();
    assert!(exists("index.json") && exists("oci-layout"));
    assert!(exists(&format!("blobs/sha256/{}", root.digest.hex())));
}
