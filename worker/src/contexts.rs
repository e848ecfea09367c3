//! Build contexts, as BuildKit fetches them: over HTTP from loopback, straight
//! from the object store.
//!
//! Owns what is known of an uploaded context: its real SHA-256, whatever its
//! client calls it, and the `.dockerignore` in it. Invariant: a context can be
//! fetched only under a random path, and only while a build needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use moka::future::Cache;
use slipway_blobstore::{ContextHash, ObjectKey, Store};
use slipway_context::IgnoreRules;
use slipway_domain::OrganizationId;
use slipway_oci::Digest;
use uuid::Uuid;

/// Contexts remembered at the same time.
const REMEMBERED: u64 = 10_000;

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was never uploaded by this organization.
    #[error("the build context `{hash}` was not found: upload it before creating the snapshot")]
    Missing {
        /// What its client calls it.
        hash: String,
    },
    /// It is not a tar, or names paths outside itself.
    #[error("the build context `{hash}` is not usable: {reason}")]
    Invalid {
        /// What its client calls it.
        hash: String,
        /// Why.
        reason: String,
    },
    /// It is not what it was when the snapshot was asked for.
    #[error(
        "the build context `{hash}` was replaced after the snapshot was asked for: \
         ask for the snapshot again"
    )]
    Replaced {
        /// What its client calls it.
        hash: String,
    },
    /// The object store cannot be read.
    #[error("the build context `{hash}` cannot be read")]
    Store {
        /// What its client calls it.
        hash: String,
        /// Why.
        #[source]
        source: slipway_blobstore::Error,
    },
}

/// The contexts in the store. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Contexts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    known: Cache<Version, Arc<Known>>,
    offers: Mutex<HashMap<Uuid, Offered>>,
}

/// One version of an object: scanned once, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Version {
    key: String,
    size: u64,
    etag: Option<String>,
}

/// What a scan found.
#[derive(Debug)]
struct Known {
    /// Of the bytes as they are stored.
    stored: Digest,
    /// Of what is offered: with the padding.
    digest: Digest,
    /// Zero bytes that some clients leave out at the end of the tar.
    padding: u64,
    excludes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Offered {
    key: ObjectKey,
    padding: u64,
}

/// A context that BuildKit can fetch until this is dropped.
#[derive(Debug)]
pub struct Offer {
    /// SHA-256 of what is fetched.
    pub digest: Digest,
    /// Patterns of the `.dockerignore` in it.
    pub excludes: Vec<String>,
    id: Uuid,
    contexts: Contexts,
}

impl Offer {
    /// Where to fetch it, below the address of [`router`].
    #[must_use]
    pub fn path(&self) -> String {
        format!("/contexts/{}", self.id)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.contexts.offers().remove(&self.id);
    }
}

impl Contexts {
    /// The contexts in `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        let known = Cache::new(REMEMBERED);
        Self { inner: Arc::new(Inner { store, known, offers: Mutex::default() }) }
    }

    /// Verifies a context, once for each version, and offers it for fetching;
    /// `expected` is what its bytes must be, if that is known.
    ///
    /// # Errors
    /// It is missing, or no context, or another one, or cannot be read.
    pub async fn offer(
        &self,
        organization: OrganizationId,
        hash: &str,
        expected: Option<&Digest>,
    ) -> Result<Offer, Error> {
        let missing = || Error::Missing { hash: hash.to_owned() };
        let name: ContextHash = hash.to_ascii_lowercase().parse().map_err(|_| missing())?;
        let key = ObjectKey::Context { organization: *organization.as_uuid(), hash: name };
        let failed = |source| Error::Store { hash: hash.to_owned(), source };
        let metadata = match self.inner.store.head(&key).await {
            Ok(metadata) => metadata,
            Err(error) if error.is_not_found() => return Err(missing()),
            Err(error) => return Err(failed(error)),
        };
        let version = Version { key: key.to_string(), size: metadata.size, etag: metadata.etag };
        let known = match self.inner.known.get(&version).await {
            Some(known) => known,
            None => {
                let known = Arc::new(self.scan(&key, hash).await?);
                self.inner.known.insert(version, known.clone()).await;
                known
            }
        };
        if expected.is_some_and(|expected| *expected != known.stored) {
            return Err(Error::Replaced { hash: hash.to_owned() });
        }
        let id = Uuid::new_v4();
        self.offers().insert(id, Offered { key, padding: known.padding });
        let excludes = known.excludes.clone();
        Ok(Offer { digest: known.digest, excludes, id, contexts: self.clone() })
    }

    async fn scan(&self, key: &ObjectKey, hash: &str) -> Result<Known, Error> {
        let invalid = |reason: String| Error::Invalid { hash: hash.to_owned(), reason };
        let object = self.inner.store.get(key, None).await;
        let object = object.map_err(|source| Error::Store { hash: hash.to_owned(), source })?;
        let scanned = slipway_context::scan(object.into_stream()).await;
        let scanned = scanned.map_err(|error| unusable(hash, error))?;
        let whole = scanned.completed.unwrap_or(scanned.digest);
        let digest = |of: slipway_context::ContextDigest| {
            Digest::from_sha256_hex(&of.hex()).map_err(|error| invalid(error.to_string()))
        };
        let (stored, padding) = (digest(scanned.digest)?, whole.size - scanned.digest.size);
        let digest = digest(whole)?;
        let excludes = match &scanned.dockerignore {
            None => vec![],
            Some(text) => {
                let rules = IgnoreRules::parse(text).map_err(|error| invalid(error.to_string()))?;
                rules.patterns().map(std::borrow::Cow::into_owned).collect()
            }
        };
        Ok(Known { stored, digest, padding, excludes })
    }

    fn offers(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, Offered>> {
        self.inner.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A context that cannot be read is the store's fault, any other the client's.
fn unusable(hash: &str, error: slipway_context::scan::Error) -> Error {
    let hash = hash.to_owned();
    let slipway_context::scan::Error::Read(source) = error else {
        return Error::Invalid { hash, reason: slipway_runtime::telemetry::chain(&error) };
    };
    match source.downcast::<slipway_blobstore::Error>() {
        Ok(source) => Error::Store { hash, source: *source },
        Err(other) => Error::Invalid { hash, reason: other.to_string() },
    }
}

/// The route from which BuildKit fetches.
pub fn router(contexts: Contexts) -> Router {
    Router::new().route("/contexts/{id}", get(fetch)).with_state(contexts)
}

async fn fetch(State(contexts): State<Contexts>, Path(id): Path<Uuid>) -> Response {
    let Some(offered) = contexts.offers().get(&id).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let object = match contexts.inner.store.get(&offered.key, None).await {
        Ok(object) => object,
        Err(error) => {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(error, "a build context cannot be read");
            return StatusCode::BAD_GATEWAY.into_response();
        }
    };
    let size = object.metadata.size + offered.padding;
    let body = object.into_stream().chain(zeros(offered.padding));
    let headers = [(header::CONTENT_TYPE, "application/x-tar".to_owned())];
    (headers, [(header::CONTENT_LENGTH, size.to_string())], Body::from_stream(body)).into_response()
}

/// At most a few blocks: the tail of one entry and the end of the archive.
fn zeros(
    count: u64,
) -> impl futures::Stream<Item = Result<Bytes, slipway_blobstore::Error>> + Send {
    let count = usize::try_from(count).unwrap_or_default();
    stream::iter((count > 0).then(|| Ok(Bytes::from(vec![0; count]))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn organization() -> OrganizationId {
        OrganizationId::from_uuid(Uuid::from_u128(1))
    }

    async fn stored(bytes: &[u8]) -> (Contexts, String) {
        let store = Store::in_memory();
        // What a client of Daytona calls it has nothing to do with its content.
        let hash = "d41d8cd98f00b204e9800998ecf8427e".to_owned();
        let key = ObjectKey::Context {
            organization: *organization().as_uuid(),
            hash: hash.parse().unwrap(),
        };
        store.put_bytes(&key, bytes.to_vec()).await.unwrap();
        (Contexts::new(store), hash)
    }

    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |name: &str, text: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        };
        add(".dockerignore", "# secrets\n*.pem\n!ca.pem\n");
        add("app.txt", "hello");
        tar.into_inner().unwrap()
    }

    async fn fetched(contexts: &Contexts, path: &str) -> (StatusCode, Vec<u8>) {
        use tower::ServiceExt as _;
        let request = axum::http::Request::get(path).body(Body::empty()).unwrap();
        let response = router(contexts.clone()).oneshot(request).await.unwrap();
        let status = response.status();
        (status, axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
    }

    #[tokio::test]
    async fn a_context_is_known_by_its_content_and_fetched_while_it_is_offered() {
        let (contexts, hash) = stored(&archive()).await;
        let offer = contexts.offer(organization(), &hash, None).await.unwrap();
        assert_eq!(offer.excludes, ["*.pem", "!ca.pem"]);
        let (status, bytes) = fetched(&contexts, &offer.path()).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(
            format!("sha256:{}", hex::encode(Sha256::digest(&bytes))),
            offer.digest.to_string()
        );
        let path = offer.path();
        drop(offer);
        assert_eq!(fetched(&contexts, &path).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_tail_that_a_client_left_out_is_completed() {
        let whole = archive();
        // 5 bytes of content in the last block, then the end of the archive.
        let cut = &whole[..whole.len() - 1024 - 507];
        let (contexts, hash) = stored(cut).await;
        let offer = contexts.offer(organization(), &hash, None).await.unwrap();
        let seen = Digest::sha256(cut);
        contexts.offer(organization(), &hash, Some(&seen)).await.unwrap();
        let (_, bytes) = fetched(&contexts, &offer.path()).await;
        assert!(bytes.starts_with(cut) && bytes.len() > cut.len());
        assert_eq!(
            format!("sha256:{}", hex::encode(Sha256::digest(&bytes))),
            offer.digest.to_string()
        );
    }

    #[tokio::test]
    async fn a_context_that_was_replaced_is_not_built() {
        let (contexts, hash) = stored(&archive()).await;
        let seen = Digest::sha256("what the server saw");
        let replaced = contexts.offer(organization(), &hash, Some(&seen)).await.unwrap_err();
        assert!(matches!(replaced, Error::Replaced { .. }), "{replaced}");
    }

    #[tokio::test]
    async fn a_foreign_or_broken_context_is_refused() {
        let (contexts, hash) = stored(b"<html>login</html>").await;
        let broken = contexts.offer(organization(), &hash, None).await.unwrap_err();
        assert!(matches!(broken, Error::Invalid { .. }), "{broken}");
        let other = OrganizationId::from_uuid(Uuid::from_u128(2));
        let foreign = contexts.offer(other, &hash, None).await.unwrap_err();
        assert!(matches!(foreign, Error::Missing { .. }), "{foreign}");
    }
}
