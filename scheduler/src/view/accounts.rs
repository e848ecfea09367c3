//! Organizations and API keys.

use std::collections::HashMap;

use slipway_bus::topology::keys;
use slipway_domain::OrganizationId;
use slipway_domain::organization::{ApiKeyRecord, OrganizationRecord};

/// Organizations and API keys.
#[derive(Debug, Default)]
pub struct Accounts {
    /// By id.
    pub organizations: HashMap<OrganizationId, OrganizationRecord>,
    /// By the hash of the key.
    pub api_keys: HashMap<String, ApiKeyRecord>,
    /// The last revision known of each key of the buckets.
    revisions: HashMap<String, u64>,
}

impl Accounts {
    /// An organization by its id or its name.
    #[must_use]
    pub fn find(&self, id_or_name: &str) -> Option<&OrganizationRecord> {
        let by_id = id_or_name.parse().ok().and_then(|id| self.organizations.get(&id));
        by_id.or_else(|| self.organizations.values().find(|record| record.name == id_or_name))
    }

    /// The keys of an organization, with their hashes.
    pub fn keys_of(
        &self,
        organization: &OrganizationId,
    ) -> impl Iterator<Item = (&String, &ApiKeyRecord)> {
        self.api_keys.iter().filter(move |(_, key)| key.organization == *organization)
    }

    /// Takes in an organization as it is stored.
    pub fn put_organization(&mut self, record: OrganizationRecord, revision: u64) {
        if self.is_newer(keys::organization(&record.id), revision) {
            self.organizations.insert(record.id, record);
        }
    }

    /// Takes in an API key as it is stored.
    pub fn put_api_key(&mut self, hash: &str, record: ApiKeyRecord, revision: u64) {
        if self.is_newer(keys::api_key(hash), revision) {
            self.api_keys.insert(hash.to_owned(), record);
        }
    }

    /// Forgets an organization of the bucket's key.
    pub fn remove_organization(&mut self, key: &str, revision: u64) {
        if self.is_newer(key.to_owned(), revision) {
            self.organizations.retain(|id, _| keys::organization(id) != key);
        }
    }

    /// Forgets an API key.
    pub fn remove_api_key(&mut self, hash: &str, revision: u64) {
        if self.is_newer(keys::api_key(hash), revision) {
            self.api_keys.remove(hash);
        }
    }

    /// Forgets every organization: the bucket went back in time.
    pub fn clear_organizations(&mut self) {
        for id in std::mem::take(&mut self.organizations).into_keys() {
            self.revisions.remove(&keys::organization(&id));
        }
    }

    /// Forgets every API key: the bucket went back in time.
    pub fn clear_api_keys(&mut self) {
        self.api_keys.clear();
        let prefix = keys::api_key("");
        self.revisions.retain(|key, _| !key.starts_with(&prefix));
    }

    fn is_newer(&mut self, key: String, revision: u64) -> bool {
        let known = self.revisions.entry(key).or_default();
        let newer = revision > *known;
        *known = revision.max(*known);
        newer
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_revoked_key_does_not_come_back_with_an_older_revision() {
        let mut accounts = Accounts::default();
        let organization = OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        let key = ApiKeyRecord {
            version: 1,
            organization,
            name: "ci".into(),
            permissions: vec![],
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: None,
            hint: String::new(),
        };
        accounts.put_api_key("aa", key.clone(), 3);
        assert_eq!(accounts.keys_of(&organization).count(), 1);
        accounts.remove_api_key("aa", 4);
        accounts.put_api_key("aa", key.clone(), 3);
        assert_eq!(accounts.keys_of(&organization).count(), 0);
        accounts.clear_api_keys();
        accounts.put_api_key("aa", key, 1);
        assert_eq!(accounts.api_keys.len(), 1);
    }

    #[test]
    fn an_organization_is_found_by_id_and_name() {
        let mut accounts = Accounts::default();
        let id = OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        let mut record = OrganizationRecord::new(id, "acme".into(), Timestamp::UNIX_EPOCH);
        accounts.put_organization(record.clone(), 2);
        record.name = "older".into();
        accounts.put_organization(record, 1);
        assert_eq!(accounts.find("acme").unwrap().id, id);
        assert_eq!(accounts.find(&id.to_string()).unwrap().id, id);
        assert!(accounts.find("older").is_none());
    }
}
