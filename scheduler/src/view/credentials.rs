//! Registry credentials and the public keys of regions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use slipway_domain::credential::{RegionKeysRecord, RegistryCredentialRecord};
use slipway_domain::{CredentialId, OrganizationId, Region};

use super::Entry;

/// All credentials, and the keys that their secrets are sealed to.
#[derive(Debug, Default)]
pub struct Credentials {
    by_id: HashMap<CredentialId, Entry<RegistryCredentialRecord>>,
    /// Revisions up to which a credential was deleted here, until the watch
    /// brings the deletion: what it brings before that is older.
    gone: HashMap<CredentialId, u64>,
    regions: BTreeMap<Region, Entry<RegionKeysRecord>>,
}

impl Credentials {
    /// A credential of an organization.
    #[must_use]
    pub fn find(
        &self,
        organization: &OrganizationId,
        id: &CredentialId,
    ) -> Option<&Entry<RegistryCredentialRecord>> {
        self.by_id.get(id).filter(|entry| entry.value.organization == *organization)
    }

    /// The credentials of an organization, in no order.
    pub fn of(
        &self,
        organization: &OrganizationId,
    ) -> impl Iterator<Item = &RegistryCredentialRecord> {
        let all = self.by_id.values().map(|entry| &*entry.value);
        all.filter(move |record| record.organization == *organization)
    }

    /// Every credential, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Entry<RegistryCredentialRecord>> {
        self.by_id.values()
    }

    /// The keys of a region.
    #[must_use]
    pub fn keys(&self, region: &Region) -> Option<&Entry<RegionKeysRecord>> {
        self.regions.get(region)
    }

    /// Takes in a credential, unless a newer revision is known.
    pub fn put(&mut self, record: RegistryCredentialRecord, revision: u64) {
        let id = record.id;
        let known = self.by_id.get(&id).map(|entry| entry.revision);
        if known.max(self.gone.get(&id).copied()).is_none_or(|known| known < revision) {
            self.by_id.insert(id, Entry { value: Arc::new(record), revision });
        }
    }

    /// Forgets a credential that was deleted at `revision` by this process.
    pub fn remove(&mut self, id: CredentialId, revision: u64) {
        self.by_id.remove(&id);
        self.gone.insert(id, revision);
    }

    /// Forgets a credential whose deletion the watch brought.
    pub fn removed(&mut self, id: &CredentialId) {
        self.by_id.remove(id);
        self.gone.remove(id);
    }

    /// Takes in the keys of a region, unless a newer revision is known.
    pub fn put_keys(&mut self, record: RegionKeysRecord, revision: u64) {
        let known = self.regions.get(&record.region).map(|entry| entry.revision);
        if known.is_none_or(|known| known < revision) {
            let entry = Entry { value: Arc::new(record), revision };
            self.regions.insert(entry.value.region.clone(), entry);
        }
    }

    /// Forgets the keys of a region.
    pub fn remove_keys(&mut self, region: &Region) {
        self.regions.remove(region);
    }

    /// Forgets everything: the bucket went back in time.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}
