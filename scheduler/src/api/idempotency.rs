//! `Idempotency-Key`: a request that is sent again is answered with what the first
//! one made (draft-ietf-httpapi-idempotency-key-header).
//!
//! The key is stored before the snapshot, with the id that the snapshot will have
//! and a hash of the request. A request that does not end counts as lost after a
//! while, and the next one goes on, with an id of its own. Invariant: only the
//! snapshot that the key names is ever told to a client; whoever comes too late
//! takes back what it has made.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_api::types::CreateSnapshot;
use slipway_bus::bucket::{self, Bucket};
use slipway_bus::topology::keys;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{OrganizationId, SnapshotId};
use slipway_oci::Digest;

use super::{ApiError, App};
use crate::ledger::Ledger;
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
    let body = serde_json::to_vec(&request).expect("a request of text serialises");
    let key = Key {
        bucket: &app.requests_made,
        slot: keys::request(&organization, &hex(checked(key)?.as_bytes())),
        request: hex(&body),
    };
    let begun = key.begin(&app.ledger, organization, Timestamp::now()).await?;
    let (record, revision) = match begun {
        Turn::Done(snapshot) => return Ok(*snapshot),
        Turn::Ours(record, revision) => (record, revision),
    };
    let id = record.snapshot;
    let made = submit::submit(app, organization, id, request).await;
    match key.end(record, revision, made.is_ok()).await {
        Err(error) if error.is_conflict() && made.is_ok() => {
            // Another one goes on with the request, and did not find the snapshot.
            if let Err(error) = app.ledger.remove(id).await {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(snapshot.id = %id, error, "a snapshot that came too late stays");
            }
            Err(under_way())
        }
        // The key names our snapshot still: whoever asks next is shown it, if it is there.
        Err(error) => {
            tracing::warn!(%error, "the end of a request with a key is not noted");
            made
        }
        Ok(()) => made,
    }
}

/// A key, and the request that comes with it.
struct Key<'a> {
    bucket: &'a Bucket,
    slot: String,
    request: String,
}

impl Key<'_> {
    async fn begin(
        &self,
        ledger: &Ledger,
        organization: OrganizationId,
        now: Timestamp,
    ) -> Result<Turn, ApiError> {
        let own = RequestRecord {
            version: 1,
            request: self.request.clone(),
            snapshot: submit::new_id(),
            began_at: now,
            is_done: false,
        };
        loop {
            match self.bucket.create(&self.slot, &own, Some(LASTS)).await {
                Ok(revision) => return Ok(Turn::Ours(own, revision)),
                Err(error) if !error.is_conflict() => return Err(unavailable(&error)),
                Err(_) => {}
            }
            let entry = self.bucket.get(&self.slot).await.map_err(|error| unavailable(&error))?;
            let Some(entry) = entry else { continue };
            let stored: RequestRecord = entry.json().map_err(|error| unavailable(&error))?;
            if stored.request != self.request {
                return Err(reused());
            }
            if let Some(snapshot) = ledger.find(organization, stored.snapshot).await? {
                return Ok(Turn::Done(Box::new(snapshot)));
            }
            if stored.is_done {
                return Err(deleted());
            }
            if now.duration_since(stored.began_at) < PATIENCE {
                return Err(under_way());
            }
            match self.bucket.update(&self.slot, &own, entry.revision, Some(LASTS)).await {
                Ok(revision) => return Ok(Turn::Ours(own, revision)),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(unavailable(&error)),
            }
        }
    }

    /// Notes that the request is done, or frees the key if it was refused. It is a
    /// conflict if another one goes on with the request meanwhile.
    async fn end(
        &self,
        record: RequestRecord,
        revision: u64,
        is_done: bool,
    ) -> Result<(), bucket::Error> {
        if !is_done {
            return self.bucket.delete(&self.slot, revision).await;
        }
        let record = RequestRecord { is_done, ..record };
        self.bucket.update(&self.slot, &record, revision, Some(LASTS)).await.map(|_| ())
    }
}

fn unavailable(error: &bucket::Error) -> ApiError {
    ApiError::unavailable(error)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_bus::topology::BucketName;

    use super::*;
    use crate::ledger::Naming;
    use crate::ledger::tests::{Replica, new, replica, start};

    async fn turn(key: &Key<'_>, replica: &Replica, seconds: i64) -> Result<Turn, ApiError> {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
        key.begin(&replica.ledger, new("a").0.organization, now).await
    }

    fn ours(turn: Result<Turn, ApiError>) -> (RequestRecord, u64) {
        match turn {
            Ok(Turn::Ours(record, revision)) => (record, revision),
            Ok(Turn::Done(snapshot)) => panic!("{snapshot:?} was made"),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn done(turn: Result<Turn, ApiError>) -> SnapshotId {
        match turn {
            Ok(Turn::Done(snapshot)) => snapshot.id,
            Ok(Turn::Ours(record, _)) => panic!("{record:?} would make another"),
            Err(error) => panic!("{error:?}"),
        }
    }

    fn code(turn: Result<Turn, ApiError>) -> &'static str {
        turn.err().map(|error| error.code).unwrap()
    }

    async fn make(replica: &Replica, record: &RequestRecord) {
        let (snapshot, job) = new("a");
        let snapshot = SnapshotRecord { id: record.snapshot, ..snapshot };
        replica.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_that_comes_too_late_is_told_and_the_one_that_took_over_counts() {
        let (_server, bus) = start().await;
        let only = replica(&bus).await;
        let bucket = bus.bucket(&BucketName::Requests);
        let key = Key { bucket: &bucket, slot: "request.a.b".into(), request: "r".into() };
        let (slow, revision) = ours(turn(&key, &only, 0).await);
        assert_eq!(code(turn(&key, &only, 59).await), "idempotency_key_in_use");
        let (second, second_revision) = ours(turn(&key, &only, 61).await);
        assert_ne!(second.snapshot, slow.snapshot);
        let late = key.end(slow, revision, true).await.unwrap_err();
        assert!(late.is_conflict(), "{late}");
        key.end(second.clone(), second_revision, true).await.unwrap();
        assert_eq!(code(turn(&key, &only, 200).await), "idempotency_key_used");
        make(&only, &second).await;
        assert_eq!(done(turn(&key, &only, 200).await), second.snapshot);
        let other = Key { bucket: &bucket, slot: key.slot.clone(), request: "other".into() };
        assert_eq!(code(turn(&other, &only, 200).await), "idempotency_key_reused");
    }

    #[tokio::test]
    async fn what_was_made_before_its_scheduler_died_is_found_and_a_refusal_frees_the_key() {
        let (_server, bus) = start().await;
        let (dying, next) = (replica(&bus).await, replica(&bus).await);
        let bucket = bus.bucket(&BucketName::Requests);
        let key = Key { bucket: &bucket, slot: "request.a.b".into(), request: "r".into() };
        let (dead, _) = ours(turn(&key, &dying, 0).await);
        make(&dying, &dead).await;
        // The next one may not have heard of it.
        assert_eq!(done(turn(&key, &next, 61).await), dead.snapshot);
        let key = Key { bucket: &bucket, slot: "request.a.c".into(), request: "r".into() };
        let (refused, revision) = ours(turn(&key, &next, 0).await);
        key.end(refused, revision, false).await.unwrap();
        ours(turn(&key, &next, 1).await);
    }
}
