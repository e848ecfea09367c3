//! Changes of organizations and API keys, by compare-and-set.
//!
//! Owns what may be an organization's name and a key's, and the making of keys.
//! Refuses to say who may ask: that is the API's. Invariants: the value of a key
//! is stored nowhere; the view shows a change as soon as it is stored.

use std::sync::Arc;

use jiff::Timestamp;
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus, bucket};
use slipway_domain::OrganizationId;
use slipway_domain::organization::{
    ApiKeyRecord, OrganizationRecord, Permission, key_hash, key_hint,
};
use uuid::Uuid;

use crate::view::View;

/// Longest name of an organization or a key, in characters.
const MAX_NAME: usize = 100;

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name cannot be one.
    #[error("`{0}` cannot be a name: use 1 to {MAX_NAME} letters, digits, spaces and `. _ - : @`")]
    BadName(String),
    /// Another organization has the name.
    #[error("There is an organization `{0}` already: choose another name")]
    OrganizationExists(String),
    /// Another key of the organization has the name.
    #[error("API key with name `{0}` already exists: revoke it first, or choose another name")]
    KeyExists(String),
    /// There is no such organization.
    #[error("Organization with ID or name {0} not found")]
    NoOrganization(String),
    /// There is no such key.
    #[error("API key `{0}` not found")]
    NoKey(String),
    /// It would have ended before it began.
    #[error("`expiresAt` is in the past")]
    Expired,
    /// NATS cannot be read or written now.
    #[error("cannot change {what}")]
    Write {
        /// What was to be changed.
        what: &'static str,
        /// Why.
        #[source]
        source: bucket::Error,
    },
}

/// Changes organizations and API keys. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    organizations: Bucket,
    api_keys: Bucket,
    view: Arc<View>,
}

impl Accounts {
    /// Changes what `bus` keeps.
    #[must_use]
    pub fn new(bus: &Bus, view: Arc<View>) -> Self {
        Self {
            organizations: bus.bucket(&BucketName::Organizations),
            api_keys: bus.bucket(&BucketName::ApiKeys),
            view,
        }
    }

    /// Stores a new organization. (Between replicas the name is only checked
    /// approximately; the id is what counts.)
    ///
    /// # Errors
    /// The name is taken or cannot be one, or nothing can be written now.
    pub async fn create(
        &self,
        name: &str,
        shape: impl FnOnce(&mut OrganizationRecord),
    ) -> Result<OrganizationRecord, Error> {
        let name = checked(name)?;
        if self.view.accounts().organizations.values().any(|known| known.name == name) {
            return Err(Error::OrganizationExists(name));
        }
        let id = OrganizationId::from_uuid(Uuid::now_v7());
        let mut record = OrganizationRecord::new(id, name, Timestamp::now());
        shape(&mut record);
        self.store_new(record).await
    }

    /// Makes sure that there is an organization of this id.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn ensure(&self, record: OrganizationRecord) -> Result<(), Error> {
        match self.store_new(record).await {
            Err(Error::Write { source, .. }) if source.is_conflict() => Ok(()),
            stored => stored.map(|_| ()),
        }
    }

    async fn store_new(&self, record: OrganizationRecord) -> Result<OrganizationRecord, Error> {
        let failed = |source| Error::Write { what: "an organization", source };
        let key = keys::organization(&record.id);
        let revision = self.organizations.create(&key, &record, None).await.map_err(failed)?;
        self.view.accounts_mut().put_organization(record.clone(), revision);
        Ok(record)
    }

    /// Changes an organization.
    ///
    /// # Errors
    /// There is none, or nothing can be written now.
    pub async fn update(
        &self,
        id_or_name: &str,
        change: impl Fn(&mut OrganizationRecord),
    ) -> Result<OrganizationRecord, Error> {
        let failed = |source| Error::Write { what: "an organization", source };
        let missing = || Error::NoOrganization(id_or_name.to_owned());
        let id = self.view.accounts().find(id_or_name).map(|record| record.id);
        let key = keys::organization(&id.ok_or_else(missing)?);
        loop {
            let entry = self.organizations.get(&key).await.map_err(failed)?.ok_or_else(missing)?;
            let mut record: OrganizationRecord = entry.json().map_err(failed)?;
            change(&mut record);
            match self.organizations.update(&key, &record, entry.revision, None).await {
                Ok(revision) => {
                    self.view.accounts_mut().put_organization(record.clone(), revision);
                    return Ok(record);
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Makes a key; returns its value, which is told this once.
    ///
    /// # Errors
    /// The name is taken or cannot be one, or nothing can be written now.
    pub async fn create_key(
        &self,
        organization: OrganizationId,
        name: &str,
        permissions: Vec<Permission>,
        expires_at: Option<Timestamp>,
    ) -> Result<(String, ApiKeyRecord), Error> {
        let now = Timestamp::now();
        if expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Expired);
        }
        let name = checked(name)?;
        if self.view.accounts().keys_of(&organization).any(|(_, key)| key.name == name) {
            return Err(Error::KeyExists(name));
        }
        // Two version 4 UUIDs hold 244 bits of the system's randomness.
        let value = format!("dtn_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let hint = key_hint(&value);
        let record = ApiKeyRecord {
            version: 1,
            organization,
            name,
            permissions,
            created_at: now,
            expires_at,
            hint,
        };
        let hash = key_hash(&value);
        let stored = self.api_keys.create(&keys::api_key(&hash), &record, None).await;
        let revision = stored.map_err(|source| Error::Write { what: "an API key", source })?;
        self.view.accounts_mut().put_api_key(&hash, record.clone(), revision);
        Ok((value, record))
    }

    /// Revokes every key of that name. Registries know it within seconds.
    ///
    /// # Errors
    /// There is none, or nothing can be written now.
    pub async fn revoke_key(&self, organization: OrganizationId, name: &str) -> Result<(), Error> {
        let hashes: Vec<String> = {
            let accounts = self.view.accounts();
            let named = accounts.keys_of(&organization).filter(|(_, key)| key.name == name);
            named.map(|(hash, _)| hash.clone()).collect()
        };
        if hashes.is_empty() {
            return Err(Error::NoKey(name.to_owned()));
        }
        for hash in hashes {
            let failed = |source| Error::Write { what: "an API key", source };
            let slot = keys::api_key(&hash);
            // Somebody else may have been faster.
            let Some(entry) = self.api_keys.get(&slot).await.map_err(failed)? else { continue };
            self.api_keys.delete(&slot, entry.revision).await.map_err(failed)?;
            self.view.accounts_mut().remove_api_key(&hash, entry.revision + 1);
        }
        Ok(())
    }
}

fn checked(name: &str) -> Result<String, Error> {
    let name = name.trim();
    let is_plain = |c: char| c.is_alphanumeric() || " ._-:@".contains(c);
    if name.is_empty() || name.chars().count() > MAX_NAME || !name.chars().all(is_plain) {
        return Err(Error::BadName(name.chars().take(MAX_NAME).collect()));
    }
    Ok(name.to_owned())
}
