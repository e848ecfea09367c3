//! Uploads that take several requests: the table of what is open.
//!
//! Owns their life: begun, written to by one request at a time, then
//! committed, cancelled, or dropped after resting too long.
//!
//! Invariant: an upload that leaves the table without being committed leaves
//! nothing in the object store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slipway_blobstore::{ObjectKey, Repository, Store, Writer};
use slipway_oci::{Algorithm, DigestWriter};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Limits;
use crate::error::Error;

/// A client that comes back after a cut connection may be here before the
/// server has noticed the cut.
const WAIT_FOR_OTHER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Uploads {
    open: Mutex<HashMap<Uuid, Arc<Upload>>>,
    idle: Duration,
    most: usize,
}

#[derive(Debug)]
pub(crate) struct Upload {
    repository: Repository,
    /// Empty once it is committed or dropped.
    progress: tokio::sync::Mutex<Option<Progress>>,
    touched: Mutex<Instant>,
}

/// What has arrived.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) writer: Writer,
    pub(crate) hash: DigestWriter,
}

pub(crate) type Held<'a> = tokio::sync::MutexGuard<'a, Option<Progress>>;

impl Upload {
    /// The upload for this request alone.
    pub(crate) async fn hold(&self) -> Result<Held<'_>, Error> {
        let lock = self.progress.lock();
        let held =
            tokio::time::timeout(WAIT_FOR_OTHER, lock).await.map_err(|_| Error::UploadBusy)?;
        self.touch();
        if held.is_some() { Ok(held) } else { Err(Error::UploadUnknown) }
    }

    /// Says that the upload is in use.
    pub(crate) fn touch(&self) {
        *lock(&self.touched) = Instant::now();
    }

    fn rested(&self) -> Duration {
        lock(&self.touched).elapsed()
    }
}

impl Uploads {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { open: Mutex::default(), idle: limits.upload_idle, most: limits.open_uploads }
    }

    /// Opens an upload and returns its id.
    pub(crate) async fn begin(
        &self,
        store: &Store,
        repository: &Repository,
        algorithm: Algorithm,
    ) -> Result<Uuid, Error> {
        self.expire().await;
        let id = Uuid::new_v4();
        let progress = Progress {
            writer: store.writer(ObjectKey::Upload(id)),
            hash: DigestWriter::new(algorithm),
        };
        let upload = Upload {
            repository: repository.clone(),
            progress: tokio::sync::Mutex::new(Some(progress)),
            touched: Mutex::new(Instant::now()),
        };
        let mut open = lock(&self.open);
        if open.len() >= self.most {
            return Err(Error::TooManyUploads);
        }
        open.insert(id, Arc::new(upload));
        Ok(id)
    }

    /// An open upload of `repository`.
    pub(crate) fn find(&self, repository: &Repository, id: Uuid) -> Result<Arc<Upload>, Error> {
        let found = lock(&self.open).get(&id).cloned();
        found.filter(|upload| upload.repository == *repository).ok_or(Error::UploadUnknown)
    }

    /// Forgets an upload whose progress was taken, or will be dropped.
    pub(crate) fn forget(&self, id: Uuid) {
        lock(&self.open).remove(&id);
    }

    /// Drops what has rested too long; returns how many.
    pub(crate) async fn expire(&self) -> usize {
        self.drop_all(|upload| upload.rested() >= self.idle).await
    }

    /// Drops what no request is using.
    pub(crate) async fn clear(&self) {
        self.drop_all(|_| true).await;
    }

    async fn drop_all(&self, is_due: impl Fn(&Upload) -> bool) -> usize {
        let mut due = Vec::new();
        lock(&self.open).retain(|_, upload| {
            // A request that holds the upload is using it.
            let Ok(mut progress) = upload.progress.try_lock() else { return true };
            if !is_due(upload) {
                return true;
            }
            due.extend(progress.take());
            false
        });
        let count = due.len();
        for Progress { writer, .. } in due {
            writer.abort().await;
        }
        count
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn uploads(most: usize) -> Uploads {
        Uploads::new(&Limits { open_uploads: most, ..Limits::default() })
    }

    fn repository(name: &str) -> Repository {
        format!("{}/{name}", Uuid::nil()).parse().unwrap()
    }

    async fn begin(uploads: &Uploads, name: &str) -> Result<Uuid, Error> {
        uploads.begin(&Store::in_memory(), &repository(name), Algorithm::Sha256).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_rests_too_long_is_dropped() {
        let uploads = uploads(10);
        let (resting, used) =
            (begin(&uploads, "a").await.unwrap(), begin(&uploads, "a").await.unwrap());
        tokio::time::advance(Duration::from_secs(14 * 60)).await;
        let upload = uploads.find(&repository("a"), used).unwrap();
        drop(upload.hold().await.unwrap());
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        assert_eq!(uploads.expire().await, 1);
        assert!(uploads.find(&repository("a"), resting).is_err());
        assert!(uploads.find(&repository("a"), used).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_in_use_is_not_dropped_however_slow_it_is() {
        let uploads = uploads(10);
        let id = begin(&uploads, "a").await.unwrap();
        let upload = uploads.find(&repository("a"), id).unwrap();
        let held = upload.hold().await.unwrap();
        tokio::time::advance(Duration::from_secs(24 * 3600)).await;
        assert_eq!(uploads.expire().await, 0);
        let second = upload.hold().await;
        assert!(matches!(second, Err(Error::UploadBusy)));
        drop(held);
        assert!(upload.hold().await.is_ok());
    }

    #[tokio::test]
    async fn an_upload_belongs_to_its_repository() {
        let uploads = uploads(10);
        let id = begin(&uploads, "a").await.unwrap();
        assert!(matches!(uploads.find(&repository("b"), id), Err(Error::UploadUnknown)));
        uploads.clear().await;
        assert!(matches!(uploads.find(&repository("a"), id), Err(Error::UploadUnknown)));
    }

    #[tokio::test]
    async fn only_so_many_are_open_at_once() {
        let uploads = uploads(2);
        let first = begin(&uploads, "a").await.unwrap();
        begin(&uploads, "a").await.unwrap();
        assert!(matches!(begin(&uploads, "a").await, Err(Error::TooManyUploads)));
        uploads.forget(first);
        assert!(begin(&uploads, "a").await.is_ok());
    }
}
