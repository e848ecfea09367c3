//! Images that lie in the region's own registry.

use slipway_blobstore::{ObjectKey, Repository};
use slipway_domain::FailureKind;
use slipway_oci::{Descriptor, Tag, Verifier};
use uuid::Uuid;

use super::bench::{Bench, OWN, organization, repository, spec};
use super::image::{Content, gzip, noise, tar};

fn pushed_to(owner: u128) -> Repository {
    Repository { organization: Uuid::from_u128(owner), name: "push/team/app".parse().unwrap() }
}

fn name(owner: u128, tag: &str) -> String {
    format!("{OWN}/{}/push/team/app:{tag}", organization(owner))
}

/// An image with two layers for each platform, and what lists them all.
fn content(platforms: &[&str]) -> (Content, Descriptor) {
    let mut content = Content::default();
    let mut images = vec![];
    for (seed, platform) in platforms.iter().enumerate() {
        let layers = [0, 1].map(|n| {
            let file = tar("file", &noise(2 * (2 * seed + n) as u64, 9000));
            content.blob(slipway_oci::MediaType::OciLayerGzip, gzip(&file))
        });
        images.push(content.image(platform, &layers));
    }
    let root = content.index(&images);
    (content, root)
}

/// Puts it where a push would have.
async fn push(bench: &Bench, to: &Repository, content: &Content, root: &Descriptor, tag: &str) {
    let registry = &bench.puller.registry;
    for (digest, bytes) in &content.blobs {
        let body = futures::stream::iter([Ok::<_, std::io::Error>(bytes.clone())]);
        let verifier = Verifier::new(*digest).size(bytes.len() as u64);
        bench.store.put_stream(&ObjectKey::Blob(*digest), body, verifier).await.unwrap();
        let blob = Descriptor::of(slipway_oci::MediaType::OciLayerGzip, bytes);
        registry.link_blob(to, &blob).await.unwrap();
    }
    let (of_images, of_root): (Vec<_>, Vec<_>) =
        content.manifests.iter().partition(|(digest, _)| **digest != root.digest);
    for (digest, (media_type, bytes)) in of_images.into_iter().chain(of_root) {
        registry.deposit_manifest(to, *digest, media_type.clone(), bytes.clone()).await.unwrap();
    }
    let tag: Tag = tag.parse().unwrap();
    let key = ObjectKey::TagLink { repository: to.clone(), tag };
    let record = serde_json::json!({ "version": 1, "digest": root.digest });
    bench.store.put_bytes(&key, record.to_string()).await.unwrap();
}

#[tokio::test]
async fn a_pushed_image_gets_links_and_outlives_what_was_pushed() {
    let bench = Bench::new();
    let (content, root) = content(&["linux/arm64", "linux/amd64"]);
    push(&bench, &pushed_to(1), &content, &root, "1").await;
    let before = bench.keys().await.len();
    let (built, said) = bench.pull(&name(1, "1")).await;
    let built = built.unwrap();
    assert!(content.manifests.contains_key(&built.digest), "one of its images");
    assert_ne!(built.digest, root.digest);
    assert_eq!(built.layers, 2);
    let cached = said.lines.iter().filter(|line| line.ends_with("CACHED")).count();
    assert_eq!(cached, 2, "{said:?}");
    let blobs = bench.keys().await.into_iter().filter(|key| matches!(key, ObjectKey::Blob(_)));
    assert_eq!(blobs.count(), content.blobs.len() + content.manifests.len(), "nothing is copied");
    // Its manifest, config and two layers.
    assert_eq!(bench.keys().await.len(), before + 4);

    for key in bench.links().await {
        if format!("{key}").contains("/push/") {
            bench.store.delete(&key).await.unwrap();
        }
    }
    let registry = &bench.puller.registry;
    let (_, bytes) = &content.manifests[&built.digest];
    let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let blob: Descriptor = serde_json::from_value(blob.clone()).unwrap();
        assert!(registry.has_blob(&repository(1), &blob).await.unwrap());
    }
    let gone = bench.pull(&name(1, "1")).await.0.unwrap_err();
    assert_eq!(gone.kind, FailureKind::ImageNotFound);
}

#[tokio::test]
async fn what_is_not_for_the_organization_is_as_if_it_were_not_there() {
    let bench = Bench::new();
    let (content, root) = content(&["linux/amd64"]);
    push(&bench, &pushed_to(2), &content, &root, "1").await;
    let said = |owner: u128, tag: &str| bench_says(&bench, name(owner, tag));
    let foreign = said(2, "1").await.replace(&organization(2).to_string(), "ORGANIZATION");
    let absent = said(3, "1").await.replace(&organization(3).to_string(), "ORGANIZATION");
    assert_eq!(foreign, absent);
    assert!(bench.links().await.iter().all(|key| format!("{key}").contains("/push/")));
    let general = Repository {
        organization: Uuid::from_u128(2),
        name: slipway_domain::organization::GENERAL_REPOSITORY.parse().unwrap(),
    };
    push(&bench, &general, &content, &root, "1").await;
    bench.pull(&format!("{OWN}/{general}@{}", root.digest)).await.0.unwrap();
}

async fn bench_says(bench: &Bench, image: String) -> String {
    let failure = bench.pull(&image).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ImageNotFound);
    failure.message
}

#[tokio::test]
async fn another_platform_too_large_and_incomplete_are_refused() {
    let bench = Bench::new();
    let (content, root) = content(&["linux/arm64"]);
    push(&bench, &pushed_to(1), &content, &root, "arm").await;
    let failure = bench.pull(&name(1, "arm")).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ImageUnsupported);
    assert!(failure.message.contains("linux/arm64"), "{}", failure.message);

    let (content, root) = self::content(&["linux/amd64"]);
    push(&bench, &pushed_to(1), &content, &root, "1").await;
    let mut small = spec(&name(1, "1"));
    small.max_size = 1000;
    let failure = bench.pull_for(1, &small).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge);

    // A push token deletes a layer from under the manifest.
    let layer = content.blobs.keys().next().unwrap();
    let key = ObjectKey::BlobLink { repository: pushed_to(1), digest: *layer };
    bench.store.delete(&key).await.unwrap();
    let failure = bench.pull(&name(1, "1")).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::ImageInvalid, "{failure:?}");
    assert!(failure.message.contains("push it again"), "{}", failure.message);
    assert!(bench.links().await.iter().all(|key| format!("{key}").contains("/push/")));
}
