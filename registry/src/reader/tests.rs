#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use slipway_oci::Descriptor;

use super::*;

async fn put(store: &Store, media_type: MediaType, content: &Value) -> Descriptor {
    let bytes = serde_json::to_vec(content).unwrap();
    let descriptor = Descriptor::of(media_type, &bytes);
    store.put_bytes(&ObjectKey::Blob(descriptor.digest), bytes).await.unwrap();
    descriptor
}

async fn put_image(store: &Store, architecture: &str) -> Descriptor {
    let config = json!({
        "architecture": architecture, "os": "linux",
        "config": { "Entrypoint": ["/hello"], "Cmd": ["--loud"] },
        "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let config = put(store, MediaType::OciImageConfig, &config).await;
    let layer = Descriptor::new(MediaType::OciLayerGzip, Digest::sha256("layer"), 1000);
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
    let mut descriptor = put(store, MediaType::OciManifest, &manifest).await;
    descriptor.platform = Some(format!("linux/{architecture}").parse().unwrap());
    descriptor
}

#[tokio::test]
async fn an_image_is_read_with_what_it_runs() {
    let store = Store::in_memory();
    let manifest = put_image(&store, "amd64").await;
    let reader = ManifestReader::new(store);
    let image = reader.image(&manifest.digest, &Platform::linux_amd64()).await.unwrap();
    assert_eq!((image.digest, image.index), (manifest.digest, None));
    assert_eq!(image.entrypoint(), ["/hello"]);
    assert_eq!(image.cmd(), ["--loud"]);
    assert_eq!(image.platform(), Platform::linux_amd64());
    assert_eq!(image.compressed_size(), 1000 + image.manifest.config.size);
}

#[tokio::test]
async fn an_index_is_searched_for_the_platform() {
    let store = Store::in_memory();
    let manifests = [put_image(&store, "arm64").await, put_image(&store, "amd64").await];
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    let index = put(&store, MediaType::OciIndex, &index).await;
    let reader = ManifestReader::new(store);
    let image = reader.image(&index.digest, &Platform::linux_amd64()).await.unwrap();
    assert_eq!((image.digest, image.index), (manifests[1].digest, Some(index.digest)));
    let wanted = "linux/s390x".parse().unwrap();
    let error = reader.image(&index.digest, &wanted).await.unwrap_err();
    let text = "the image is for linux/arm64, linux/amd64, not for linux/s390x";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn what_is_no_image_of_the_platform_is_refused_with_the_reason() {
    let store = Store::in_memory();
    let reader = ManifestReader::new(store.clone());
    let amd64 = Platform::linux_amd64();

    let missing = reader.image(&Digest::sha256("nothing"), &amd64).await.unwrap_err();
    assert!(matches!(missing, ReadError::Store { .. }) && !missing.is_retryable());

    let arm = put_image(&store, "arm64").await;
    let error = reader.image(&arm.digest, &amd64).await.unwrap_err();
    assert_eq!(error.to_string(), "the image is for linux/arm64, not for linux/amd64");

    let empty = put(&store, MediaType::OciEmpty, &json!({})).await;
    let artifact = json!({ "schemaVersion": 2, "config": empty, "layers": [] });
    let artifact = put(&store, MediaType::OciManifest, &artifact).await;
    let error = reader.image(&artifact.digest, &amd64).await.unwrap_err();
    assert!(matches!(error, ReadError::NoImage { media_type: MediaType::OciEmpty, .. }));

    store.put_bytes(&ObjectKey::Blob(arm.digest), "damaged").await.unwrap();
    let error = reader.image(&arm.digest, &amd64).await.unwrap_err();
    assert!(matches!(error, ReadError::Damaged(_)));
}
