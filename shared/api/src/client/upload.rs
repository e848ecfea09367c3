//! Uploading a build context, with a deadline on progress instead of on time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, Method};
use tokio::sync::watch;

use super::{Client, Error, describe, error};

/// Why an upload failed: for a reason of the connection or of the source.
#[derive(Debug, thiserror::Error)]
pub enum UploadError<E: std::error::Error + 'static> {
    /// Between client and server.
    #[error(transparent)]
    Api(Error),
    /// The content itself could not be produced.
    #[error(transparent)]
    Source(E),
}

impl Client {
    /// `PUT /v1/contexts/{sha256}`: uploads a context of `size` bytes. The
    /// content is asked for again each time the upload has to be repeated. The
    /// server keeps it only if its SHA-256 is the one announced.
    ///
    /// # Errors
    /// [`UploadError::Source`] with the content's own error,
    /// [`UploadError::Api`] otherwise.
    pub async fn put_context<S, E>(
        &self,
        sha256: &str,
        size: u64,
        mut content: impl FnMut() -> S,
    ) -> Result<(), UploadError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.put_once(sha256, size, content()).await {
                Err(UploadError::Api(error))
                    if error.is_retryable() && tried < self.settings.retry.attempts =>
                {
                    let pause = self.settings.retry.pause(tried, error.retry_after());
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn put_once<S, E>(&self, hash: &str, size: u64, content: S) -> Result<(), UploadError<E>>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let url = self.url(&["v1", "contexts", hash]).map_err(UploadError::Api)?;
        let described = describe(&Method::PUT, &url);
        let (progress, seen) = watch::channel(0);
        let failure = Arc::new(Mutex::new(None));
        let kept = failure.clone();
        let body = content.map(move |chunk| match chunk {
            Ok(chunk) => {
                progress.send_modify(|sent| *sent += chunk.len() as u64);
                Ok(chunk)
            }
            Err(error) => {
                *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Err(std::io::Error::other("the content ended with an error"))
            }
        });
        let request = self
            .uploads
            .put(url)
            .header(CONTENT_TYPE, "application/x-tar")
            .header(CONTENT_LENGTH, size)
            .body(Body::wrap_stream(body));
        // Cancel-safe: whichever ends first, the other is of no further use.
        let sent = tokio::select! {
            sent = request.send() => sent,
            after = self.stalled(seen, size) => {
                return Err(UploadError::Api(Error::Stalled { request: described, after }));
            }
        };
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(UploadError::Source(error));
        }
        let response = sent.map_err(|source| Error::transport(&self.base, &described, source));
        let response = response.map_err(UploadError::Api)?;
        error::checked(response, &described).await.map_err(UploadError::Api)?;
        Ok(())
    }

    /// Ends when the upload has not moved for too long, and says for how long.
    async fn stalled(&self, mut sent: watch::Receiver<u64>, size: u64) -> Duration {
        loop {
            let is_complete = *sent.borrow_and_update() >= size;
            let limit = match is_complete {
                true => self.settings.upload_answer,
                false => self.settings.upload_stall,
            };
            match tokio::time::timeout(limit, sent.changed()).await {
                Err(_) => return limit,
                Ok(Ok(())) => {}
                // The body is gone; only the answer is outstanding.
                Ok(Err(_)) => {
                    tokio::time::sleep(self.settings.upload_answer).await;
                    return self.settings.upload_answer;
                }
            }
        }
    }
}
