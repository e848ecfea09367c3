//! The store: reading, verified writing, deleting and listing of objects.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::{Method, Signer};
use object_store::{
    Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, WriteMultipart,
};
use slipway_oci::{Digest, Verifier};
use url::Url;

use crate::error::BoxError;
use crate::writer::Upload;
use crate::{ByteRange, Config, Error, Object, ObjectKey, Prefix, Writer};

/// An object store: a local folder, an S3 bucket, or memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Arc<Backend>,
}

/// What differs between the kinds of stores.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) store: Arc<dyn ObjectStore>,
    /// The root, where the store is a local folder.
    pub(crate) folder: Option<PathBuf>,
    /// For stores that clients can read from by themselves.
    pub(crate) signing: Option<Signing>,
    /// Whether objects carry a content type.
    pub(crate) keeps_content_type: bool,
    pub(crate) limits: Limits,
}

/// Makes URLs that hold a right of their own.
#[derive(Debug)]
pub(crate) struct Signing {
    pub(crate) signer: Arc<dyn Signer>,
    /// Where the store begins in its bucket.
    pub(crate) prefix: Path,
}

/// Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// One part of an upload, and the largest body that is sent in one piece.
    pub(crate) part: usize,
    /// Parts of one upload that are sent at once. An upload holds at most one
    /// part more than that in memory.
    pub(crate) parts_in_flight: usize,
    /// The largest object that the store can move by itself.
    pub(crate) rename: u64,
}

impl Backend {
    pub(crate) fn memory() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            folder: None,
            signing: None,
            keeps_content_type: true,
            limits: Limits { part: 64 * 1024, parts_in_flight: 2, rename: u64::MAX },
        }
    }
}

/// What is known of an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Size in bytes.
    pub size: u64,
    /// The store's mark of this version of the object.
    pub etag: Option<String>,
    /// When it was written.
    pub modified: SystemTime,
}

impl From<&ObjectMeta> for Metadata {
    fn from(meta: &ObjectMeta) -> Self {
        Self { size: meta.size, etag: meta.e_tag.clone(), modified: meta.last_modified.into() }
    }
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub key: ObjectKey,
    /// What is known of it.
    pub metadata: Metadata,
}

/// What a verified write has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Digest of the bytes as they were received, by the verifier's algorithm.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

impl Store {
    /// Opens the store of `config`. A local folder is made; a bucket must
    /// exist, which [`Store::check`] finds out.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub fn open(config: &Config) -> Result<Self, Error> {
        Ok(Self { backend: Arc::new(config.open()?) })
    }

    /// A store that lasts as long as the process, for tests.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { backend: Arc::new(Backend::memory()) }
    }

    /// Asks the store for anything at all, to find wrong settings at the start.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`].
    pub async fn check(&self) -> Result<(), Error> {
        self.list(&Prefix::Uploads).try_next().await.map(|_| ())
    }

    /// Reads an object, or a part of it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Range`] if no byte is in the range.
    pub async fn get(&self, key: &ObjectKey, range: Option<ByteRange>) -> Result<Object, Error> {
        let range = match range {
            None => None,
            Some(range) => {
                let size = self.head(key).await?.size;
                let range = range.within(size);
                Some(range.ok_or_else(|| Error::Range { key: key.clone().into(), size })?)
            }
        };
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        let result = self.backend.store.get_opts(&key.path(), options).await;
        result
            .map(|result| Object::new(key.clone(), result))
            .map_err(|source| Error::read("read", key, source))
    }

    /// Reads a small object whole.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TooLarge`] above `limit` bytes, without
    /// reading them.
    pub async fn get_bytes(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, Error> {
        let object = self.get(key, None).await?;
        let size = object.metadata.size;
        if size > limit {
            return Err(Error::TooLarge { key: key.clone().into(), size, limit });
        }
        let mut bytes = BytesMut::new();
        let mut stream = object.into_stream();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    /// What is known of an object.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn head(&self, key: &ObjectKey) -> Result<Metadata, Error> {
        match self.backend.store.head(&key.path()).await {
            Ok(meta) => Ok(Metadata::from(&meta)),
            Err(source) => Err(Error::read("look up", key, source)),
        }
    }

    /// Whether the object exists.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`].
    pub async fn exists(&self, key: &ObjectKey) -> Result<bool, Error> {
        match self.head(key).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A URL under which whoever has it can read the object for `ttl`, or
    /// nothing if the store has no such URLs. Asks nobody: the object need not
    /// exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`], if there are no
    /// credentials to sign with.
    pub async fn signed_url(&self, key: &ObjectKey, ttl: Duration) -> Result<Option<Url>, Error> {
        let Some(Signing { signer, prefix }) = &self.backend.signing else { return Ok(None) };
        let path: Path = prefix.parts().chain(key.path().parts()).collect();
        match signer.signed_url(Method::GET, &path, ttl).await {
            Ok(url) => Ok(Some(url)),
            Err(source) => Err(Error::sort("sign a URL for", key.to_string(), source)),
        }
    }

    /// Writes a small object, atomically, over what may be there.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`].
    pub async fn put_bytes(&self, key: &ObjectKey, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.put(key, bytes.into()).await.map(|_| ())
    }

    pub(crate) async fn put(&self, key: &ObjectKey, bytes: Bytes) -> Result<Option<String>, Error> {
        let payload = PutPayload::from_bytes(bytes);
        let options = PutOptions { attributes: self.attributes(key), ..PutOptions::default() };
        match self.backend.store.put_opts(&key.path(), payload, options).await {
            Ok(written) => Ok(written.e_tag),
            Err(source) => Err(Error::sort("write", key.to_string(), source)),
        }
    }

    /// Writes `body` to `key` and verifies it on the way: it becomes visible
    /// only if it ends without error and is what `verifier` expects. Memory is
    /// bounded by a few parts, whatever the size.
    ///
    /// # Errors
    /// [`Error::Mismatch`] or [`Error::Body`]; nothing became visible.
    pub async fn put_stream<S, E>(
        &self,
        key: &ObjectKey,
        body: S,
        mut verifier: Verifier,
    ) -> Result<Stored, Error>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<BoxError>,
    {
        let mut writer = self.writer(key.clone());
        let fed = feed(&mut writer, body, &mut verifier).await;
        let size = verifier.written();
        let mismatch = |source| Error::Mismatch { key: key.clone().into(), source };
        match fed.and_then(|()| verifier.finish().map_err(mismatch)) {
            Ok(digest) => {
                writer.commit().await?;
                Ok(Stored { digest, size })
            }
            Err(error) => {
                writer.abort().await;
                Err(error)
            }
        }
    }

    /// Begins an object that is written piece by piece and becomes visible at
    /// [`Writer::commit`].
    #[must_use]
    pub fn writer(&self, key: ObjectKey) -> Writer {
        Writer::new(self.clone(), key)
    }

    /// Deletes an object; one that does not exist counts as deleted.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`].
    pub async fn delete(&self, key: &ObjectKey) -> Result<(), Error> {
        match self.backend.store.delete(&key.path()).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::sort("delete", key.to_string(), source)),
        }
    }

    /// The objects below `prefix`, in no particular order. What is no object
    /// of this layout is passed over.
    #[must_use]
    pub fn list(&self, prefix: &Prefix) -> BoxStream<'static, Result<Entry, Error>> {
        let folder = prefix.to_string();
        self.backend
            .store
            .list(Some(&prefix.path()))
            .filter_map(move |item| {
                let entry = match item {
                    Ok(meta) => ObjectKey::parse(meta.location.as_ref())
                        .ok()
                        .map(|key| Ok(Entry { key, metadata: Metadata::from(&meta) })),
                    Err(source) => Some(Err(Error::sort("list", folder.clone(), source))),
                };
                std::future::ready(entry)
            })
            .boxed()
    }

    pub(crate) fn limits(&self) -> Limits {
        self.backend.limits
    }

    pub(crate) fn folder(&self) -> Option<&std::path::Path> {
        self.backend.folder.as_deref()
    }

    /// Begins an upload; it is begun, and aborted, also if nobody waits for it any more:
    /// a bucket may have made it already, and only the answer says how it is called.
    pub(crate) async fn begin(&self, key: &ObjectKey) -> Result<Upload, Error> {
        let options = PutMultipartOptions {
            attributes: self.attributes(key),
            ..PutMultipartOptions::default()
        };
        let (backend, named) = (self.backend.clone(), key.clone());
        let begun = tokio::runtime::Handle::current().spawn(async move {
            let upload = backend.store.put_multipart_opts(&named.path(), options).await?;
            let parts = WriteMultipart::new_with_chunk_size(upload, backend.limits.part);
            Ok(Upload::new(named, parts))
        });
        let begun = begun.await.unwrap_or_else(|error| Err(error.into()));
        begun.map_err(|source| Error::sort("begin to write", key.to_string(), source))
    }

    /// Moves an object that is known to be complete and right.
    pub(crate) async fn promote(
        &self,
        from: &ObjectKey,
        to: &ObjectKey,
        size: u64,
    ) -> Result<(), Error> {
        if size <= self.backend.limits.rename {
            let moved = self.backend.store.rename(&from.path(), &to.path()).await;
            return moved.map_err(|source| Error::sort("move", from.to_string(), source));
        }
        let mut writer = self.writer(to.clone());
        let mut stream = self.get(from, None).await?.into_stream();
        while let Some(chunk) = stream.try_next().await? {
            writer.write(chunk).await?;
        }
        writer.commit().await?;
        self.delete(from).await
    }

    fn attributes(&self, key: &ObjectKey) -> Attributes {
        let mut attributes = Attributes::new();
        if self.backend.keeps_content_type {
            attributes.insert(Attribute::ContentType, key.content_type().into());
        }
        attributes
    }
}

async fn feed<S, E>(writer: &mut Writer, body: S, verifier: &mut Verifier) -> Result<(), Error>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<BoxError>,
{
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Error::Body {
            key: writer.key().clone().into(),
            source: error.into(),
        })?;
        verifier
            .update(&chunk)
            .map_err(|source| Error::Mismatch { key: writer.key().clone().into(), source })?;
        writer.write(chunk).await?;
    }
    Ok(())
}
