//! `/api/v1/contexts`: uploads of build contexts by Slipway's own client.
//!
//! The hash in the path is the SHA-256 of the tar, and the store gets it only if
//! that is true. An organization sees its own contexts alone.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use slipway_blobstore::{ContextHash, ObjectKey};
use slipway_domain::organization::Permission;
use slipway_oci::{Digest, Verifier};

use super::{ApiError, App, Caller};

/// Whether a build context is there
#[utoipa::path(head, path = "/contexts/{hash}", tag = "contexts", params(("hash" = String, Path, description = "SHA-256 of the tar, 64 hexadecimal digits")), responses((status = 200, description = "It is there")))]
pub async fn head(
    State(app): State<App>,
    caller: Caller,
    Path(hash): Path<String>,
) -> Result<StatusCode, ApiError> {
    let (name, _) = parse(&hash)?;
    let key = ObjectKey::Context { organization: *caller.organization.as_uuid(), hash: name };
    match app.contexts.store().exists(&key).await {
        Ok(true) => Ok(StatusCode::OK),
        Ok(false) => {
            let message = format!("There is no build context {hash}");
            Err(ApiError::new(StatusCode::NOT_FOUND, "context_not_found", message))
        }
        Err(error) => Err(ApiError::unavailable(&error)),
    }
}

/// Upload a build context
///
/// A tar. It is kept only if it is what the hash says.
#[utoipa::path(put, path = "/contexts/{hash}", tag = "contexts", params(("hash" = String, Path, description = "SHA-256 of the tar, 64 hexadecimal digits")), request_body(content = Vec<u8>, content_type = "application/x-tar"), responses((status = 201, description = "It is stored and verified")))]
pub async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(hash): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    caller.not_suspended(&app.view)?;
    let (name, digest) = parse(&hash)?;
    let limit = app.config.limits.context_bytes;
    let size =
        headers.get(header::CONTENT_LENGTH).and_then(|size| size.to_str().ok()?.parse().ok());
    if size.is_some_and(|size: u64| size > limit) {
        return Err(too_large(limit));
    }
    let body = body.into_data_stream();
    let verifier = Verifier::new(digest).at_most(limit);
    let verifier = match size {
        Some(size) => verifier.size(size),
        None => verifier,
    };
    match app.contexts.put(caller.organization, name, body, verifier).await {
        Ok(_) => Ok(StatusCode::CREATED),
        Err(error @ slipway_blobstore::Error::Mismatch { .. }) => {
            let detail = slipway_runtime::telemetry::chain(&error);
            Err(ApiError::new(StatusCode::BAD_REQUEST, "context_mismatch", detail))
        }
        Err(slipway_blobstore::Error::Body { .. }) => {
            Err(ApiError::bad_request("the upload ended early: send it again"))
        }
        Err(error) => Err(ApiError::unavailable(&error)),
    }
}

fn parse(hash: &str) -> Result<(ContextHash, Digest), ApiError> {
    let parsed: Option<ContextHash> = hash.parse().ok();
    let digest = parsed.as_ref().and_then(ContextHash::as_sha256);
    parsed.zip(digest).ok_or_else(|| {
        ApiError::bad_request(format!(
            "`{hash}` is not a SHA-256: use 64 lowercase hexadecimal digits"
        ))
    })
}

fn too_large(limit: u64) -> ApiError {
    let message = format!("a build context may have at most {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "context_too_large", message)
}
