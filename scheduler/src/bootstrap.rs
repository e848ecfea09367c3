//! A first organization and API key, for the development stack.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus, bucket};
use slipway_domain::OrganizationId;
use slipway_domain::organization::{
    ApiKeyRecord, OrganizationRecord, Permission, key_hash, key_hint,
};
use uuid::Uuid;

/// What the key is called.
const NAME: &str = "bootstrap";

/// Makes `key` usable, for an organization of its own. Changes nothing if it is
/// known already, but for permissions that did not exist then.
///
/// # Errors
/// NATS cannot be read or written.
pub async fn ensure_key(bus: &Bus, key: &SecretString) -> Result<(), bucket::Error> {
    let hash = key_hash(key.expose_secret());
    let api_keys = bus.bucket(&BucketName::ApiKeys);
    let slot = keys::api_key(&hash);
    if let Some(entry) = api_keys.get(&slot).await? {
        return extend(&api_keys, &slot, &entry).await;
    }
    let now = Timestamp::now();
    let id = OrganizationId::from_uuid(Uuid::now_v7());
    let organization = OrganizationRecord::new(id, "default".to_owned(), now);
    let record = ApiKeyRecord {
        version: 1,
        organization: organization.id,
        name: NAME.to_owned(),
        permissions: Permission::ALL.to_vec(),
        created_at: now,
        expires_at: None,
        hint: key_hint(key.expose_secret()),
    };
    let organizations = bus.bucket(&BucketName::Organizations);
    organizations.create(&keys::organization(&organization.id), &organization, None).await?;
    match api_keys.create(&slot, &record, None).await {
        // Another replica was faster.
        Err(error) if error.is_conflict() => Ok(()),
        created => created.map(|_| ()),
    }
}

/// Gives the key of an earlier version what it would get today.
async fn extend(api_keys: &Bucket, slot: &str, entry: &bucket::Entry) -> Result<(), bucket::Error> {
    let record: ApiKeyRecord = entry.json()?;
    if record.name != NAME || record.permissions.len() == Permission::ALL.len() {
        return Ok(());
    }
    let record = ApiKeyRecord { permissions: Permission::ALL.to_vec(), ..record };
    match api_keys.update(slot, &record, entry.revision, None).await {
        // Another replica was faster.
        Err(error) if error.is_conflict() => Ok(()),
        updated => updated.map(|_| ()),
    }
}
