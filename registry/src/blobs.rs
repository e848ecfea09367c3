//! Blobs: `HEAD`, `GET` and `DELETE /v2/<name>/blobs/<digest>`, with ranges, and
//! with a redirect to the object store where that is wanted.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use slipway_blobstore::{ByteRange, ObjectKey, Repository};
use slipway_oci::Digest;

use crate::error::Error;
use crate::registry::{DIGEST_HEADER, Registry};

impl Registry {
    pub(crate) async fn blob(
        &self,
        repository: &Repository,
        digest: Digest,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Response, Error> {
        let range = requested_range(headers);
        let is_head = match *method {
            Method::HEAD => true,
            Method::GET => false,
            Method::DELETE => return self.delete_blob(repository, &digest).await,
            _ => return Err(Error::Unsupported(StatusCode::METHOD_NOT_ALLOWED)),
        };
        let link = self.inner.links.blob(repository, &digest).await?;
        let size = link.ok_or(Error::BlobUnknown)?.size;
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, format!("\"{digest}\"")),
            (DIGEST_HEADER, digest.to_string()),
        ];
        if is_head {
            let length = [(header::CONTENT_LENGTH, size.to_string())];
            return Ok((headers, length).into_response());
        }
        if let Some(url) = self.redirect(digest).await {
            self.inner.metrics.blobs_redirected.add(1);
            let elsewhere = [(DIGEST_HEADER, digest.to_string()), (header::LOCATION, url)];
            return Ok((StatusCode::TEMPORARY_REDIRECT, elsewhere).into_response());
        }
        Ok((headers, self.send_blob(digest, range, size).await?).into_response())
    }

    /// Where the object store gives the blob out by itself. The client repeats
    /// its range there. If no URL can be made, the blob is sent from here.
    async fn redirect(&self, digest: Digest) -> Option<String> {
        let ttl = self.inner.options.redirect_blobs?;
        match self.inner.store.signed_url(&ObjectKey::Blob(digest), ttl).await {
            Ok(url) => url.map(String::from),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "no URL of the object store can be signed");
                None
            }
        }
    }

    async fn send_blob(
        &self,
        digest: Digest,
        range: Option<ByteRange>,
        size: u64,
    ) -> Result<Response, Error> {
        let object = self.inner.store.get(&ObjectKey::Blob(digest), range).await;
        let object = object.map_err(|error| match error.is_not_found() {
            true => Error::BlobUnknown,
            false => error.into(),
        })?;
        let bytes = object.range.clone();
        let metrics = Arc::clone(&self.inner.metrics);
        metrics.blobs_sent.add(1);
        let body = object.into_stream().inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                metrics.bytes_sent.add(chunk.len() as u64);
            }
        });
        let length = [(header::CONTENT_LENGTH, (bytes.end - bytes.start).to_string())];
        let body = Body::from_stream(body);
        if range.is_none() {
            return Ok((length, body).into_response());
        }
        let part = format!("bytes {}-{}/{size}", bytes.start, bytes.end - 1);
        let part = [(header::CONTENT_RANGE, part)];
        Ok((StatusCode::PARTIAL_CONTENT, length, part, body).into_response())
    }
}

/// The range of a request, if it asks for one of a kind that is served: what
/// is not understood, or asks for several, is ignored as RFC 9110 allows.
fn requested_range(headers: &HeaderMap) -> Option<ByteRange> {
    let (start, end) =
        headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    match (start.trim(), end.trim()) {
        ("", count) => count.parse().ok().map(ByteRange::Last),
        (start, "") => start.parse().ok().map(ByteRange::From),
        (start, end) => {
            let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
            (start <= end).then(|| ByteRange::Bounded(start, end.saturating_add(1)))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn range(value: &str) -> Option<ByteRange> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, value.parse().unwrap());
        requested_range(&headers)
    }

    #[test]
    fn reads_single_ranges_and_ignores_the_rest() {
        assert_eq!(range("bytes=0-0"), Some(ByteRange::Bounded(0, 1)));
        assert_eq!(range("bytes=5-9"), Some(ByteRange::Bounded(5, 10)));
        assert_eq!(range("bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(range("bytes=-5"), Some(ByteRange::Last(5)));
        let max = format!("bytes=0-{}", u64::MAX);
        assert_eq!(range(&max), Some(ByteRange::Bounded(0, u64::MAX)));
        for value in ["", "bytes", "bytes=", "bytes=-", "bytes=9-5", "bytes=0-1,3-4", "lines=1-2"] {
            assert_eq!(range(value), None, "{value}");
        }
    }
}
