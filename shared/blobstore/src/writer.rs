//! Objects that are written piece by piece.
//!
//! Owns the choice between one put (what fits into a part) and a multipart
//! upload, and the cleaning up of uploads that nobody finishes.
//!
//! Invariant: what was not committed is never visible, and a writer that is
//! dropped leaves nothing behind as long as the process lives. After a kill,
//! [`Store::sweep_unfinished`] finds the rest in a local folder; in a bucket it
//! is the work of a lifecycle rule (`AbortIncompleteMultipartUpload`).

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use object_store::WriteMultipart;

use crate::{Error, ObjectKey, Store};

/// Smaller chunks are copied, so that a body of tiny chunks cannot hold on to
/// a large receive buffer for each.
const COPY_BELOW: usize = 16 * 1024;

/// An object being written. Cancel-safe: a call that is dropped half-way has
/// taken none of its bytes.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    key: ObjectKey,
    /// What arrived before it was worth an upload.
    first: BytesMut,
    upload: Option<Upload>,
    written: u64,
}

impl Writer {
    pub(crate) fn new(store: Store, key: ObjectKey) -> Self {
        Self { store, key, first: BytesMut::new(), upload: None, written: 0 }
    }

    /// Where the object will be.
    #[must_use]
    pub const fn key(&self) -> &ObjectKey {
        &self.key
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Appends `bytes`; waits while too many parts are on their way.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`]; the writer is of no more
    /// use then.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Error> {
        let limits = self.store.limits();
        if self.upload.is_none() && self.first.len() + bytes.len() > limits.part {
            self.upload = Some(self.store.begin(&self.key).await?);
        }
        if let Some(upload) = self.upload.as_mut().and_then(Upload::get) {
            let free = upload.wait_for_capacity(limits.parts_in_flight).await;
            free.map_err(|source| Error::sort("write", self.key.to_string(), source))?;
        }
        self.push(bytes);
        Ok(())
    }

    fn push(&mut self, bytes: Bytes) {
        self.written += bytes.len() as u64;
        let Some(upload) = self.upload.as_mut().and_then(Upload::get) else {
            self.first.extend_from_slice(&bytes);
            return;
        };
        if !self.first.is_empty() {
            upload.put(std::mem::take(&mut self.first).freeze());
        }
        if bytes.len() < COPY_BELOW { upload.write(&bytes) } else { upload.put(bytes) }
    }

    /// Makes the object visible, durably. Returns the store's mark of just this
    /// version, as [`Metadata::etag`](crate::Metadata::etag) shows it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Refused`]; nothing is visible then.
    pub async fn commit(mut self) -> Result<Option<String>, Error> {
        match self.upload.take() {
            None => {
                let bytes = std::mem::take(&mut self.first).freeze();
                self.store.put(&self.key, bytes).await
            }
            Some(upload) => upload.finish().await,
        }
    }

    /// Makes the object visible under another key than it was begun with: for
    /// content whose name is known only when it has ended.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub async fn commit_as(mut self, key: &ObjectKey) -> Result<(), Error> {
        match self.upload.take() {
            None => {
                let bytes = std::mem::take(&mut self.first).freeze();
                self.store.put_bytes(key, bytes).await
            }
            Some(upload) => {
                upload.finish().await?;
                let moved = self.store.promote(&self.key, key, self.written).await;
                if moved.is_err() {
                    self.store.delete(&self.key).await?;
                }
                moved
            }
        }
    }

    /// Gives the object up and waits until its parts are gone. A failure to
    /// remove them is logged and no more: the caller has an error of its own.
    pub async fn abort(mut self) {
        if let Some(upload) = self.upload.take() {
            upload.abort().await;
        }
    }
}

/// A multipart upload that was begun. It is aborted when it is dropped.
#[derive(Debug)]
pub(crate) struct Upload {
    key: ObjectKey,
    /// `None` once it is over.
    parts: Option<WriteMultipart>,
}

impl Upload {
    pub(crate) const fn new(key: ObjectKey, parts: WriteMultipart) -> Self {
        Self { key, parts: Some(parts) }
    }

    const fn get(&mut self) -> Option<&mut WriteMultipart> {
        self.parts.as_mut()
    }

    async fn finish(mut self) -> Result<Option<String>, Error> {
        let Some(parts) = self.parts.take() else { return Ok(None) };
        match parts.finish().await {
            Ok(written) => Ok(written.e_tag),
            Err(source) => Err(Error::sort("finish writing", self.key.to_string(), source)),
        }
    }

    async fn abort(mut self) {
        if let Some(parts) = self.parts.take() {
            discard(&self.key, parts).await;
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        // A request whose client is gone is dropped in mid-air, and a bucket
        // keeps the parts of an upload until it is told. The task ends with
        // that one request; the store gives up on it by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let key = self.key.clone();
            runtime.spawn(async move { discard(&key, parts).await });
        }
    }
}

async fn discard(key: &ObjectKey, parts: WriteMultipart) {
    if let Err(error) = parts.abort().await {
        tracing::warn!(
            object.key = %key,
            error = &error as &dyn std::error::Error,
            "an aborted upload may have left parts in the object store"
        );
    }
}

impl Store {
    /// Removes what uploads left in a local folder when their process was
    /// killed, if it was last written `age` ago or longer; returns how many
    /// files. Does nothing for other stores.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the folder cannot be read.
    pub async fn sweep_unfinished(&self, age: Duration) -> Result<usize, Error> {
        let Some(folder) = self.folder().map(ToOwned::to_owned) else { return Ok(0) };
        let path = folder.display().to_string();
        let swept = tokio::task::spawn_blocking(move || sweep(&folder, age)).await;
        let failed = |source| Error::Unavailable { operation: "sweep", path, source };
        match swept {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(error)) => Err(failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }
}

fn sweep(root: &std::path::Path, age: Duration) -> std::io::Result<usize> {
    let mut count = 0;
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if is_unfinished(&entry.file_name()) && is_older(&entry, age) {
                std::fs::remove_file(entry.path())?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// `object_store` writes beside the object, as `<name>#<number>`; no key of
/// ours has a `#`.
fn is_unfinished(name: &std::ffi::OsStr) -> bool {
    name.to_str().and_then(|name| name.rsplit_once('#')).is_some_and(|(_, number)| {
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn is_older(entry: &std::fs::DirEntry, age: Duration) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|old| old >= age))
}
