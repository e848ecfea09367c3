//! Keys of the buckets.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use slipway_domain::identity::WorkIdentity;
use slipway_domain::{CredentialId, JobId, OrganizationId, Region, SnapshotId, WorkerId};

/// Records: a snapshot.
#[must_use]
pub fn snapshot(organization: &OrganizationId, snapshot: &SnapshotId) -> String {
    format!("snapshot.{organization}.{snapshot}")
}

/// Records: the owner of a snapshot name, unique within an organization.
/// Names hold characters that keys cannot, hence base64url.
#[must_use]
pub fn snapshot_name(organization: &OrganizationId, name: &str) -> String {
    format!("name.{organization}.{}", URL_SAFE_NO_PAD.encode(name))
}

/// The organization and the name of a key that [`snapshot_name`] made.
#[must_use]
pub fn parse_snapshot_name(key: &str) -> Option<(OrganizationId, String)> {
    let (organization, name) = key.strip_prefix("name.")?.split_once('.')?;
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
    Some((organization.parse().ok()?, name))
}

/// Records: who shares the work of an identity.
#[must_use]
pub fn work(organization: &OrganizationId, identity: &WorkIdentity) -> String {
    format!("work.{organization}.{identity}")
}

/// Records: a job. Leases: the claim of its running attempt.
#[must_use]
pub fn job(job: &JobId) -> String {
    format!("job.{job}")
}

/// Leases: a worker's sign of life.
#[must_use]
pub fn worker(worker: &WorkerId) -> String {
    format!("worker.{worker}")
}

/// Leases: the order to a worker to take no new jobs.
#[must_use]
pub fn drain(worker: &WorkerId) -> String {
    format!("drain.{worker}")
}

/// Organizations: an organization.
#[must_use]
pub fn organization(organization: &OrganizationId) -> String {
    format!("organization.{organization}")
}

/// Push tokens: a token, by the lowercase hex SHA-256 of its secret.
#[must_use]
pub fn push_token(sha256_hex: &str) -> String {
    format!("sha256-{sha256_hex}")
}

/// Requests: one of an organization, by the lowercase hex SHA-256 of its key.
#[must_use]
pub fn request(organization: &OrganizationId, sha256_hex: &str) -> String {
    format!("request.{organization}.sha256-{sha256_hex}")
}

/// Uploads: what a context was found to be. `hash` is what its client calls
/// it, in hexadecimal digits.
#[must_use]
pub fn context(organization: &OrganizationId, hash: &str) -> String {
    format!("context.{organization}.{hash}")
}

/// Uploads: the secret from which keys for uploads are derived.
pub const UPLOAD_SECRET: &str = "secret";

/// API keys: a key, by the lowercase hex SHA-256 of its secret.
#[must_use]
pub fn api_key(sha256_hex: &str) -> String {
    format!("sha256-{sha256_hex}")
}

/// Registry credentials: a credential.
#[must_use]
pub fn registry_credential(organization: &OrganizationId, credential: &CredentialId) -> String {
    format!("credential.{organization}.{credential}")
}

/// Registry credentials: the public keys of a region.
#[must_use]
pub fn region_keys(region: &Region) -> String {
    format!("region.{region}")
}
