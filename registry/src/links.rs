//! Links: small objects that say which repository has which blob, manifest and
//! tag, and which manifest refers to which.
//!
//! Owns their stored form and a bounded cache of those that do not change.
//!
//! Invariant: a link is told of only while its bytes are in the pool, so that a
//! client whose blob was lost sends it again instead of publishing a manifest
//! of nothing. The cache may tell of a link for [`CACHED_FOR`] after it is gone.

use std::time::Duration;

use moka::future::Cache;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_oci::{Descriptor, Digest, MediaType, Tag};

use crate::config::MANIFEST_SIZE;
use crate::error::Error;

/// How long a link is believed without looking again. Whoever deletes links
/// or blobs keeps blobs that were linked later than this.
const CACHED_FOR: Duration = Duration::from_secs(60);
const CACHED_LINKS: u64 = 100_000;
const LINK_SIZE: u64 = 64 * 1024;
const VERSION: u32 = 1;

/// What a repository knows of a blob or manifest that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Link {
    version: u32,
    /// Bytes in the pool.
    pub(crate) size: u64,
    /// The type that a manifest was pushed under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<MediaType>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TagRecord {
    version: u32,
    digest: Digest,
}

/// What a list of referrers says of one.
#[derive(Debug, Serialize, Deserialize)]
struct ReferrerRecord {
    version: u32,
    descriptor: Descriptor,
}

#[derive(Debug, Clone)]
pub(crate) struct Links {
    store: Store,
    cache: Cache<ObjectKey, Link>,
}

impl Links {
    pub(crate) fn new(store: Store) -> Self {
        let cache = Cache::builder().max_capacity(CACHED_LINKS).time_to_live(CACHED_FOR).build();
        Self { store, cache }
    }

    pub(crate) async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Link>, Error> {
        self.look_up(blob_key(repository, digest), digest).await
    }

    pub(crate) async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Link>, Error> {
        self.look_up(manifest_key(repository, digest), digest).await
    }

    /// The link as it is now, for decisions that must not rest on what was
    /// deleted a moment ago.
    pub(crate) async fn blob_now(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Link>, Error> {
        self.look_up_now(blob_key(repository, digest), digest).await
    }

    /// As [`Links::blob_now`], of a manifest.
    pub(crate) async fn manifest_now(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Option<Link>, Error> {
        self.look_up_now(manifest_key(repository, digest), digest).await
    }

    pub(crate) async fn tag(
        &self,
        repository: &Repository,
        tag: &Tag,
    ) -> Result<Option<Digest>, Error> {
        let key = ObjectKey::TagLink { repository: repository.clone(), tag: tag.clone() };
        let record: Option<TagRecord> = self.read(&key, LINK_SIZE).await?;
        Ok(record.map(|record| record.digest))
    }

    /// Gives a repository a blob that is in the pool.
    pub(crate) async fn add_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
    ) -> Result<(), slipway_blobstore::Error> {
        let link = Link { version: VERSION, size, media_type: None };
        self.add(blob_key(repository, digest), link).await
    }

    /// Gives a repository a manifest that is in the pool.
    pub(crate) async fn add_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
        size: u64,
        media_type: MediaType,
    ) -> Result<(), slipway_blobstore::Error> {
        let link = Link { version: VERSION, size, media_type: Some(media_type) };
        self.add(manifest_key(repository, digest), link).await
    }

    /// Lets a tag stand for a manifest of its repository.
    pub(crate) async fn set_tag(
        &self,
        repository: &Repository,
        tag: &Tag,
        digest: Digest,
    ) -> Result<(), Error> {
        let key = ObjectKey::TagLink { repository: repository.clone(), tag: tag.clone() };
        let record = TagRecord { version: VERSION, digest };
        let bytes = serde_json::to_vec(&record).expect("a record of text serialises");
        Ok(self.store.put_bytes(&key, bytes).await?)
    }

    /// Notes that a manifest refers to a subject, as a list of referrers says it.
    pub(crate) async fn add_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        descriptor: Descriptor,
    ) -> Result<(), Error> {
        let key = referrer_key(repository, subject, &descriptor.digest);
        let record = ReferrerRecord { version: VERSION, descriptor };
        let bytes = serde_json::to_vec(&record).expect("a record of text serialises");
        Ok(self.store.put_bytes(&key, bytes).await?)
    }

    /// What is noted of a manifest that refers to a subject, if the repository
    /// has that manifest.
    pub(crate) async fn referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<Option<Descriptor>, Error> {
        if self.manifest(repository, digest).await?.is_none() {
            return Ok(None);
        }
        let key = referrer_key(repository, subject, digest);
        // It holds the manifest's annotations, so it is as large as one.
        let record: Option<ReferrerRecord> = self.read(&key, MANIFEST_SIZE + LINK_SIZE).await?;
        Ok(record.map(|record| record.descriptor))
    }

    pub(crate) async fn remove_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.remove(&blob_key(repository, digest)).await
    }

    pub(crate) async fn remove_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.remove(&manifest_key(repository, digest)).await
    }

    pub(crate) async fn remove_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        digest: &Digest,
    ) -> Result<(), Error> {
        self.remove(&referrer_key(repository, subject, digest)).await
    }

    pub(crate) async fn remove_tag(&self, repository: &Repository, tag: &Tag) -> Result<(), Error> {
        let key = ObjectKey::TagLink { repository: repository.clone(), tag: tag.clone() };
        self.remove(&key).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<(), Error> {
        self.store.delete(key).await?;
        self.cache.invalidate(key).await;
        Ok(())
    }

    async fn add(&self, key: ObjectKey, link: Link) -> Result<(), slipway_blobstore::Error> {
        let bytes = serde_json::to_vec(&link).expect("a record of text serialises");
        self.store.put_bytes(&key, bytes).await?;
        self.cache.insert(key, link).await;
        Ok(())
    }

    async fn look_up(&self, key: ObjectKey, digest: &Digest) -> Result<Option<Link>, Error> {
        if let Some(link) = self.cache.get(&key).await {
            return Ok(Some(link));
        }
        self.look_up_now(key, digest).await
    }

    async fn look_up_now(&self, key: ObjectKey, digest: &Digest) -> Result<Option<Link>, Error> {
        let Some(link) = self.read::<Link>(&key, LINK_SIZE).await? else {
            self.cache.invalidate(&key).await;
            return Ok(None);
        };
        match self.store.head(&ObjectKey::Blob(*digest)).await {
            Ok(metadata) if metadata.size == link.size => {
                self.cache.insert(key, link.clone()).await;
                Ok(Some(link))
            }
            Ok(_) => self.without_bytes(&key).await,
            Err(error) if error.is_not_found() => self.without_bytes(&key).await,
            Err(error) => Err(error.into()),
        }
    }

    /// The bytes of a link are lost: the next look believes no memory of it.
    async fn without_bytes(&self, key: &ObjectKey) -> Result<Option<Link>, Error> {
        self.cache.invalidate(key).await;
        Ok(None)
    }

    async fn read<T: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        limit: u64,
    ) -> Result<Option<T>, Error> {
        let bytes = match self.store.get_bytes(key, limit).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| Error::Internal(error.into()))
    }
}

fn blob_key(repository: &Repository, digest: &Digest) -> ObjectKey {
    ObjectKey::BlobLink { repository: repository.clone(), digest: *digest }
}

fn manifest_key(repository: &Repository, digest: &Digest) -> ObjectKey {
    ObjectKey::ManifestLink { repository: repository.clone(), digest: *digest }
}

fn referrer_key(repository: &Repository, subject: &Digest, digest: &Digest) -> ObjectKey {
    ObjectKey::Referrer { repository: repository.clone(), subject: *subject, digest: *digest }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn repository() -> Repository {
        "00000000-0000-0000-0000-000000000001/a".parse().unwrap()
    }

    #[test]
    fn stored_forms_of_the_first_version_read_on() {
        let link: Link = serde_json::from_str(r#"{"version":1,"size":5}"#).unwrap();
        assert_eq!(link, Link { version: 1, size: 5, media_type: None });
        let json =
            r#"{"version":1,"size":5,"mediaType":"application/vnd.oci.image.index.v1+json"}"#;
        let link: Link = serde_json::from_str(json).unwrap();
        assert_eq!(link.media_type, Some(MediaType::OciIndex));
        assert_eq!(serde_json::to_string(&link).unwrap(), json);
    }

    #[tokio::test]
    async fn a_link_without_its_bytes_is_not_told_of() {
        let store = Store::in_memory();
        let digest = Digest::sha256("hello");
        let blob = ObjectKey::Blob(digest);
        store.put_bytes(&blob, "hello").await.unwrap();
        Links::new(store.clone()).add_blob(&repository(), &digest, 5).await.unwrap();
        let fresh = || Links::new(store.clone());
        assert!(fresh().blob(&repository(), &digest).await.unwrap().is_some());
        assert!(fresh().manifest(&repository(), &digest).await.unwrap().is_none());
        store.put_bytes(&blob, "cut").await.unwrap();
        assert!(fresh().blob(&repository(), &digest).await.unwrap().is_none());
        store.delete(&blob).await.unwrap();
        assert!(fresh().blob(&repository(), &digest).await.unwrap().is_none());
    }
}
