#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use serde_json::json;
use slipway_oci::Descriptor;

use super::*;
use crate::auth::StaticAuthorizer;
use crate::config::Limits;

const GRACE: Duration = Duration::from_secs(24 * 3600);

struct Region {
    store: Store,
    registry: Registry,
}

/// Days from now: time passes at once.
fn day(days: u32) -> SystemTime {
    SystemTime::now() + (GRACE + Duration::from_secs(60)) * days
}

fn repository(owner: u128) -> Repository {
    let organization = uuid::Uuid::from_u128(owner);
    Repository { organization, name: "snapshots".parse().unwrap() }
}

impl Region {
    fn new() -> Self {
        let store = Store::in_memory();
        Self { registry: registry(&store), store }
    }

    async fn sweep(&self, now: SystemTime) -> Swept {
        sweep(&self.store, GRACE, now).await.unwrap()
    }

    async fn blob(&self, owner: u128, bytes: &'static str) -> Descriptor {
        let blob = Descriptor::of(MediaType::OciLayerGzip, bytes.as_bytes());
        self.store.put_bytes(&ObjectKey::Blob(blob.digest), bytes).await.unwrap();
        self.registry.link_blob(&repository(owner), &blob).await.unwrap();
        blob
    }

    /// An image of some layers.
    async fn image(&self, owner: u128, layers: &[&'static str]) -> Digest {
        let config = self.blob(owner, "{}").await;
        let mut blobs = vec![];
        for layer in layers {
            blobs.push(self.blob(owner, layer).await);
        }
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": blobs });
        let bytes = bytes::Bytes::from(manifest.to_string());
        let digest = Digest::sha256(&bytes);
        let (to, kind) = (repository(owner), MediaType::OciManifest);
        self.registry.deposit_manifest(&to, digest, kind, bytes).await.unwrap();
        digest
    }

    /// As the removal of a snapshot does it.
    async fn unlink(&self, owner: u128, digest: Digest) {
        let link = ObjectKey::ManifestLink { repository: repository(owner), digest };
        self.store.delete(&link).await.unwrap();
    }

    async fn has(&self, bytes: &str) -> bool {
        self.store.exists(&ObjectKey::Blob(Digest::sha256(bytes))).await.unwrap()
    }
}

/// One that remembers nothing, as another process.
fn registry(store: &Store) -> Registry {
    Registry::new(store.clone(), Arc::new(StaticAuthorizer::new()), Limits::default())
}

#[tokio::test]
async fn what_a_removed_image_alone_had_goes_and_the_rest_stays() {
    let region = Region::new();
    let gone = region.image(1, &["shared", "own"]).await;
    region.image(1, &["shared", "other"]).await;
    region.image(2, &["shared", "theirs"]).await;
    assert_eq!(region.sweep(day(1)).await, Swept::default(), "all of it is in use");

    region.unlink(1, gone).await;
    assert_eq!(region.sweep(SystemTime::now()).await, Swept::default(), "it is young");
    let first = region.sweep(day(1)).await;
    assert_eq!((first.links, first.condemned, first.blobs), (1, 2, 0), "{first:?}");
    assert!(region.has("own").await);
    assert_eq!(region.sweep(day(1)).await, Swept::default(), "condemned a moment ago");

    let second = region.sweep(day(2)).await;
    assert_eq!((second.links, second.blobs), (0, 2), "{second:?}");
    assert!(!region.has("own").await);
    for kept in ["shared", "other", "theirs", "{}"] {
        assert!(region.has(kept).await, "{kept}");
    }
    assert_eq!(region.sweep(day(9)).await, Swept::default());
    let marks = region.store.list(&Prefix::Condemned).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(marks, []);
}

#[tokio::test]
async fn what_is_linked_after_it_was_condemned_stays() {
    let region = Region::new();
    let image = region.image(1, &["layer"]).await;
    region.unlink(1, image).await;
    let condemned = region.sweep(day(1)).await.condemned;
    assert_eq!(condemned, 3, "layer, image config, manifest");
    let layer = Digest::sha256("layer");
    assert!(!region.registry.is_kept(&layer).await.unwrap(), "nobody relies on it now");

    // Another one had found it before, and links it only now.
    let other = Region { store: region.store.clone(), registry: registry(&region.store) };
    let blob = Descriptor::of(MediaType::OciLayerGzip, b"layer");
    other.registry.link_blob(&repository(2), &blob).await.unwrap();
    let swept = region.sweep(SystemTime::now() + GRACE / 2).await;
    assert_eq!((swept.blobs, swept.condemned), (0, 0), "{swept:?}");
    assert!(region.registry.is_kept(&layer).await.unwrap(), "it is pardoned");
}

#[tokio::test]
async fn bytes_that_are_brought_again_are_not_taken() {
    let region = Region::new();
    let layer = ObjectKey::Blob(Digest::sha256("layer"));
    region.store.put_bytes(&layer, "layer").await.unwrap();
    assert_eq!(region.sweep(day(1)).await.condemned, 1);
    // As old as the mark, and so younger than the grace time at noon of the next day.
    region.store.put_bytes(&layer, "layer").await.unwrap();
    let noon = SystemTime::now() + GRACE / 2;
    assert_eq!(region.sweep(noon).await, Swept::default());
    assert!(region.registry.is_kept(&Digest::sha256("layer")).await.unwrap());
}

#[tokio::test]
async fn a_manifest_that_cannot_be_read_keeps_its_repository() {
    let region = Region::new();
    let image = region.image(1, &["layer"]).await;
    region.store.put_bytes(&ObjectKey::Blob(image), "not json").await.unwrap();
    assert_eq!(region.sweep(day(1)).await, Swept::default());
    assert_eq!(region.sweep(day(2)).await, Swept::default());
    assert!(region.has("layer").await);
}

#[tokio::test]
async fn unfinished_uploads_end_after_the_grace_time() {
    let region = Region::new();
    let upload = ObjectKey::Upload(uuid::Uuid::from_u128(1));
    region.store.put_bytes(&upload, "half").await.unwrap();
    assert_eq!(region.sweep(SystemTime::now()).await, Swept::default());
    assert_eq!(region.sweep(day(1)).await.uploads, 1);
    assert!(!region.store.exists(&upload).await.unwrap());
}

/// A killed sweep leaves marks without bytes, and a second one does the rest.
#[tokio::test]
async fn two_sweeps_and_half_a_sweep_do_what_one_does() {
    let region = Region::new();
    let image = region.image(1, &["layer"]).await;
    region.unlink(1, image).await;
    let (one, two) = tokio::join!(region.sweep(day(1)), region.sweep(day(1)));
    assert!(one.condemned.max(two.condemned) == 3, "{one:?} {two:?}");
    region.store.delete(&ObjectKey::Blob(image)).await.unwrap();
    tokio::join!(region.sweep(day(2)), region.sweep(day(2)));
    let left = region.store.list(&Prefix::All).try_collect::<Vec<_>>().await.unwrap();
    assert_eq!(left, []);
}
