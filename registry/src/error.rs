//! Errors of requests, and the one place that maps them to the form of the
//! distribution specification ("Error codes").
//!
//! Invariant: an answer holds nothing that its client could not know already;
//! the reasons of the store and of the authorizer are logged, not sent.

use std::error::Error as StdError;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use slipway_blobstore::BoxError;
use slipway_oci::{Digest, MediaType, Mismatch};

/// What Docker and BuildKit need to see before they send credentials.
const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"slipway\", charset=\"UTF-8\"");

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("authentication required")]
    Unauthorized,
    #[error("requested access to the resource is denied")]
    Denied,
    #[error("repository name not known to registry")]
    NameUnknown,
    #[error("repositories are named `<organization id>/<name>` in lowercase")]
    NameInvalid,
    #[error("digest is malformed")]
    DigestMalformed(#[source] slipway_oci::error::Digest),
    #[error("content is not what it was announced to be")]
    Mismatch(#[source] Mismatch),
    #[error("content exceeds {0} bytes")]
    TooLarge(u64),
    #[error("blob unknown to registry")]
    BlobUnknown,
    #[error("manifest unknown to registry")]
    ManifestUnknown,
    #[error("manifest is of type `{0}`, which the request's `Accept` leaves out")]
    NotAcceptable(MediaType),
    #[error("manifest is invalid: {0}")]
    ManifestInvalid(String),
    #[error("manifest references content that is not in the repository")]
    ManifestBlobUnknown(Vec<Digest>),
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    #[error("another request is writing to this blob upload")]
    UploadBusy,
    #[error("blob upload broke off")]
    UploadBroken(#[source] BoxError),
    #[error("chunk is not what its range says, or does not begin where the upload stands")]
    ChunkOutOfOrder { location: String, written: u64 },
    #[error("range is not within the blob")]
    RangeInvalid { size: u64 },
    #[error("too many uploads are open")]
    TooManyUploads,
    #[error("the operation is unsupported")]
    Unsupported(StatusCode),
    #[error("the registry cannot serve this now, try again")]
    Unavailable(#[source] BoxError),
    #[error("the registry failed")]
    Internal(#[source] BoxError),
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NameUnknown
            | Self::BlobUnknown
            | Self::ManifestUnknown
            | Self::NotAcceptable(_)
            | Self::ManifestBlobUnknown(_)
            | Self::UploadUnknown => StatusCode::NOT_FOUND,
            Self::NameInvalid
            | Self::DigestMalformed(_)
            | Self::Mismatch(_)
            | Self::ManifestInvalid(_)
            | Self::UploadBroken(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UploadBusy => StatusCode::CONFLICT,
            Self::ChunkOutOfOrder { .. } | Self::RangeInvalid { .. } => {
                StatusCode::RANGE_NOT_SATISFIABLE
            }
            Self::TooManyUploads => StatusCode::TOO_MANY_REQUESTS,
            Self::Unsupported(status) => *status,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::DigestMalformed(_) | Self::Mismatch(Mismatch::Digest { .. }) => "DIGEST_INVALID",
            Self::Mismatch(_) | Self::TooLarge(_) => "SIZE_INVALID",
            Self::BlobUnknown => "BLOB_UNKNOWN",
            // What the reference implementation answers: the specification has no
            // code for it.
            Self::ManifestUnknown | Self::NotAcceptable(_) => "MANIFEST_UNKNOWN",
            Self::ManifestInvalid(_) => "MANIFEST_INVALID",
            Self::ManifestBlobUnknown(_) => "MANIFEST_BLOB_UNKNOWN",
            Self::UploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::UploadBusy | Self::UploadBroken(_) => "BLOB_UPLOAD_INVALID",
            Self::ChunkOutOfOrder { .. } | Self::RangeInvalid { .. } => "RANGE_INVALID",
            Self::TooManyUploads => "TOOMANYREQUESTS",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::Unavailable(_) => "UNAVAILABLE",
            Self::Internal(_) => "UNKNOWN",
        }
    }

    fn detail(&self) -> Value {
        match self {
            Self::DigestMalformed(source) => json!({ "reason": source.to_string() }),
            Self::Mismatch(source) => json!({ "reason": source.to_string() }),
            Self::ManifestBlobUnknown(digests) => json!({ "missing": digests }),
            Self::ChunkOutOfOrder { written, .. } => json!({ "written": written }),
            Self::RangeInvalid { size } => json!({ "size": size }),
            _ => Value::Null,
        }
    }

    /// Logs what its client is not told.
    fn log(&self) {
        let (Self::Unavailable(source) | Self::Internal(source) | Self::UploadBroken(source)) =
            self
        else {
            return;
        };
        let source = source.as_ref() as &(dyn StdError + 'static);
        if matches!(self, Self::UploadBroken(_)) {
            tracing::info!(error = source, "a client broke off its upload");
        } else {
            tracing::error!(error = source, code = self.code(), "a registry request failed");
        }
    }
}

impl From<slipway_blobstore::Error> for Error {
    /// An error of the store that no caller has given a meaning.
    fn from(error: slipway_blobstore::Error) -> Self {
        match error {
            slipway_blobstore::Error::Mismatch { source, .. } => source.into(),
            slipway_blobstore::Error::Body { source, .. } => Self::UploadBroken(source),
            slipway_blobstore::Error::Range { size, .. } => Self::RangeInvalid { size },
            other if other.is_retryable() => Self::Unavailable(other.into()),
            other => Self::Internal(other.into()),
        }
    }
}

impl From<Mismatch> for Error {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(mismatch)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let body = json!({ "errors": [{
            "code": self.code(), "message": self.to_string(), "detail": self.detail(),
        }] });
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            Self::Unavailable(_) | Self::TooManyUploads => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::RangeInvalid { size } => {
                let value = HeaderValue::from_str(&format!("bytes */{size}"));
                headers.extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
            }
            Self::ChunkOutOfOrder { location, written } => {
                crate::push::progress_headers(headers, location, *written);
            }
            _ => {}
        }
        response
    }
}
