//! `Idempotency-Key`: a request that is sent again is answered with what the first
//! one made (draft-ietf-httpapi-idempotency-key-header).
//!
//! The key is stored before the snapshot, with the id that the snapshot will have
//! and a hash of the request. Invariant: of all requests with one key at most one
//! makes a snapshot; who dies in the middle leaves enough to go on with.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_api::types::CreateSnapshot;
use slipway_bus::topology::keys;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{OrganizationId, SnapshotId};
use slipway_oci::Digest;

use super::{ApiError, App};
use crate::submit;

/// The header.
pub const HEADER: &str = "idempotency-key";

/// How long a key is remembered.
const LASTS: Duration = Duration::from_secs(24 * 3600);
/// After this long a request that has not ended counts as lost.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// Longest key, in bytes.
const LONGEST: usize = 255;

/// What is stored of a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RequestRecord {
    version: u32,
    /// SHA-256 of the request, in lowercase hexadecimal digits.
    request: String,
    /// The snapshot that it makes.
    snapshot: SnapshotId,
    began_at: Timestamp,
    /// Whether the snapshot was stored.
    is_done: bool,
}

/// Who goes on with a request.
enum Turn {
    /// We do, under this revision.
    Ours(RequestRecord, u64),
    /// It was done: this is what came of it.
    Done(Box<SnapshotRecord>),
}

/// Submits a request, or finds what the same request has made before.
///
/// # Errors
/// As [`submit::submit`]; and the key is none, or names another request.
pub async fn submit(
    app: &App,
    organization: OrganizationId,
    key: Option<&HeaderValue>,
    request: CreateSnapshot,
) -> Result<SnapshotRecord, ApiError> {
    let Some(key) = key else {
        return submit::submit(app, organization, submit::new_id(), request).await;
    };
    let slot = keys::request(&organization, &hex(checked(key)?.as_bytes()));
    let body = serde_json::to_vec(&request).map_err(|error| ApiError::unavailable(&error))?;
    let (mut record, revision) = match begin(app, organization, &slot, &hex(&body)).await? {
        Turn::Done(snapshot) => return Ok(*snapshot),
        Turn::Ours(record, revision) => (record, revision),
    };
    let made = submit::submit(app, organization, record.snapshot, request).await;
    // Without either write the key is free again after a while, and whoever asks then
    // is shown the snapshot if there is one.
    let noted = if made.is_ok() {
        record.is_done = true;
        let update = app.requests_made.update(&slot, &record, revision, Some(LASTS)).await;
        update.map(|_| ())
    } else {
        app.requests_made.delete(&slot, revision).await
    };
    if let Err(error) = noted {
        tracing::warn!(%error, "the end of a request with a key is not noted");
    }
    made
}

async fn begin(
    app: &App,
    organization: OrganizationId,
    slot: &str,
    request: &str,
) -> Result<Turn, ApiError> {
    let bucket = &app.requests_made;
    loop {
        let own = RequestRecord {
            version: 1,
            request: request.to_owned(),
            snapshot: submit::new_id(),
            began_at: Timestamp::now(),
            is_done: false,
        };
        match bucket.create(slot, &own, Some(LASTS)).await {
            Ok(revision) => return Ok(Turn::Ours(own, revision)),
            Err(error) if !error.is_conflict() => return Err(ApiError::unavailable(&error)),
            Err(_) => {}
        }
        let entry = bucket.get(slot).await.map_err(|error| ApiError::unavailable(&error))?;
        let Some(entry) = entry else { continue };
        let stored: RequestRecord = entry.json().map_err(|error| ApiError::unavailable(&error))?;
        if stored.request != request {
            return Err(reused());
        }
        if let Some(snapshot) = app.ledger.find(organization, stored.snapshot).await? {
            return Ok(Turn::Done(Box::new(snapshot)));
        }
        if stored.is_done {
            return Err(deleted());
        }
        if own.began_at.duration_since(stored.began_at) < PATIENCE {
            return Err(under_way());
        }
        let ours = RequestRecord { began_at: own.began_at, ..stored };
        match bucket.update(slot, &ours, entry.revision, Some(LASTS)).await {
            Ok(revision) => return Ok(Turn::Ours(ours, revision)),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(ApiError::unavailable(&error)),
        }
    }
}

fn checked(key: &HeaderValue) -> Result<&str, ApiError> {
    let key = key.to_str().ok().filter(|key| (1..=LONGEST).contains(&key.len()));
    key.ok_or_else(|| {
        let message =
            format!("`Idempotency-Key` must be 1 to {LONGEST} printable ASCII characters");
        ApiError::new(StatusCode::BAD_REQUEST, "idempotency_key_invalid", message)
    })
}

fn reused() -> ApiError {
    let message = "This `Idempotency-Key` was used for another request: use a new one";
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
}

fn under_way() -> ApiError {
    let message = "The request with this `Idempotency-Key` is under way: ask again in a moment";
    ApiError::new(StatusCode::CONFLICT, "idempotency_key_in_use", message)
}

fn deleted() -> ApiError {
    let message = "The snapshot that the request with this `Idempotency-Key` made is deleted: \
                   use a new one to make it again";
    ApiError::new(StatusCode::CONFLICT, "idempotency_key_used", message)
}

fn hex(bytes: &[u8]) -> String {
    Digest::sha256(bytes).hex()
}
