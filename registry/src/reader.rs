//! Reading an image that was pushed: its manifest and config.
//!
//! Owns the choice by platform out of an index, and what is to be known of an
//! image without its layers. Refuses rights: it is for the process that owns
//! the store.

use slipway_blobstore::{ObjectKey, Store};
use slipway_oci::{Digest, Document, ImageConfig, Manifest, MediaType, Platform};

use crate::config::MANIFEST_SIZE;

/// An image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store has no such object, or fails.
    #[error("`{digest}` cannot be read")]
    Store {
        /// The manifest or config.
        digest: Digest,
        /// The store's error.
        #[source]
        source: slipway_blobstore::Error,
    },
    /// The bytes do not have the digest they lie under.
    #[error("`{0}` is damaged in the object store")]
    Damaged(Digest),
    /// The bytes are no manifest or index.
    #[error("`{digest}` is not a manifest")]
    Manifest {
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: slipway_oci::error::Manifest,
    },
    /// The manifest is that of another kind of artifact.
    #[error("`{digest}` is an artifact of type `{media_type}`, not an image")]
    NoImage {
        /// The manifest.
        digest: Digest,
        /// The artifact's type.
        media_type: MediaType,
    },
    /// The config is no image config.
    #[error("image config `{digest}` cannot be read")]
    Config {
        /// The config.
        digest: Digest,
        /// What is wrong with it.
        #[source]
        source: slipway_oci::error::ImageConfig,
    },
    /// The image is not made for the platform.
    #[error("the image is for {}, not for {wanted}", join(offered))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        offered: Vec<Platform>,
    },
}

impl ReadError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store { source, .. } if source.is_retryable())
    }
}

fn join(platforms: &[Platform]) -> String {
    match platforms {
        [] => "no platform".to_owned(),
        _ => platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// One platform's image, without its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// Digest of the index that it was chosen from, if the image came as one.
    pub index: Option<Digest>,
    /// The manifest.
    pub manifest: Manifest,
    /// The image config.
    pub config: ImageConfig,
}

impl Image {
    /// Bytes of config and layers, compressed as they are stored.
    #[must_use]
    pub fn compressed_size(&self) -> u64 {
        self.manifest.compressed_size()
    }

    /// What the image runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        self.config.platform()
    }

    /// Program and first arguments; empty if the image has none.
    #[must_use]
    pub fn entrypoint(&self) -> &[String] {
        self.config.entrypoint()
    }

    /// Arguments, or the program where there is no entrypoint.
    #[must_use]
    pub fn cmd(&self) -> &[String] {
        self.config.cmd()
    }
}

/// Reads images from an object store.
#[derive(Debug, Clone)]
pub struct ManifestReader {
    store: Store,
}

impl ManifestReader {
    /// A reader of `store`.
    #[must_use]
    pub const fn new(store: Store) -> Self {
        Self { store }
    }

    /// The image for `platform` whose manifest or index is `digest`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn image(&self, digest: &Digest, platform: &Platform) -> Result<Image, ReadError> {
        match self.document(digest).await? {
            Document::Manifest(manifest) => self.complete(*digest, None, *manifest, platform).await,
            Document::Index(index) => {
                let chosen = index.select(platform).ok_or_else(|| ReadError::Platform {
                    wanted: platform.clone(),
                    offered: index.platforms().cloned().collect(),
                })?;
                let chosen = chosen.digest;
                match self.document(&chosen).await? {
                    Document::Manifest(manifest) => {
                        self.complete(chosen, Some(*digest), *manifest, platform).await
                    }
                    Document::Index(_) => {
                        let media_type = MediaType::OciIndex;
                        Err(ReadError::NoImage { digest: chosen, media_type })
                    }
                }
            }
        }
    }

    async fn complete(
        &self,
        digest: Digest,
        index: Option<Digest>,
        manifest: Manifest,
        platform: &Platform,
    ) -> Result<Image, ReadError> {
        if !manifest.is_image() {
            let kind = manifest.artifact_type.unwrap_or(manifest.config.media_type);
            return Err(ReadError::NoImage { digest, media_type: kind });
        }
        let bytes = self.bytes(&manifest.config.digest).await?;
        let config = ImageConfig::parse(&bytes)
            .map_err(|source| ReadError::Config { digest: manifest.config.digest, source })?;
        if !config.platform().satisfies(platform) {
            let (wanted, offered) = (platform.clone(), vec![config.platform()]);
            return Err(ReadError::Platform { wanted, offered });
        }
        Ok(Image { digest, index, manifest, config })
    }

    async fn document(&self, digest: &Digest) -> Result<Document, ReadError> {
        let bytes = self.bytes(digest).await?;
        match Document::parse_untyped(&bytes) {
            Ok((_, document)) => Ok(document),
            Err(source) => Err(ReadError::Manifest { digest: *digest, source }),
        }
    }

    async fn bytes(&self, digest: &Digest) -> Result<bytes::Bytes, ReadError> {
        let read = self.store.get_bytes(&ObjectKey::Blob(*digest), MANIFEST_SIZE).await;
        let bytes = read.map_err(|source| ReadError::Store { digest: *digest, source })?;
        if Digest::of(digest.algorithm(), &bytes) == *digest {
            Ok(bytes)
        } else {
            Err(ReadError::Damaged(*digest))
        }
    }
}

#[cfg(test)]
mod tests;
