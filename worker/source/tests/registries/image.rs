//! Images made for a test.

use std::collections::BTreeMap;

use async_compression::tokio::bufread::ZstdEncoder;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use slipway_oci::{Descriptor, Digest, MediaType};
use tokio::io::AsyncReadExt as _;

/// One or more images and everything that they need.
#[derive(Debug, Clone, Default)]
pub struct Content {
    pub blobs: BTreeMap<Digest, Bytes>,
    pub manifests: BTreeMap<Digest, (MediaType, Bytes)>,
}

impl Content {
    pub fn blob(&mut self, media_type: MediaType, bytes: impl Into<Bytes>) -> Descriptor {
        let bytes = bytes.into();
        let descriptor = Descriptor::of(media_type, &bytes);
        self.blobs.insert(descriptor.digest, bytes);
        descriptor
    }

    pub fn document(&mut self, media_type: MediaType, document: &Value) -> Descriptor {
        let bytes = serde_json::to_vec(document).unwrap();
        let descriptor = Descriptor::of(media_type.clone(), &bytes);
        self.manifests.insert(descriptor.digest, (media_type, bytes.into()));
        descriptor
    }

    /// An OCI image; `platform` as `linux/amd64`.
    pub fn image(&mut self, platform: &str, layers: &[Descriptor]) -> Descriptor {
        let (os, architecture) = platform.split_once('/').unwrap();
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "os": os, "architecture": architecture,
            "config": { "Entrypoint": ["/entry"], "Volumes": { "/var/lib/docker": {} } },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(MediaType::OciImageConfig, config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::OciManifest,
            "config": config, "layers": layers,
        });
        let mut image = self.document(MediaType::OciManifest, &manifest);
        image.platform = Some(platform.parse().unwrap());
        image
    }

    pub fn index(&mut self, images: &[Descriptor]) -> Descriptor {
        let index = json!({
            "schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": images,
        });
        self.document(MediaType::OciIndex, &index)
    }

    /// Writes an OCI layout whose tag `image` is `root`.
    pub fn write_layout(&self, folder: &std::path::Path, root: &Descriptor) {
        let blobs = folder.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        let manifests = self.manifests.iter().map(|(digest, (_, bytes))| (digest, bytes));
        for (digest, bytes) in self.blobs.iter().chain(manifests) {
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        }
        let mut root = serde_json::to_value(root).unwrap();
        root["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
        let index = json!({ "schemaVersion": 2, "manifests": [root] });
        std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
        std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}

/// Bytes that do not repeat, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A layer's tar with one file.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

pub async fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut compressed = Vec::new();
    ZstdEncoder::new(bytes).read_to_end(&mut compressed).await.unwrap();
    compressed
}
