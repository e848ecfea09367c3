//! What makes an image one that can be taken, wherever it lies.
//!
//! Owns the choice out of an index, and what manifest and config have to be like.
//! Refuses to read anything itself.

use std::collections::BTreeMap;

use slipway_oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform};

use crate::error::Error;
use crate::image::Image;

/// The manifest for `wanted`. One for the plain architecture is better than one
/// that needs a later processor; an index of a single image may say nothing.
///
/// # Errors
/// There is none for the platform, or what is there is no image's manifest.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Error> {
    let chosen = fitting(index, wanted)?;
    if chosen.media_type.is_index() {
        return Err(Error::NestedIndex(chosen.digest.into()));
    }
    if !chosen.media_type.is_manifest() {
        let (what, media_type) = (chosen.digest.to_string(), chosen.media_type.clone());
        return Err(Error::Artifact { what, media_type });
    }
    Ok(chosen)
}

fn fitting<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Error> {
    let images = || index.manifests.iter().filter(|one| !one.is_attestation());
    let able = images().filter_map(|one| {
        let platform = one.platform.as_ref().filter(|platform| platform.satisfies(wanted))?;
        Some((platform.variant != wanted.variant, one))
    });
    let best = able.min_by_key(|(is_other_variant, _)| *is_other_variant);
    if let Some((_, best)) = best {
        return Ok(best);
    }
    let mut unnamed = images().filter(|one| one.platform.is_none());
    match (unnamed.next(), unnamed.next(), index.platforms().next()) {
        (Some(only), None, None) => Ok(only),
        _ => Err(Error::Platform {
            wanted: wanted.clone(),
            offered: index.platforms().cloned().collect(),
        }),
    }
}

/// Whether a manifest is that of an image whose layers can be had, and agrees with
/// itself.
///
/// # Errors
/// It is not.
pub fn check(digest: &Digest, manifest: &Manifest) -> Result<(), Error> {
    if !manifest.is_image() {
        let media_type =
            manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.clone());
        return Err(Error::Artifact { what: digest.to_string(), media_type });
    }
    let mut sizes = BTreeMap::from([(manifest.config.digest, manifest.config.size)]);
    for layer in &manifest.layers {
        if layer.media_type.is_foreign_layer() {
            return Err(Error::ForeignLayer(layer.digest.into()));
        }
        if !layer.media_type.is_layer() {
            let (digest, media_type) = (layer.digest.into(), layer.media_type.clone());
            return Err(Error::LayerType { digest, media_type });
        }
        if *sizes.entry(layer.digest).or_insert(layer.size) != layer.size {
            let text = format!("`{}` is listed with two sizes", layer.digest);
            return Err(Error::Inconsistent(text));
        }
    }
    Ok(())
}

/// The config of an image, read: it is for the platform and has a diff id for each
/// layer.
///
/// # Errors
/// It is none, or is not like that.
pub fn read_config(image: &Image, platform: &Platform, bytes: &[u8]) -> Result<ImageConfig, Error> {
    let descriptor = &image.manifest.config;
    let config = ImageConfig::parse(bytes)
        .map_err(|source| Error::ImageConfig { digest: descriptor.digest.into(), source })?;
    if !config.platform().satisfies(platform) {
        let (wanted, offered) = (platform.clone(), vec![config.platform()]);
        return Err(Error::Platform { wanted, offered });
    }
    let (layers, diff_ids) = (image.manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        let text = format!("its manifest lists {layers} layers, its config {diff_ids}");
        return Err(Error::Inconsistent(text));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_oci::MediaType;

    use super::*;

    fn entry(platform: Option<&str>, size: u64) -> Descriptor {
        let mut entry = Descriptor::new(MediaType::OciManifest, Digest::sha256(""), size);
        entry.platform = platform.map(|text| text.parse().unwrap());
        entry
    }

    fn chosen(entries: &[Descriptor]) -> Result<u64, Error> {
        let index = Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: entries.to_vec(),
            subject: None,
            annotations: None,
        };
        choose(&index, &Platform::linux_amd64()).map(|one| one.size)
    }

    #[test]
    fn the_plain_architecture_is_preferred() {
        let arm = entry(Some("linux/arm64"), 1);
        let late = entry(Some("linux/amd64/v3"), 2);
        let plain = entry(Some("linux/amd64"), 3);
        assert_eq!(chosen(&[arm.clone(), late.clone(), plain]).unwrap(), 3);
        assert_eq!(chosen(&[arm.clone(), late]).unwrap(), 2);
        let text = chosen(&[arm.clone(), entry(Some("windows/amd64"), 4)]).unwrap_err().to_string();
        let wanted = "the image is not made for linux/amd64: it is for linux/arm64, windows/amd64";
        assert_eq!(text, wanted);
        assert!(chosen(&[arm, entry(None, 5)]).is_err());
    }

    #[test]
    fn a_single_image_without_a_platform_is_looked_at() {
        assert_eq!(chosen(&[entry(None, 5)]).unwrap(), 5);
        assert!(chosen(&[entry(None, 5), entry(None, 6)]).is_err());
        assert!(chosen(&[]).unwrap_err().to_string().ends_with("no platform that it names"));
    }
}
