//! Blobs as streams that outlive their connections.
//!
//! Invariant: a stream yields exactly as many bytes as the descriptor says, or
//! an error. Their digest is for the taker to verify, where the content becomes
//! visible; only what is read whole here is verified here.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use slipway_oci::{Descriptor, Mismatch, Verifier};

use crate::body;
use crate::error::Error;
use crate::http::unreachable;
use crate::retry::Backoff;
use crate::session::{ERROR_BODY, Session};

/// A connection that brought as much counts as a success, however it ended.
const PROGRESS: u64 = 1 << 20;

/// The bytes of a blob.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// An open body and how far it is from where the stream stands.
struct Body {
    response: Response,
    /// Bytes that are known already, from a server that sends all of them.
    skip: u64,
    /// Whether the server has said where the body ends.
    has_length: bool,
}

impl Session {
    /// The bytes of `descriptor`'s blob. After a cut it goes on where it was.
    pub(crate) fn blob(self: Arc<Self>, descriptor: Descriptor) -> BlobStream {
        Box::pin(async_stream::try_stream! {
            let mut done = 0;
            let mut since = 0;
            let mut backoff = Backoff::new(self.http.config.retry);
            while done < descriptor.size {
                let mut body = self.open_at(&descriptor, done).await?;
                let cut = loop {
                    match body.response.chunk().await {
                        Ok(Some(chunk)) => {
                            let Some(chunk) = body.advance(chunk) else { continue };
                            let left = descriptor.size - done;
                            if chunk.len() as u64 > left {
                                Err(self.wrong(&descriptor, Mismatch::TooLong {
                                    size: descriptor.size,
                                }))?;
                            }
                            done += chunk.len() as u64;
                            if !chunk.is_empty() {
                                yield chunk;
                            }
                            // What a server without lengths sends beyond the
                            // end is still to be seen.
                            if done == descriptor.size && body.has_length {
                                break None;
                            }
                        }
                        Ok(None) => break None,
                        Err(error) => break Some(error),
                    }
                };
                if done == descriptor.size {
                    break;
                }
                let error = match cut {
                    Some(error) => unreachable(&self.host, error),
                    None => self.ended_early(&descriptor, done),
                };
                if done - since >= PROGRESS {
                    backoff = Backoff::new(self.http.config.retry);
                }
                since = done;
                self.wait_after_cut(&mut backoff, error).await?;
            }
        })
    }

    /// All bytes of a small blob, verified.
    pub(crate) async fn blob_bytes(
        self: &Arc<Self>,
        descriptor: &Descriptor,
    ) -> Result<Bytes, Error> {
        let mut stream = Arc::clone(self).blob(descriptor.clone());
        let mut verifier = Verifier::new(descriptor.digest).size(descriptor.size);
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            verifier.update(&chunk).map_err(|source| self.wrong(descriptor, source))?;
            bytes.extend_from_slice(&chunk);
        }
        verifier.finish().map_err(|source| self.wrong(descriptor, source))?;
        Ok(bytes.freeze())
    }

    /// A part of a blob. It cannot be verified by itself.
    pub(crate) async fn blob_part(
        &self,
        descriptor: &Descriptor,
        range: Range<u64>,
    ) -> Result<Bytes, Error> {
        let mut backoff = Backoff::new(self.http.config.retry);
        loop {
            match self.part_once(descriptor, range.clone()).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.wait_after_cut(&mut backoff, error).await?,
            }
        }
    }

    async fn part_once(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Bytes, Error> {
        let wanted = (range.end - range.start) as usize;
        let mut body = self.open_range(descriptor, range.start, Some(range.end)).await?;
        let mut bytes = BytesMut::with_capacity(wanted);
        while bytes.len() < wanted {
            let chunk = body.response.chunk().await;
            let Some(chunk) = chunk.map_err(|error| unreachable(&self.host, error))? else {
                return Err(self.ended_early(descriptor, range.start + bytes.len() as u64));
            };
            bytes.extend_from_slice(&body.advance(chunk).unwrap_or_default());
        }
        bytes.truncate(wanted);
        Ok(bytes.freeze())
    }

    async fn open_at(&self, descriptor: &Descriptor, offset: u64) -> Result<Body, Error> {
        self.open_range(descriptor, offset, None).await
    }

    async fn open_range(
        &self,
        descriptor: &Descriptor,
        start: u64,
        end: Option<u64>,
    ) -> Result<Body, Error> {
        let digest = descriptor.digest;
        let what = format!("{}@{digest}", self.repository);
        let mut get = self.request(&format!("blobs/{digest}"), what);
        get.range = match (start, end) {
            (0, None) => None,
            (start, None) => Some(format!("bytes={start}-")),
            (start, Some(end)) => Some(format!("bytes={start}-{}", end.saturating_sub(1))),
        };
        let response = self.open_body(&get).await?;
        if body::is_web_page(response.headers()) {
            return Err(Error::WebPage(self.host.clone()));
        }
        let length = response.content_length();
        let has_length = length.is_some();
        if response.status() == StatusCode::PARTIAL_CONTENT {
            if get.range.is_none() || !starts_at(&response, start, descriptor.size) {
                return Err(Error::Range { host: self.host.clone(), digest: digest.into() });
            }
            return Ok(Body { response, skip: 0, has_length });
        }
        match length {
            Some(actual) if actual != descriptor.size => {
                Err(self.of_other_length(descriptor, response, actual).await)
            }
            _ => Ok(Body { response, skip: start, has_length }),
        }
    }

    /// What a body of a wrong length is: an error in words, or just wrong.
    async fn of_other_length(
        &self,
        descriptor: &Descriptor,
        mut response: Response,
        actual: u64,
    ) -> Error {
        let host = self.host.clone();
        let is_json =
            body::media_type(response.headers()).is_some_and(|text| text.ends_with("json"));
        if is_json
            && let Ok(bytes) = body::read(&mut response, ERROR_BODY).await
            && let Some(reason) = self.reason_in(&bytes)
        {
            return Error::ErrorBody { host, reason };
        }
        let digest = descriptor.digest.into();
        Error::Length { host, digest, expected: descriptor.size, actual }
    }

    fn wrong(&self, descriptor: &Descriptor, source: Mismatch) -> Error {
        Error::Content { host: self.host.clone(), digest: descriptor.digest.into(), source }
    }

    fn ended_early(&self, descriptor: &Descriptor, actual: u64) -> Error {
        self.wrong(descriptor, Mismatch::TooShort { expected: descriptor.size, actual })
    }

    /// A body that ended early is a cut like any other, until it is the last.
    async fn wait_after_cut(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        let is_cut = matches!(&error, Error::Content { source: Mismatch::TooShort { .. }, .. });
        if !is_cut {
            return self.wait(backoff, error).await;
        }
        let Some(pause) = backoff.pause(None) else { return Err(error) };
        tracing::info!(registry = self.host, "a blob ended early and is asked for again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

impl Body {
    /// The part of a chunk that is new, if any.
    fn advance(&mut self, mut chunk: Bytes) -> Option<Bytes> {
        let known = self.skip.min(chunk.len() as u64);
        self.skip -= known;
        let new = chunk.split_off(known as usize);
        (!new.is_empty()).then_some(new)
    }
}

/// Whether `Content-Range: bytes start-end/size` is what was asked for.
fn starts_at(response: &Response, start: u64, size: u64) -> bool {
    let read = || {
        let text = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, _) = range.split_once('-')?;
        Some((first.trim().parse::<u64>().ok()?, total.trim().to_owned()))
    };
    read()
        .is_some_and(|(first, total)| first == start && (total == "*" || total.parse() == Ok(size)))
}
