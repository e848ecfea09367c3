//! Pushing blobs: uploads in one request or in several, and mounts.
//!
//! Invariant: whoever gets a link has either sent every byte of the blob or
//! may read it in another repository. A blob that the pool has already is
//! still read and verified to its end, then only linked.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use slipway_blobstore::{BoxError, ObjectKey, Repository};
use slipway_oci::{Algorithm, Digest, Mismatch, Verifier};
use uuid::Uuid;

use crate::auth::Access;
use crate::config::CHUNK_ADVICE;
use crate::error::Error;
use crate::registry::{DIGEST_HEADER, Registry};
use crate::route;
use crate::uploads::Progress;

const UPLOAD_HEADER: HeaderName = HeaderName::from_static("docker-upload-uuid");
const CHUNK_HEADER: HeaderName = HeaderName::from_static("oci-chunk-min-length");

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    digest: Option<String>,
    mount: Option<String>,
    from: Option<String>,
    #[serde(rename = "digest-algorithm")]
    algorithm: Option<String>,
}

impl Registry {
    /// `POST /v2/<name>/blobs/uploads/`
    pub(crate) async fn begin_upload(
        &self,
        access: &Access,
        repository: &Repository,
        request: Request,
    ) -> Result<Response, Error> {
        let parameters = parameters(&request);
        if let (Some(mount), Some(from)) = (&parameters.mount, &parameters.from) {
            let digest = route::digest(mount)?;
            if self.mount(access, repository, &digest, from).await? {
                return Ok(created(repository, &digest));
            }
        } else if let Some(digest) = &parameters.digest {
            let digest = route::digest(digest)?;
            let (head, body) = request.into_parts();
            self.receive(repository, digest, body, length(&head.headers)).await?;
            return Ok(created(repository, &digest));
        }
        let algorithm = match parameters.algorithm.as_deref() {
            Some("sha512") => Algorithm::Sha512,
            _ => Algorithm::Sha256,
        };
        let id = self.inner.uploads.begin(&self.inner.store, repository, algorithm).await?;
        let mut response = progress(StatusCode::ACCEPTED, repository, id, 0);
        response.headers_mut().insert(CHUNK_HEADER, HeaderValue::from(CHUNK_ADVICE));
        Ok(response)
    }

    /// Whether the blob could be linked. That it could not be found and that
    /// it may not be read there are one answer.
    async fn mount(
        &self,
        access: &Access,
        repository: &Repository,
        digest: &Digest,
        from: &str,
    ) -> Result<bool, Error> {
        let Ok(source) = from.parse::<Repository>() else { return Ok(false) };
        if !access.may_pull(&source) {
            return Ok(false);
        }
        let Some(link) = self.inner.links.blob(&source, digest).await? else { return Ok(false) };
        self.inner.links.add_blob(repository, digest, link.size).await?;
        self.inner.metrics.blobs_mounted.add(1);
        Ok(true)
    }

    /// `PATCH`, `PUT`, `GET`, `HEAD` and `DELETE /v2/<name>/blobs/uploads/<id>`
    pub(crate) async fn upload(
        &self,
        repository: &Repository,
        id: Uuid,
        request: Request,
    ) -> Result<Response, Error> {
        match *request.method() {
            Method::PATCH => self.append_chunk(repository, id, request).await,
            Method::PUT => self.finish_upload(repository, id, request).await,
            Method::GET | Method::HEAD => {
                let upload = self.inner.uploads.find(repository, id)?;
                let held = upload.hold().await?;
                let written = held.as_ref().map_or(0, |progress| progress.writer.written());
                Ok(progress(StatusCode::NO_CONTENT, repository, id, written))
            }
            Method::DELETE => {
                let upload = self.inner.uploads.find(repository, id)?;
                let taken = upload.hold().await?.take();
                self.inner.uploads.forget(id);
                if let Some(Progress { writer, .. }) = taken {
                    writer.abort().await;
                }
                Ok(StatusCode::NO_CONTENT.into_response())
            }
            _ => Err(Error::Unsupported(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    async fn append_chunk(
        &self,
        repository: &Repository,
        id: Uuid,
        request: Request,
    ) -> Result<Response, Error> {
        let upload = self.inner.uploads.find(repository, id)?;
        let mut held = upload.hold().await?;
        let (head, body) = request.into_parts();
        let appended = self.append(repository, id, &mut held, &head.headers, body).await;
        upload.touch();
        appended.map(|written| progress(StatusCode::ACCEPTED, repository, id, written))
    }

    async fn finish_upload(
        &self,
        repository: &Repository,
        id: Uuid,
        request: Request,
    ) -> Result<Response, Error> {
        let digest = parameters(&request).digest.unwrap_or_default();
        let digest = route::digest(&digest)?;
        let upload = self.inner.uploads.find(repository, id)?;
        let mut held = upload.hold().await?;
        let (head, body) = request.into_parts();
        if held.as_ref().is_some_and(|progress| progress.writer.written() == 0) {
            check_range(&head.headers, repository, id, 0)?;
            // The digest is known before the first byte: no detour.
            self.receive(repository, digest, body, length(&head.headers)).await?;
        } else {
            self.append(repository, id, &mut held, &head.headers, body).await?;
            let progress = held.take().ok_or(Error::UploadUnknown)?;
            self.inner.uploads.forget(id);
            self.commit(repository, digest, progress).await?;
        }
        self.inner.uploads.forget(id);
        Ok(created(repository, &digest))
    }

    /// Appends a body to an upload and returns how much it has then. What
    /// arrives of a body that breaks off counts, and the client can go on from
    /// there; an upload that the store failed is given up.
    async fn append(
        &self,
        repository: &Repository,
        id: Uuid,
        held: &mut Option<Progress>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<u64, Error> {
        let upload = held.as_mut().ok_or(Error::UploadUnknown)?;
        check_range(headers, repository, id, upload.writer.written())?;
        let limit = self.inner.options.limits.blob_size;
        let mut body = self.counted(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(Error::UploadBroken)?;
            if upload.writer.written() + chunk.len() as u64 > limit {
                return Err(Error::TooLarge(limit));
            }
            if let Err(error) = upload.writer.write(chunk.clone()).await {
                self.inner.uploads.forget(id);
                *held = None;
                return Err(error.into());
            }
            // No await between the two: what is written is hashed.
            upload.hash.update(&chunk);
        }
        Ok(upload.writer.written())
    }

    /// Publishes what came in several requests.
    async fn commit(
        &self,
        repository: &Repository,
        digest: Digest,
        progress: Progress,
    ) -> Result<(), Error> {
        tracing::Span::current().record("blob.digest", digest.to_string());
        let Progress { writer, hash } = progress;
        let size = writer.written();
        let (store, key) = (&self.inner.store, ObjectKey::Blob(digest));
        if hash.algorithm() != digest.algorithm() {
            // Hashed by the wrong algorithm on the way: read it once more.
            let staged = writer.key().clone();
            writer.commit().await?;
            let body = store.get(&staged, None).await?.into_stream();
            let stored = store.put_stream(&key, body, Verifier::new(digest).size(size)).await;
            store.delete(&staged).await?;
            self.count_refusal(stored.map(|_| ()).map_err(Error::from))?;
        } else {
            let actual = hash.finish();
            if actual != digest {
                writer.abort().await;
                let (expected, actual) = (digest.into(), actual.into());
                return self.count_refusal(Err(Mismatch::Digest { expected, actual }.into()));
            }
            if self.is_kept(&digest).await? {
                writer.abort().await;
            } else {
                writer.commit_as(&key).await?;
            }
        }
        self.inner.metrics.blobs_received.add(1);
        self.inner.links.add_blob(repository, &digest, size).await?;
        Ok(())
    }

    /// Takes a blob whose digest is known straight to its place.
    async fn receive(
        &self,
        repository: &Repository,
        digest: Digest,
        body: Body,
        length: Option<u64>,
    ) -> Result<(), Error> {
        tracing::Span::current().record("blob.digest", digest.to_string());
        let limit = self.inner.options.limits.blob_size;
        if length.is_some_and(|length| length > limit) {
            return Err(Error::TooLarge(limit));
        }
        let mut verifier = Verifier::new(digest).at_most(limit);
        if let Some(length) = length {
            verifier = verifier.size(length);
        }
        let key = ObjectKey::Blob(digest);
        let body = self.counted(body);
        let size = if self.is_kept(&digest).await? {
            verify(body, verifier).await
        } else {
            let stored = self.inner.store.put_stream(&key, body, verifier).await;
            stored.map(|stored| stored.size).map_err(Error::from)
        };
        let size = self.count_refusal(size)?;
        self.inner.metrics.blobs_received.add(1);
        self.inner.links.add_blob(repository, &digest, size).await?;
        Ok(())
    }

    fn counted(&self, body: Body) -> impl Stream<Item = Result<Bytes, BoxError>> + Unpin + use<> {
        let metrics = Arc::clone(&self.inner.metrics);
        body.into_data_stream().map(move |chunk| match chunk {
            Ok(chunk) => {
                metrics.bytes_received.add(chunk.len() as u64);
                Ok(chunk)
            }
            Err(error) => Err(error.into()),
        })
    }

    fn count_refusal<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Mismatch(_))) {
            self.inner.metrics.uploads_refused.add(1);
        }
        result
    }
}

/// Reads a body only to see that its sender has it.
async fn verify(
    mut body: impl Stream<Item = Result<Bytes, BoxError>> + Unpin,
    mut verifier: Verifier,
) -> Result<u64, Error> {
    while let Some(chunk) = body.next().await {
        verifier.update(&chunk.map_err(Error::UploadBroken)?)?;
    }
    let size = verifier.written();
    verifier.finish()?;
    Ok(size)
}

fn parameters(request: &Request) -> Parameters {
    Query::try_from_uri(request.uri()).map(|Query(parameters)| parameters).unwrap_or_default()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses a chunk whose range does not begin where the upload stands, or is
/// not as long as its body. A body without a range goes to the end.
fn check_range(
    headers: &HeaderMap,
    repository: &Repository,
    id: Uuid,
    written: u64,
) -> Result<(), Error> {
    let Some(range) = headers.get(header::CONTENT_RANGE) else { return Ok(()) };
    let range = range.to_str().ok().and_then(chunk_range);
    let fits = range.is_some_and(|(start, size)| {
        start == written && length(headers).is_none_or(|length| length == size)
    });
    if fits {
        return Ok(());
    }
    Err(Error::ChunkOutOfOrder { location: location(repository, id), written })
}

/// Start and size of `Content-Range: <start>-<end>`, the specification's form,
/// whose end is part of the range. Some clients write it as RFC 9110 does.
fn chunk_range(value: &str) -> Option<(u64, u64)> {
    let value = value.trim().trim_start_matches("bytes").trim_start_matches(['=', ' ']);
    let (start, end) = value.split('/').next()?.split_once('-')?;
    let (start, end): (u64, u64) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
    Some((start, end.checked_sub(start)?.checked_add(1)?))
}

fn location(repository: &Repository, id: Uuid) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    let headers = [
        (header::LOCATION, format!("/v2/{repository}/blobs/{digest}")),
        (DIGEST_HEADER, digest.to_string()),
    ];
    (StatusCode::CREATED, headers).into_response()
}

fn progress(status: StatusCode, repository: &Repository, id: Uuid, written: u64) -> Response {
    let mut response = (status, [(UPLOAD_HEADER, id.to_string())]).into_response();
    progress_headers(response.headers_mut(), &location(repository, id), written);
    response
}

/// Where an upload goes on. Its range is inclusive, so that an upload of one
/// byte and an empty one look the same; clients know which they have.
pub(crate) fn progress_headers(headers: &mut HeaderMap, location: &str, written: u64) {
    let range = format!("0-{}", written.saturating_sub(1));
    let values = [(header::LOCATION, location), (header::RANGE, range.as_str())];
    for (name, value) in values {
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_chunks_are_read_in_both_forms() {
        for value in ["5-9", "bytes 5-9", "bytes=5-9", "bytes 5-9/10", "bytes 5-9/*", " 5 - 9 "] {
            assert_eq!(chunk_range(value), Some((5, 5)), "{value}");
        }
        assert_eq!(chunk_range("0-0"), Some((0, 1)));
        for value in ["", "-", "5-", "-9", "9-5", "a-b", "5", &format!("0-{}", u64::MAX)] {
            assert_eq!(chunk_range(value), None, "{value}");
        }
    }
}
