//! Small real images out of nothing: uncompressed tars of noise, which any
//! client can pull and unpack.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use slipway_oci::{ContainerConfig, RootFs};
use slipway_oci::{Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform};

/// An image in memory.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Bytes,
    pub(super) digest: Digest,
    pub(super) config: ImageConfig,
    /// Layers and image config.
    pub(super) blobs: Vec<(Descriptor, Bytes)>,
}

/// What an image is made of. The same parts give the same image.
#[derive(Debug, Clone)]
pub(super) struct Parts<'a> {
    pub(super) seed: u64,
    pub(super) layers: u32,
    /// Bytes of all layers, tar headers not counted.
    pub(super) bytes: u64,
    pub(super) platform: &'a Platform,
    /// Stands in the image's labels.
    pub(super) labels: &'a [(&'static str, String)],
}

impl Image {
    /// Makes it. Takes about a millisecond for each 500 kB.
    pub(super) fn make(parts: &Parts<'_>) -> std::io::Result<Self> {
        let mut blobs = vec![];
        for number in 0..parts.layers {
            let count = u64::from(parts.layers);
            let rest = u64::from(u64::from(number) < parts.bytes % count);
            let layer = layer(parts.seed, number, parts.bytes / count + rest)?;
            blobs.push((Descriptor::of(MediaType::OciLayer, &layer), layer));
        }
        let config = ImageConfig {
            created: None,
            author: None,
            architecture: parts.platform.architecture.clone(),
            os: parts.platform.os.clone(),
            variant: parts.platform.variant.clone(),
            os_version: None,
            config: ContainerConfig {
                labels: parts
                    .labels
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), value.clone()))
                    .collect(),
                ..ContainerConfig::default()
            },
            rootfs: RootFs {
                kind: "layers".to_owned(),
                // The layers are not compressed: they are their own diff ids.
                diff_ids: blobs.iter().map(|(layer, _)| layer.digest).collect(),
            },
            history: vec![],
        };
        let config_bytes = Bytes::from(serde_json::to_vec(&config)?);
        let described = Descriptor::of(MediaType::OciImageConfig, &config_bytes);
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(MediaType::OciManifest),
            artifact_type: None,
            config: described.clone(),
            layers: blobs.iter().map(|(layer, _)| layer.clone()).collect(),
            subject: None,
            annotations: None,
        };
        blobs.push((described, config_bytes));
        let manifest_bytes = Bytes::from(serde_json::to_vec(&manifest)?);
        let digest = Digest::sha256(&manifest_bytes);
        Ok(Self { manifest, manifest_bytes, digest, config, blobs })
    }
}

/// A tar of one file.
fn layer(seed: u64, number: u32, size: u64) -> std::io::Result<Bytes> {
    let mut noise = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    StdRng::seed_from_u64(seed.rotate_left(number) ^ u64::from(number)).fill_bytes(&mut noise);
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(size);
    let mut tar = tar::Builder::new(Vec::with_capacity(noise.len() + 2048));
    tar.append_data(&mut header, format!("simulated/{number}"), noise.as_slice())?;
    Ok(tar.into_inner()?.into())
}
