//! What uploaded contexts hold, computed once for each version of an object.
//!
//! Whoever reads or writes an object first computes its SHA-256; it is
//! remembered in memory, and for the other schedulers and later ones under
//! `context.<organization>.<hash>` in the bucket `uploads`. What is remembered
//! there is a saving: without it the object is read again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use moka::future::Cache;
use serde::{Deserialize, Serialize};
use slipway_blobstore::{BoxError, ContextHash, Metadata, ObjectKey, Store};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus};
use slipway_domain::OrganizationId;
use slipway_oci::{Algorithm, Digest, Verifier};
use slipway_runtime::telemetry;

/// Versions of objects that are kept in mind.
const REMEMBERED: u64 = 100_000;
/// How often an object may be replaced while it is read.
const TRIES: usize = 5;
/// How long the bucket remembers; after that an object is read again.
const TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// What a context holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256 of the archive, byte for byte as it was uploaded.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// What a write has stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// What it holds.
    pub identity: Identity,
    /// The store's mark of this version, where it has marks.
    pub etag: Option<String>,
}

/// The store failed while a context was read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the build context `{hash}` cannot be read")]
pub struct Error {
    /// What its client calls it.
    pub hash: String,
    #[source]
    source: Arc<slipway_blobstore::Error>,
}

/// The store of build contexts. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Contexts {
    store: Store,
    found: Bucket,
    known: Cache<Version, Digest>,
}

/// One version of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Version {
    organization: OrganizationId,
    hash: ContextHash,
    etag: String,
    size: u64,
}

/// The bucket's form.
#[derive(Debug, Serialize, Deserialize)]
struct Found {
    version: u32,
    etag: String,
    size: u64,
    digest: Digest,
}

impl Contexts {
    /// The contexts in `store`, with what earlier schedulers found.
    #[must_use]
    pub fn new(store: Store, bus: &Bus) -> Self {
        let known = Cache::new(REMEMBERED);
        Self { store, found: bus.bucket(&BucketName::Uploads), known }
    }

    /// The store behind it.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// What the context holds that its client calls `hash`, or nothing if this
    /// organization has none of that name. Reads the object at most once for each
    /// version, whoever asks at the same time.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn identity(
        &self,
        organization: OrganizationId,
        hash: &str,
    ) -> Result<Option<Identity>, Error> {
        let Ok(name) = hash.to_ascii_lowercase().parse::<ContextHash>() else { return Ok(None) };
        let failed = |source| Error { hash: hash.to_owned(), source };
        for _ in 0..TRIES {
            match self.look(organization, &name).await {
                Ok(found) => return Ok(Some(found)),
                Err(error) if !error.is_not_found() => return Err(failed(error)),
                Err(_) => {}
            }
            // It is not there, or it was replaced while it was read.
            let key = key(organization, &name);
            if !self.store.exists(&key).await.map_err(|error| failed(Arc::new(error)))? {
                return Ok(None);
            }
        }
        let moving = "it is being replaced all the time".into();
        let path = key(organization, &name).to_string();
        let error =
            slipway_blobstore::Error::Unavailable { operation: "read", path, source: moving };
        Err(failed(Arc::new(error)))
    }

    async fn look(
        &self,
        organization: OrganizationId,
        name: &ContextHash,
    ) -> Result<Identity, Arc<slipway_blobstore::Error>> {
        let key = key(organization, name);
        let metadata = self.store.head(&key).await?;
        let size = metadata.size;
        let Some(version) = Version::of(organization, name.clone(), &metadata) else {
            // A store without marks of versions: nothing can be remembered.
            let (read, digest) = self.read(&key).await?;
            return Ok(Identity { digest, size: read.size });
        };
        let find = async {
            if let Some(digest) = self.recall(&version).await {
                return Ok(digest);
            }
            let (read, digest) = self.read(&key).await?;
            if read.etag.as_ref() != Some(&version.etag) {
                return Err(slipway_blobstore::Error::NotFound(key.clone().into()));
            }
            self.record(&version, digest).await;
            Ok(digest)
        };
        let digest = self.known.try_get_with(version.clone(), find).await?;
        Ok(Identity { digest, size })
    }

    /// Writes a context, verified on the way, and remembers what it holds.
    ///
    /// # Errors
    /// As [`Store::put_stream`]; nothing became visible.
    pub async fn put<S, E>(
        &self,
        organization: OrganizationId,
        hash: ContextHash,
        body: S,
        mut verifier: Verifier,
    ) -> Result<Written, slipway_blobstore::Error>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<BoxError>,
    {
        let key = key(organization, &hash);
        let mismatch =
            |source| slipway_blobstore::Error::Mismatch { key: key.clone().into(), source };
        let mut writer = self.store.writer(key.clone());
        let mut body = std::pin::pin!(body);
        let fed = async {
            while let Some(chunk) = body.next().await {
                let chunk = chunk.map_err(|error| slipway_blobstore::Error::Body {
                    key: key.clone().into(),
                    source: error.into(),
                })?;
                verifier.update(&chunk).map_err(mismatch)?;
                writer.write(chunk).await?;
            }
            let size = verifier.written();
            Ok(Identity { digest: verifier.finish().map_err(mismatch)?, size })
        };
        let identity = match fed.await {
            Ok(identity) => identity,
            Err(error) => {
                writer.abort().await;
                return Err(error);
            }
        };
        let etag = writer.commit().await?;
        if let Some(etag) = etag.clone() {
            let version = Version { organization, hash, etag, size: identity.size };
            self.known.insert(version.clone(), identity.digest).await;
            self.record(&version, identity.digest).await;
        }
        Ok(Written { identity, etag })
    }

    async fn read(&self, key: &ObjectKey) -> Result<(Metadata, Digest), slipway_blobstore::Error> {
        let object = self.store.get(key, None).await?;
        let metadata = object.metadata.clone();
        let mut verifier = Verifier::unknown(Algorithm::Sha256).size(metadata.size);
        let mismatch =
            |source| slipway_blobstore::Error::Mismatch { key: key.clone().into(), source };
        let mut stream = object.into_stream();
        while let Some(chunk) = stream.try_next().await? {
            verifier.update(&chunk).map_err(mismatch)?;
        }
        Ok((metadata, verifier.finish().map_err(mismatch)?))
    }

    /// What another scheduler found.
    async fn recall(&self, version: &Version) -> Option<Digest> {
        let slot = keys::context(&version.organization, version.hash.as_str());
        let found = match self.found.get_any(&slot).await {
            Ok(entry) => entry?.json::<Found>(),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                (found.etag == version.etag && found.size == version.size).then_some(found.digest)
            }
            Err(error) => {
                tracing::debug!(error = telemetry::chain(&error), "a context is read again");
                None
            }
        }
    }

    async fn record(&self, version: &Version, digest: Digest) {
        let slot = keys::context(&version.organization, version.hash.as_str());
        let found = Found { version: 1, etag: version.etag.clone(), size: version.size, digest };
        if let Err(error) = self.found.put(&slot, &found, Some(TTL)).await {
            let error = telemetry::chain(&error);
            tracing::debug!(error, "what a context holds is not remembered");
        }
    }
}

fn key(organization: OrganizationId, hash: &ContextHash) -> ObjectKey {
    ObjectKey::Context { organization: *organization.as_uuid(), hash: hash.clone() }
}

impl Version {
    fn of(organization: OrganizationId, hash: ContextHash, metadata: &Metadata) -> Option<Self> {
        let etag = metadata.etag.clone()?;
        Some(Self { organization, hash, etag, size: metadata.size })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::stream;
    use slipway_bus::topology::Topology;
    use slipway_testkit::NatsServer;
    use uuid::Uuid;

    use super::*;

    const HASH: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn organization(n: u128) -> OrganizationId {
        OrganizationId::from_uuid(Uuid::from_u128(n))
    }

    fn object() -> ObjectKey {
        key(organization(1), &HASH.parse().unwrap())
    }

    async fn bus(nats: &NatsServer) -> Bus {
        let bus =
            slipway_bus::connect(&slipway_bus::Config::new(nats.url(), "test")).await.unwrap();
        bus.ensure(&Topology::single("us".parse().unwrap())).await.unwrap();
        bus
    }

    fn body(text: &'static str) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        stream::iter([Ok(Bytes::from_static(text.as_bytes()))])
    }

    #[tokio::test]
    async fn a_context_is_what_its_bytes_are_whatever_it_is_called() {
        let nats = NatsServer::start().await;
        let contexts = Contexts::new(Store::in_memory(), &bus(&nats).await);
        let ours = organization(1);
        assert_eq!(contexts.identity(ours, HASH).await.unwrap(), None);
        let unknown = || Verifier::unknown(Algorithm::Sha256);
        let put = contexts.put(ours, HASH.parse().unwrap(), body("one"), unknown()).await;
        let put = put.unwrap().identity;
        assert_eq!(put, Identity { digest: Digest::sha256("one"), size: 3 });
        assert_eq!(contexts.identity(ours, HASH).await.unwrap(), Some(put));
        // Case does not matter, the organization does.
        assert_eq!(contexts.identity(ours, &HASH.to_uppercase()).await.unwrap(), Some(put));
        assert_eq!(contexts.identity(organization(2), HASH).await.unwrap(), None);
        assert_eq!(contexts.identity(ours, "../x").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_came_by_another_way_is_read_and_what_changed_is_read_again() {
        let nats = NatsServer::start().await;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display()).parse().unwrap();
        let store = Store::open(&slipway_blobstore::Config::new(url)).unwrap();
        let contexts = Contexts::new(store.clone(), &bus(&nats).await);
        for text in ["first", "other"] {
            store.put_bytes(&object(), text).await.unwrap();
            let found = contexts.identity(organization(1), HASH).await.unwrap().unwrap();
            assert_eq!(found, Identity { digest: Digest::sha256(text), size: 5 });
        }
    }

    #[tokio::test]
    async fn another_scheduler_knows_what_one_has_found() {
        let nats = NatsServer::start().await;
        let bus = bus(&nats).await;
        let store = Store::in_memory();
        let first = Contexts::new(store.clone(), &bus);
        let unknown = Verifier::unknown(Algorithm::Sha256);
        first.put(organization(1), HASH.parse().unwrap(), body("one"), unknown).await.unwrap();
        let etag = store.head(&object()).await.unwrap().etag.unwrap();
        let version =
            Version { organization: organization(1), hash: HASH.parse().unwrap(), etag, size: 3 };
        let second = Contexts::new(store, &bus);
        assert_eq!(second.recall(&version).await, Some(Digest::sha256("one")));
        let changed = Version { etag: "other".into(), ..version };
        assert_eq!(second.recall(&changed).await, None);
    }

    #[tokio::test]
    async fn an_upload_that_breaks_the_rules_leaves_nothing() {
        let nats = NatsServer::start().await;
        let contexts = Contexts::new(Store::in_memory(), &bus(&nats).await);
        let small = Verifier::unknown(Algorithm::Sha256).at_most(2);
        let refused =
            contexts.put(organization(1), HASH.parse().unwrap(), body("one"), small).await;
        assert!(matches!(refused, Err(slipway_blobstore::Error::Mismatch { .. })));
        assert_eq!(contexts.identity(organization(1), HASH).await.unwrap(), None);
    }
}
