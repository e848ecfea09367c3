//! Bodies that are verified while they stream.
//!
//! Owns the checksums that came with a body, in headers or after it (trailers),
//! and `Content-MD5`. A body whose checksum is wrong ends in an error, so that
//! whoever stores it stores nothing.

use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, StreamingBlob};
use s3s::{S3Error, S3ErrorCode, TrailingHeaders};
use slipway_blobstore::BoxError;

use super::refused;

/// What a body must be.
#[derive(Default)]
pub(super) struct Promised {
    /// In headers.
    pub(super) checksum: Checksum,
    /// `Content-MD5`, in base64.
    pub(super) md5: Option<String>,
    /// The algorithms whose values follow the body.
    pub(super) trailers: Option<TrailingHeaders>,
    /// Names of the headers that follow, as `x-amz-trailer` announces them.
    pub(super) announced: Vec<String>,
}

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("the `{0}` of the body is another")]
    Checksum(&'static str),
    #[error("the trailer `{0}` is missing")]
    Trailer(&'static str),
}

/// What was found.
#[derive(Debug, Default, Clone)]
pub(super) struct Found(Arc<Mutex<Checksum>>);

impl Found {
    /// The checksums, once the body has ended.
    pub(super) fn get(&self) -> Checksum {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The bytes of `body`, or an error at the end if they are not what was promised.
pub(super) fn verified(
    body: Option<StreamingBlob>,
    promised: Promised,
) -> (impl Stream<Item = Result<Bytes, BoxError>> + Send, Found) {
    let found = Found::default();
    let check = Check::new(promised, found.clone());
    let body = stream::iter(body).flatten();
    let checked = stream::unfold(Some((body, check)), |state| async move {
        let (mut body, mut check) = state?;
        match body.next().await {
            Some(Ok(chunk)) => {
                check.update(&chunk);
                Some((Ok(chunk), Some((body, check))))
            }
            Some(Err(error)) => Some((Err(error), None)),
            None => check.finish().err().map(|fault| (Err(fault.into()), None)),
        }
    });
    (checked, found)
}

struct Check {
    hasher: ChecksumHasher,
    md5: Option<Md5>,
    promised: Promised,
    found: Found,
}

/// Header and value of each checksum.
fn fields(checksum: &Checksum) -> [(&'static str, &Option<String>); 5] {
    [
        ("x-amz-checksum-crc32", &checksum.checksum_crc32),
        ("x-amz-checksum-crc32c", &checksum.checksum_crc32c),
        ("x-amz-checksum-crc64nvme", &checksum.checksum_crc64nvme),
        ("x-amz-checksum-sha1", &checksum.checksum_sha1),
        ("x-amz-checksum-sha256", &checksum.checksum_sha256),
    ]
}

impl Check {
    fn new(promised: Promised, found: Found) -> Self {
        let wants = |header: &str| {
            let stated = fields(&promised.checksum);
            stated.iter().any(|(name, value)| *name == header && value.is_some())
                || promised.announced.iter().any(|name| name == header)
        };
        let hasher = ChecksumHasher {
            crc32: wants("x-amz-checksum-crc32").then(Crc32::new),
            crc32c: wants("x-amz-checksum-crc32c").then(Crc32c::new),
            sha1: wants("x-amz-checksum-sha1").then(Sha1::new),
            sha256: wants("x-amz-checksum-sha256").then(Sha256::new),
            crc64nvme: wants("x-amz-checksum-crc64nvme").then(Crc64Nvme::new),
        };
        let md5 = promised.md5.as_ref().map(|_| Md5::new());
        Self { hasher, md5, promised, found }
    }

    fn update(&mut self, chunk: &[u8]) {
        self.hasher.update(chunk);
        if let Some(md5) = &mut self.md5 {
            md5.update(chunk);
        }
    }

    fn finish(self) -> Result<(), Fault> {
        let Self { hasher, md5, promised, found } = self;
        let actual = hasher.finalize();
        let stated = fields(&promised.checksum);
        for ((name, value), (_, stated)) in fields(&actual).into_iter().zip(stated) {
            if stated.is_some() && stated != value {
                return Err(Fault::Checksum(name));
            }
            let follows = promised.announced.iter().any(|announced| announced == name);
            if follows && promised.trailer(name).ok_or(Fault::Trailer(name))? != *value {
                return Err(Fault::Checksum(name));
            }
        }
        if let (Some(md5), Some(stated)) = (md5, &promised.md5)
            && STANDARD.encode(md5.finalize()) != *stated
        {
            return Err(Fault::Checksum("content-md5"));
        }
        *found.0.lock().unwrap_or_else(PoisonError::into_inner) = actual;
        Ok(())
    }
}

impl Promised {
    /// The value of a header after the body.
    fn trailer(&self, name: &str) -> Option<Option<String>> {
        let value = |headers: &axum::http::HeaderMap| {
            headers.get(name)?.to_str().ok().map(|value| value.trim().to_owned())
        };
        self.trailers.as_ref()?.read(value).flatten().map(Some)
    }

    /// Adds what a request says about what follows its body.
    pub(super) fn with_trailers<T>(mut self, request: &s3s::S3Request<T>) -> Self {
        self.trailers = request.trailing_headers.clone();
        let announced = request.headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        let names = announced.unwrap_or_default().split(',');
        let names = names.map(|name| name.trim().to_ascii_lowercase());
        self.announced = names.filter(|name| !name.is_empty()).collect();
        self
    }
}

/// What a body that broke off is to its sender.
pub(super) fn refusal(source: &(dyn std::error::Error + 'static)) -> S3Error {
    if let Some(fault) = source.downcast_ref::<Fault>() {
        return refused(S3ErrorCode::BadDigest, fault.to_string());
    }
    let mut error = Some(source);
    while let Some(cause) = error {
        // The crate has no type for this that could be told apart.
        let text = cause.to_string();
        if text.contains("SignatureMismatch") || text.contains("checksum mismatch") {
            let message = "the payload is not the one that was signed";
            return refused(S3ErrorCode::SignatureDoesNotMatch, message);
        }
        error = cause.source();
    }
    tracing::debug!(error = slipway_runtime::telemetry::chain(source), "an upload broke off");
    refused(S3ErrorCode::IncompleteBody, "the body broke off: send it again")
}
