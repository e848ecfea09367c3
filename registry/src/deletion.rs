//! Deletion of tags, manifests and blobs.
//!
//! Owns what a repository stops to have. Refuses to touch bytes: they are in a
//! pool for all, and who else has them is not known here.
//!
//! Invariant: after an answer with success, this process tells of the thing no
//! more, and others of the region after at most a minute, for which they
//! remember links.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use slipway_blobstore::{ObjectKey, Prefix, Repository};
use slipway_oci::{Digest, Document, Tag};

use crate::config::MANIFEST_SIZE;
use crate::error::Error;
use crate::referrers;
use crate::registry::Registry;
use crate::route::Reference;

/// Tags that are looked at or deleted at once.
const AT_ONCE: usize = 16;

impl Registry {
    /// `DELETE /v2/<name>/blobs/<digest>`: the repository has the blob no more.
    pub(crate) async fn delete_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Response, Error> {
        let links = &self.inner.links;
        links.blob_now(repository, digest).await?.ok_or(Error::BlobUnknown)?;
        links.remove_blob(repository, digest).await?;
        Ok(StatusCode::ACCEPTED.into_response())
    }

    /// `DELETE /v2/<name>/manifests/<tag or digest>`
    pub(crate) async fn delete_manifest(
        &self,
        repository: &Repository,
        reference: Reference,
    ) -> Result<Response, Error> {
        match reference {
            Reference::Tag(tag) => {
                let known = self.inner.links.tag(repository, &tag).await?;
                known.ok_or(Error::ManifestUnknown)?;
                self.inner.links.remove_tag(repository, &tag).await?;
            }
            Reference::Digest(digest) => self.delete_by_digest(repository, &digest).await?,
        }
        Ok(StatusCode::ACCEPTED.into_response())
    }

    /// The manifest goes first: what is left of its tags and of its entry among
    /// the referrers, should the process die here, leads nowhere.
    async fn delete_by_digest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        let links = &self.inner.links;
        links.manifest_now(repository, digest).await?.ok_or(Error::ManifestUnknown)?;
        let bytes = self.inner.store.get_bytes(&ObjectKey::Blob(*digest), MANIFEST_SIZE).await?;
        links.remove_manifest(repository, digest).await?;
        let document = Document::parse_untyped(&bytes).ok().map(|(_, document)| document);
        if let Some(subject) = document.as_ref().and_then(referrers::subject) {
            links.remove_referrer(repository, &subject.digest, digest).await?;
        }
        self.delete_tags_of(repository, digest).await
    }

    /// A tag that is moved to another manifest in the moment between the look
    /// and the deletion is lost with the others: object stores have no deletion
    /// under a condition.
    async fn delete_tags_of(&self, repository: &Repository, digest: &Digest) -> Result<(), Error> {
        let entries = self.inner.store.list(&Prefix::Tags(repository.clone()));
        let keys: Vec<ObjectKey> = entries.map_ok(|entry| entry.key).try_collect().await?;
        let tags = keys.into_iter().filter_map(|key| match key {
            ObjectKey::TagLink { tag, .. } => Some(tag),
            _ => None,
        });
        let delete = |tag: Tag| async move {
            if self.inner.links.tag(repository, &tag).await? == Some(*digest) {
                self.inner.links.remove_tag(repository, &tag).await?;
            }
            Ok::<_, Error>(())
        };
        stream::iter(tags).map(delete).buffer_unordered(AT_ONCE).try_collect().await
    }
}
