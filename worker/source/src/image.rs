//! From a tag or digest to one platform's manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use slipway_oci::{
    Descriptor, Digest, Document, ImageConfig, Index, Manifest, MediaType, Platform, Verifier,
};

use crate::body;
use crate::error::Error;
use crate::session::Session;

/// Documents that are understood, the better ones first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// One platform's image as its registry has it, without config and layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The type that the manifest was served as.
    pub media_type: MediaType,
    /// The manifest, byte for byte.
    pub bytes: Bytes,
    /// The manifest, read.
    pub manifest: Manifest,
    /// Digest of the index that it was chosen from, if there was one.
    pub index: Option<Digest>,
}

struct Fetched {
    digest: Digest,
    media_type: MediaType,
    bytes: Bytes,
    document: Document,
}

impl Session {
    /// The image that `reference`, a tag or digest, names for `platform`.
    pub(crate) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Image, Error> {
        let fetched = self.document(reference).await?;
        let (fetched, index) = match &fetched.document {
            Document::Manifest(_) => (fetched, None),
            Document::Index(index) => {
                let chosen = choose(index, platform)?;
                if chosen.media_type.is_index() {
                    return Err(Error::NestedIndex(chosen.digest.into()));
                }
                if !chosen.media_type.is_manifest() {
                    let (what, media_type) = (chosen.digest.to_string(), chosen.media_type.clone());
                    return Err(Error::Artifact { what, media_type });
                }
                let named = Reference::Descriptor(chosen.clone().into());
                (self.document(&named).await?, Some(fetched.digest))
            }
        };
        let Fetched { digest, media_type, bytes, document } = fetched;
        let Document::Manifest(manifest) = document else {
            return Err(Error::NestedIndex(digest.into()));
        };
        check(&digest, &manifest)?;
        Ok(Image { digest, media_type, bytes, manifest: *manifest, index })
    }

    async fn document(&self, reference: &Reference) -> Result<Fetched, Error> {
        let what = reference.name(self.repository.as_str());
        let mut get = self.request(&format!("manifests/{}", reference.path()), what);
        get.accept = Some(ACCEPT);
        let (headers, bytes) = self.read(&get, self.http.config.manifest_size).await?;
        if body::is_web_page(&headers) || bytes.trim_ascii_start().starts_with(b"<") {
            return Err(Error::WebPage(self.host.clone()));
        }
        if let Some(reason) = self.reason_in(&bytes) {
            return Err(Error::ErrorBody { host: self.host.clone(), reason });
        }
        let promised = || {
            let value = headers.get("docker-content-digest")?.to_str().ok()?;
            value.parse::<Digest>().ok()
        };
        let digest = self.verify(reference, promised(), &bytes)?;
        let stated = body::media_type(&headers);
        let manifest = |source| Error::Manifest { what: get.what.clone(), source };
        let (media_type, document) = match stated.as_deref() {
            // Servers that know files only.
            None | Some("application/json" | "text/plain" | "application/octet-stream") => {
                Document::parse_untyped(&bytes).map_err(manifest)?
            }
            Some(stated) => {
                let media_type = MediaType::from(stated);
                let document = Document::parse(&media_type, &bytes).map_err(manifest)?;
                (media_type, document)
            }
        };
        Ok(Fetched { digest, media_type, bytes, document })
    }

    /// A document counts under the digest that was asked for, else under the
    /// one that the registry promises, else under its own.
    fn verify(
        &self,
        reference: &Reference,
        promised: Option<Digest>,
        bytes: &Bytes,
    ) -> Result<Digest, Error> {
        let (expected, size) = match reference {
            Reference::Tag(_) => (promised.unwrap_or_else(|| Digest::sha256(bytes)), None),
            Reference::Digest(digest) => (*digest, None),
            Reference::Descriptor(descriptor) => (descriptor.digest, Some(descriptor.size)),
        };
        let mut verifier = Verifier::new(expected);
        if let Some(size) = size {
            verifier = verifier.size(size);
        }
        verifier.update(bytes).and_then(|()| verifier.finish()).map_err(|source| Error::Content {
            host: self.host.clone(),
            digest: expected.into(),
            source,
        })
    }

    /// The config of an image, as it is and read.
    pub(crate) async fn config(
        self: &Arc<Self>,
        image: &Image,
        platform: &Platform,
    ) -> Result<(Bytes, ImageConfig), Error> {
        let descriptor = &image.manifest.config;
        let limit = self.http.config.manifest_size;
        if descriptor.size > limit {
            let what = descriptor.digest.to_string();
            return Err(Error::DocumentTooLarge { what, limit });
        }
        let bytes = self.blob_bytes(descriptor).await?;
        let config = ImageConfig::parse(&bytes)
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
        Ok((bytes, config))
    }
}

/// How a document is named to the registry.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
    /// Out of an index, which says the size as well.
    Descriptor(Box<Descriptor>),
}

impl Reference {
    fn path(&self) -> String {
        match self {
            Self::Tag(tag) => tag.clone(),
            Self::Digest(digest) => digest.to_string(),
            Self::Descriptor(descriptor) => descriptor.digest.to_string(),
        }
    }

    fn name(&self, repository: &str) -> String {
        let separator = if matches!(self, Self::Tag(_)) { ':' } else { '@' };
        format!("{repository}{separator}{}", self.path())
    }
}

/// The image for `wanted`. One for the plain architecture is better than one
/// that needs a later processor; an index of a single image may say nothing.
fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Error> {
    let images = || index.manifests.iter().filter(|one| !one.is_attestation());
    let fitting = images().filter_map(|one| {
        let platform = one.platform.as_ref().filter(|platform| platform.satisfies(wanted))?;
        Some((platform.variant != wanted.variant, one))
    });
    let best = fitting.min_by_key(|(is_other_variant, _)| *is_other_variant);
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

fn check(digest: &Digest, manifest: &Manifest) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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
