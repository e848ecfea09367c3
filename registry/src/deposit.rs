//! Images that the worker itself brings into a repository, not by HTTP.
//!
//! Owns the same rules as a push: blobs are linked after their bytes are in the
//! pool, and a manifest becomes visible when everything that it needs is.
//! Refuses to judge rights: who calls has shown them.

use bytes::Bytes;
use slipway_blobstore::{BoxError, ObjectKey, Repository};
use slipway_oci::{Descriptor, Digest, Document, MediaType};

use crate::error::Error;
use crate::registry::Registry;

/// A deposit failed.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// The object store does not answer as it should.
    #[error("the repository `{repository}` cannot be used")]
    Store {
        /// The repository.
        repository: Repository,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The pool has lost what the manifest needs, though it was there before: a
    /// sweep took it meanwhile. Bring it again, then the manifest.
    #[error("the manifest `{digest}` needs blobs that are gone: {}", list(missing))]
    Gone {
        /// The manifest.
        digest: Digest,
        /// What it lacks.
        missing: Vec<Digest>,
    },
    /// The manifest cannot be kept: it is none, or needs what is not there.
    #[error("the manifest `{digest}` cannot be kept")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// Why.
        #[source]
        source: BoxError,
    },
}

impl Registry {
    /// Whether the repository has this blob, at this size, with its bytes.
    ///
    /// # Errors
    /// [`DepositError::Store`].
    pub async fn has_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<bool, DepositError> {
        match self.inner.links.blob(repository, &blob.digest).await {
            Ok(link) => Ok(link.is_some_and(|link| link.size == blob.size)),
            Err(source) => Err(store(repository, source)),
        }
    }

    /// Gives the repository a blob whose bytes are in the pool.
    ///
    /// # Errors
    /// [`DepositError::Store`].
    pub async fn link_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<(), DepositError> {
        let linked = self.inner.links.add_blob(repository, &blob.digest, blob.size).await;
        linked.map_err(|source| store(repository, source))
    }

    /// Gives the repository the manifest `digest`, byte for byte. What it needs
    /// has to be in the repository.
    ///
    /// # Errors
    /// See [`DepositError`].
    pub async fn deposit_manifest(
        &self,
        repository: &Repository,
        digest: Digest,
        media_type: MediaType,
        bytes: Bytes,
    ) -> Result<(), DepositError> {
        let refused = |source| DepositError::Manifest { digest, source };
        if Digest::of(digest.algorithm(), &bytes) != digest {
            return Err(refused("its bytes have another digest".into()));
        }
        let document =
            Document::parse(&media_type, &bytes).map_err(|error| refused(error.into()))?;
        let found = match self.find_all(repository, &document).await {
            Ok(found) => found,
            Err(Error::ManifestBlobUnknown(missing)) => {
                return Err(DepositError::Gone { digest, missing });
            }
            Err(error) => return Err(refused(error.into())),
        };
        let size = bytes.len() as u64;
        if self.has_manifest(repository, &digest, size, &media_type).await? {
            return Ok(());
        }
        let refreshed = self.refresh(repository, &document, found).await;
        refreshed.map_err(|error| refused(error.into()))?;
        let stored = self.inner.store.put_bytes(&ObjectKey::Blob(digest), bytes).await;
        stored.map_err(|source| store(repository, source))?;
        let linked = self.inner.links.add_manifest(repository, &digest, size, media_type).await;
        linked.map_err(|source| store(repository, source))
    }

    /// Whether the repository has this very manifest, with its bytes, and nobody is
    /// about to sweep them: then there is nothing to write, which costs far more than
    /// to look.
    async fn has_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        media_type: &MediaType,
    ) -> Result<bool, DepositError> {
        let link = self.inner.links.manifest_now(repository, digest).await;
        let link = link.map_err(|source| store(repository, source))?;
        let is_this = link
            .is_some_and(|link| link.size == size && link.media_type.as_ref() == Some(media_type));
        if !is_this {
            return Ok(false);
        }
        self.is_kept(digest).await.map_err(|source| store(repository, source))
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn store(repository: &Repository, source: impl Into<BoxError>) -> DepositError {
    DepositError::Store { repository: repository.clone(), source: source.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use slipway_blobstore::Store;

    use super::*;
    use crate::auth::StaticAuthorizer;
    use crate::config::Limits;

    #[tokio::test]
    async fn a_manifest_is_written_again_only_if_it_may_be_gone() {
        let store = Store::in_memory();
        let registry =
            Registry::new(store.clone(), Arc::new(StaticAuthorizer::new()), Limits::default());
        let to: Repository = "00000000-0000-0000-0000-000000000001/a".parse().unwrap();
        let config = Descriptor::of(MediaType::OciImageConfig, b"{}");
        store.put_bytes(&ObjectKey::Blob(config.digest), "{}").await.unwrap();
        registry.link_blob(&to, &config).await.unwrap();
        let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [] });
        let bytes = Bytes::from(manifest.to_string());
        let digest = Digest::sha256(&bytes);
        let deposit = async || {
            let kind = MediaType::OciManifest;
            registry.deposit_manifest(&to, digest, kind, bytes.clone()).await.unwrap();
            store.head(&ObjectKey::Blob(digest)).await.unwrap().etag.unwrap()
        };
        let first = deposit().await;
        assert_eq!(deposit().await, first, "it is there");
        store.delete(&ObjectKey::Blob(digest)).await.unwrap();
        let second = deposit().await;
        assert_ne!(second, first, "its bytes were lost");
        store.put_bytes(&ObjectKey::Condemned(digest), "0").await.unwrap();
        assert_ne!(deposit().await, second, "a sweep is about to take it");
    }
}
