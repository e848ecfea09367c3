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
        match self.check_complete(repository, &document).await {
            Ok(()) => {}
            Err(Error::ManifestBlobUnknown(missing)) => {
                return Err(DepositError::Gone { digest, missing });
            }
            Err(error) => return Err(refused(error.into())),
        }
        let size = bytes.len() as u64;
        let stored = self.inner.store.put_bytes(&ObjectKey::Blob(digest), bytes).await;
        stored.map_err(|source| store(repository, source))?;
        let linked = self.inner.links.add_manifest(repository, &digest, size, media_type).await;
        linked.map_err(|source| store(repository, source))
    }
}

fn list(digests: &[Digest]) -> String {
    digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn store(repository: &Repository, source: impl Into<BoxError>) -> DepositError {
    DepositError::Store { repository: repository.clone(), source: source.into() }
}
