//! Taking what nobody has any more out of a region's store.
//!
//! Owns three kinds of it: links to blobs that no manifest of their repository
//! needs, bytes in the pool that no repository links, and uploads that nobody
//! goes on with. Refuses to judge manifests: who deletes an image, deletes its
//! link. Safe beside pushes, pulls and other sweeps of the same store, and to be
//! killed at any instant.
//!
//! Invariant: bytes go only if nobody linked them for the grace time *after* they
//! were condemned, which is written down where everybody sees it. Whoever finds
//! bytes in the pool that are condemned brings them again instead of relying on
//! them; so nothing that takes less than the grace time can lose them.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt as _;
use slipway_blobstore::{Error, Metadata, ObjectKey, Prefix, Repository, Store};
use slipway_oci::{Digest, Document, MediaType};

use crate::config::MANIFEST_SIZE;
use crate::links::Link;
use crate::registry::Registry;

/// Largest link that is read.
const LINK_SIZE: u64 = 64 << 10;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Links to blobs that were taken.
    pub links: u64,
    /// Blobs that are condemned since now.
    pub condemned: u64,
    /// Blobs that were taken.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unfinished uploads that were taken, or parts of them.
    pub uploads: u64,
}

impl Registry {
    /// Whether the pool has a blob that may be relied upon.
    ///
    /// # Errors
    /// The object store does not answer.
    pub async fn is_kept(&self, digest: &Digest) -> Result<bool, Error> {
        let store = &self.inner.store;
        if !store.exists(&ObjectKey::Blob(*digest)).await? {
            return Ok(false);
        }
        Ok(!store.exists(&ObjectKey::Condemned(*digest)).await?)
    }
}

/// Looks through a whole store once, as of `now`. `grace` has to be longer than
/// any build, pull or push takes.
///
/// # Errors
/// The object store does not answer. What was taken until then is gone rightly,
/// and the next sweep goes on.
pub async fn sweep(store: &Store, grace: Duration, now: SystemTime) -> Result<Swept, Error> {
    let sweep = Sweep { store, grace, now };
    let mut swept = Swept::default();
    sweep.uploads(&mut swept).await?;
    // Links go before bytes, so that what they held is condemned in one turn.
    for repository in sweep.repositories().await? {
        sweep.repository(&repository, &mut swept).await?;
    }
    sweep.pool(&mut swept).await?;
    Ok(swept)
}

struct Sweep<'a> {
    store: &'a Store,
    grace: Duration,
    now: SystemTime,
}

impl Sweep<'_> {
    /// Whether an object rests for longer than the grace time.
    fn is_old(&self, metadata: &Metadata) -> bool {
        self.is_past(metadata.modified)
    }

    /// A clock that was set back makes nothing old.
    fn is_past(&self, time: SystemTime) -> bool {
        self.now.duration_since(time).is_ok_and(|age| age > self.grace)
    }

    async fn uploads(&self, swept: &mut Swept) -> Result<(), Error> {
        let mut uploads = self.store.list(&Prefix::Uploads);
        while let Some(entry) = uploads.try_next().await? {
            if self.is_old(&entry.metadata) {
                self.store.delete(&entry.key).await?;
                swept.uploads += 1;
            }
        }
        Ok(())
    }

    async fn repositories(&self) -> Result<HashSet<Repository>, Error> {
        let mut found = HashSet::new();
        let mut links = self.store.list(&Prefix::Links);
        while let Some(entry) = links.try_next().await? {
            if let ObjectKey::BlobLink { repository, .. } = entry.key {
                found.insert(repository);
            }
        }
        Ok(found)
    }

    /// Takes the old links of a repository that no manifest in it needs.
    async fn repository(&self, repository: &Repository, swept: &mut Swept) -> Result<(), Error> {
        // Blobs first: a manifest that comes meanwhile has made its links young.
        let mut old = HashSet::new();
        let mut blobs = self.store.list(&Prefix::BlobLinks(repository.clone()));
        while let Some(entry) = blobs.try_next().await? {
            if let ObjectKey::BlobLink { digest, .. } = entry.key
                && self.is_old(&entry.metadata)
            {
                old.insert(digest);
            }
        }
        if old.is_empty() {
            return Ok(());
        }
        let Some(needed) = self.needed(repository).await? else { return Ok(()) };
        for digest in old.difference(&needed) {
            let link = ObjectKey::BlobLink { repository: repository.clone(), digest: *digest };
            // Somebody may have come back to it in this moment.
            match self.store.head(&link).await {
                Ok(metadata) if self.is_old(&metadata) => {}
                Ok(_) => continue,
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error),
            }
            self.store.delete(&link).await?;
            swept.links += 1;
        }
        Ok(())
    }

    /// Every digest that the manifests of a repository name; nothing if one of
    /// them cannot be read, since then nobody knows.
    async fn needed(&self, repository: &Repository) -> Result<Option<HashSet<Digest>>, Error> {
        let mut needed = HashSet::new();
        let mut manifests = self.store.list(&Prefix::ManifestLinks(repository.clone()));
        while let Some(entry) = manifests.try_next().await? {
            let ObjectKey::ManifestLink { digest, .. } = entry.key else { continue };
            needed.insert(digest);
            match self.document(&entry.key, digest).await? {
                Read::Document(document) => {
                    needed.extend(document.required().map(|descriptor| descriptor.digest));
                }
                Read::Gone => {}
                Read::Unreadable => {
                    let (repository, digest) = (repository.to_string(), digest.to_string());
                    tracing::warn!(
                        repository,
                        digest,
                        "a manifest cannot be read: its repository is not swept"
                    );
                    return Ok(None);
                }
            }
        }
        Ok(Some(needed))
    }

    async fn document(&self, link: &ObjectKey, digest: Digest) -> Result<Read, Error> {
        let Some(bytes) = self.read(link, LINK_SIZE).await? else { return Ok(Read::Gone) };
        let link: Option<Link> = serde_json::from_slice(&bytes).ok();
        let Some(media_type) = link.and_then(|link| link.media_type) else {
            return Ok(Read::Unreadable);
        };
        let Some(bytes) = self.read(&ObjectKey::Blob(digest), MANIFEST_SIZE).await? else {
            return Ok(Read::Unreadable);
        };
        Ok(parse(&media_type, &bytes))
    }

    async fn read(&self, key: &ObjectKey, limit: u64) -> Result<Option<bytes::Bytes>, Error> {
        match self.store.get_bytes(key, limit).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Condemns bytes that nobody links, and takes those that still nobody links
    /// a grace time later.
    async fn pool(&self, swept: &mut Swept) -> Result<(), Error> {
        // What was condemned, then who has what: a link that is older than the
        // grace time is in the second if the first is.
        let condemned = self.condemned().await?;
        let linked = self.linked().await?;
        let mut blobs = self.store.list(&Prefix::Blobs);
        while let Some(entry) = blobs.try_next().await? {
            let ObjectKey::Blob(digest) = entry.key else { continue };
            let is_wanted = linked.contains(&digest) || !self.is_old(&entry.metadata);
            match (is_wanted, condemned.get(&digest)) {
                (true, None) => {}
                (true, Some(_)) => self.pardon(digest).await?,
                (false, None) => {
                    self.condemn(digest).await?;
                    swept.condemned += 1;
                }
                (false, Some(since)) if self.is_past(*since) => self.take(digest, swept).await?,
                (false, Some(_)) => {}
            }
        }
        // A sweep that ended between the bytes and the mark.
        for digest in condemned.into_keys() {
            if !self.store.exists(&ObjectKey::Blob(digest)).await? {
                self.pardon(digest).await?;
            }
        }
        Ok(())
    }

    async fn condemn(&self, digest: Digest) -> Result<(), Error> {
        let since = self.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.store.put_bytes(&ObjectKey::Condemned(digest), since.to_string()).await
    }

    /// What is condemned, and since when.
    async fn condemned(&self) -> Result<HashMap<Digest, SystemTime>, Error> {
        let mut found = HashMap::new();
        let mut marks = self.store.list(&Prefix::Condemned);
        while let Some(entry) = marks.try_next().await? {
            let ObjectKey::Condemned(digest) = entry.key else { continue };
            let text = self.read(&entry.key, LINK_SIZE).await?.unwrap_or_default();
            let since = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            // What cannot be read counts from when it was written.
            let since =
                since.map_or(entry.metadata.modified, |s| UNIX_EPOCH + Duration::from_secs(s));
            found.insert(digest, since);
        }
        Ok(found)
    }

    /// Everything that any repository has.
    async fn linked(&self) -> Result<HashSet<Digest>, Error> {
        let mut linked = HashSet::new();
        let mut links = self.store.list(&Prefix::Links);
        while let Some(entry) = links.try_next().await? {
            if let ObjectKey::BlobLink { digest, .. } | ObjectKey::ManifestLink { digest, .. } =
                entry.key
            {
                linked.insert(digest);
            }
        }
        Ok(linked)
    }

    async fn take(&self, digest: Digest, swept: &mut Swept) -> Result<(), Error> {
        let key = ObjectKey::Blob(digest);
        // It may have been brought again since it was listed.
        let metadata = match self.store.head(&key).await {
            Ok(metadata) => metadata,
            Err(error) if error.is_not_found() => return self.pardon(digest).await,
            Err(error) => return Err(error),
        };
        if self.is_old(&metadata) {
            self.store.delete(&key).await?;
            swept.blobs += 1;
            swept.bytes += metadata.size;
        }
        self.pardon(digest).await
    }

    async fn pardon(&self, digest: Digest) -> Result<(), Error> {
        self.store.delete(&ObjectKey::Condemned(digest)).await
    }
}

enum Read {
    Document(Document),
    /// It was deleted since it was listed.
    Gone,
    Unreadable,
}

fn parse(media_type: &MediaType, bytes: &[u8]) -> Read {
    Document::parse(media_type, bytes).map_or(Read::Unreadable, Read::Document)
}

#[cfg(test)]
mod tests;
