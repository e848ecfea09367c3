//! What a repository has, read by the process itself, not by HTTP.
//!
//! Owns the same rules as a client's reads: the right to the repository, and its
//! link to what is read. Refuses to say why there is nothing: that it does not
//! exist and that it is not for the one who asks are one answer.

use bytes::Bytes;
use slipway_blobstore::{BoxError, ObjectKey, Repository};
use slipway_oci::{Descriptor, Digest, MediaType};

use crate::auth::Access;
use crate::config::MANIFEST_SIZE;
use crate::links::Link;
use crate::registry::Registry;
use crate::route::Reference;

/// A repository could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The object store does not answer as it should.
    #[error("the repository `{repository}` cannot be read")]
    Store {
        /// The repository.
        repository: Repository,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The bytes do not have the digest they lie under.
    #[error("`{0}` is damaged in the object store")]
    Damaged(Digest),
}

/// A manifest or index as a repository has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldManifest {
    /// Its digest.
    pub digest: Digest,
    /// The type that it was pushed under.
    pub media_type: MediaType,
    /// Its bytes, verified.
    pub bytes: Bytes,
}

impl Registry {
    /// The manifest or index that `repository` has under a tag or digest, if it has
    /// one and `access` covers it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn find_manifest(
        &self,
        access: &Access,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Option<HeldManifest>, LookupError> {
        if !access.may_pull(repository) {
            return Ok(None);
        }
        let links = &self.inner.links;
        let digest = match reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(tag) => {
                links.tag(repository, tag).await.map_err(|e| store(repository, e))?
            }
        };
        let Some(digest) = digest else { return Ok(None) };
        let link = links.manifest_now(repository, &digest).await;
        let Some(link) = link.map_err(|error| store(repository, error))? else { return Ok(None) };
        let Link { media_type: Some(media_type), .. } = link else {
            return Err(store(repository, "the link of a manifest has no media type"));
        };
        let bytes = self.verified(repository, &digest).await?;
        Ok(Some(HeldManifest { digest, media_type, bytes }))
    }

    /// Whether `repository` has this blob, at this size, and `access` covers it.
    ///
    /// # Errors
    /// See [`LookupError`].
    pub async fn find_blob(
        &self,
        access: &Access,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<bool, LookupError> {
        if !access.may_pull(repository) {
            return Ok(false);
        }
        let link = self.inner.links.blob_now(repository, &blob.digest).await;
        let link = link.map_err(|error| store(repository, error))?;
        Ok(link.is_some_and(|link| link.size == blob.size))
    }

    /// The bytes of a small blob, if `repository` has it and `access` covers it.
    ///
    /// # Errors
    /// See [`LookupError`]; also if it is larger than 4 MiB.
    pub async fn read_blob(
        &self,
        access: &Access,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<Option<Bytes>, LookupError> {
        if !self.find_blob(access, repository, blob).await? {
            return Ok(None);
        }
        self.verified(repository, &blob.digest).await.map(Some)
    }

    async fn verified(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Bytes, LookupError> {
        let read = self.inner.store.get_bytes(&ObjectKey::Blob(*digest), MANIFEST_SIZE).await;
        let bytes = read.map_err(|error| store(repository, error))?;
        match Digest::of(digest.algorithm(), &bytes) == *digest {
            true => Ok(bytes),
            false => Err(LookupError::Damaged(*digest)),
        }
    }
}

fn store(repository: &Repository, source: impl Into<BoxError>) -> LookupError {
    LookupError::Store { repository: repository.clone(), source: source.into() }
}
