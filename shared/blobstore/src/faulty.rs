//! A store that fails and dawdles on demand, for tests of faults.
//!
//! Owns: reading what to do from a small file before every operation, so that a
//! running process can be hurt from outside. The file is JSON:
//! `{"fail_percent": 30, "delay_ms": 200}`; without it everything goes well.
//! Refuses to change bytes, or to fail after something was done: an operation that
//! fails has had no effect.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};
use serde::Deserialize;

/// What the file says.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Faults {
    /// How many of a hundred operations fail.
    fail_percent: u8,
    /// How long every operation is held back.
    delay_ms: u64,
}

/// The store behind the faults.
#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Script,
}

#[derive(Debug, Clone)]
struct Script(Arc<PathBuf>);

impl Script {
    fn read(&self) -> Faults {
        let text = std::fs::read(&*self.0).unwrap_or_default();
        // It may be read while it is written: then it says nothing yet.
        serde_json::from_slice(&text).unwrap_or_default()
    }

    async fn suffer(&self) -> Result<()> {
        let Faults { fail_percent, delay_ms } = self.read();
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        if rand::random_range(0..100) < fail_percent {
            let source = "503 Slow Down (injected)".into();
            return Err(object_store::Error::Generic { store: "faulty", source });
        }
        Ok(())
    }
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, file: PathBuf) -> Self {
        Self { inner, script: Script(Arc::new(file)) }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.script.suffer().await?;
        self.inner.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.script.suffer().await?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(FaultyUpload { inner, script: self.script.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.script.suffer().await?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let script = self.script.clone();
        let locations = locations.and_then(move |path| {
            let script = script.clone();
            async move { script.suffer().await.map(|()| path) }
        });
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (script, inner, prefix) =
            (self.script.clone(), Arc::clone(&self.inner), prefix.cloned());
        let listed = stream::once(async move { script.suffer().await });
        listed.map_ok(move |()| inner.list(prefix.as_ref())).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.script.suffer().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.script.suffer().await?;
        self.inner.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.script.suffer().await?;
        self.inner.rename_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    script: Script,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (script, part) = (self.script.clone(), self.inner.put_part(data));
        Box::pin(async move {
            script.suffer().await?;
            part.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.script.suffer().await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.script.suffer().await?;
        self.inner.abort().await
    }
}
