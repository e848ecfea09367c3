//! Registry credentials: what may be stored, to whom it is sealed, and who gets
//! it.
//!
//! Owns the bucket `registry_credentials`. Refuses to keep a secret that it can
//! read: a password is sealed within the request that brings it. Invariants: a
//! secret is sealed to the workers of regions and to nobody else; a worker gets
//! the credentials of a job that is under way in its region, for the images that
//! it names, and no others.

mod check;
mod keys;
mod vault;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use slipway_api::registries::WriteDockerRegistry;
use slipway_bus::topology::{BucketName, keys as names};
use slipway_bus::{Bucket, Bus, bucket};
use slipway_domain::credential::{
    self, CredentialKind, CredentialsRequest, CredentialsResponse, MAX_PER_ORGANIZATION,
    RegistryCredentialRecord, Sealed,
};
use slipway_domain::job::JobState;
use slipway_domain::{CredentialId, OrganizationId, Region};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::view::{Entry, View};
use check::Checked;

/// Most images that a job may name.
const MAX_IMAGES: usize = 1000;

/// Why a credential was not stored, handed out or tried. Display is for users.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// There is no such credential, or it is another's.
    #[error("Docker registry with ID {0} not found")]
    NotFound(String),
    /// The organization has as many as it may.
    #[error("Docker registry limit reached. Maximum allowed: {MAX_PER_ORGANIZATION}")]
    TooMany,
    /// There is no region of this name.
    #[error("Region not found: `{0}`")]
    NoRegion(String),
    /// No worker has announced a key yet.
    #[error(
        "no worker has a key to which the password could be sealed: start one with \
         `identity_file` in its configuration"
    )]
    NoKey,
    /// No worker is there that could do it.
    #[error("no live worker {0} can open registry credentials")]
    NoWorker(String),
    /// The job is not under way there.
    #[error("the job is not under way in this region")]
    NoJob,
    /// The credential is not sealed to the region yet.
    #[error("the registry credential `{name}` is not sealed to region `{region}` yet")]
    NotSealed {
        /// The credential.
        name: String,
        /// The region.
        region: Region,
    },
    /// It was changed by somebody else at the same time.
    #[error("the registry credential was changed by somebody else meanwhile, try again")]
    Conflict,
    /// The secret could not be sealed.
    #[error("the password cannot be sealed")]
    Seal(#[source] slipway_seal::Error),
    /// A worker did not do what it was asked.
    #[error("a worker did not answer")]
    Worker(#[source] slipway_bus::services::Error),
    /// A worker answered with something else.
    #[error("a worker answered something else than it was asked")]
    Answer,
    /// The bucket cannot be read or written.
    #[error("cannot write registry credentials")]
    Write(#[source] bucket::Error),
}

/// The registry credentials of all organizations. Share it in an `Arc`.
#[derive(Debug)]
pub struct Registries {
    bus: Bus,
    bucket: Bucket,
    view: Arc<View>,
    regions: Vec<Region>,
    /// Held while one is made, so that the limit holds.
    making: Mutex<()>,
}

impl Registries {
    /// Credentials for these regions.
    #[must_use]
    pub fn new(bus: &Bus, view: Arc<View>, regions: Vec<Region>) -> Self {
        let bucket = bus.bucket(&BucketName::RegistryCredentials);
        Self { bus: bus.clone(), bucket, view, regions, making: Mutex::default() }
    }

    /// Stores a new credential.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn create(
        &self,
        organization: OrganizationId,
        request: WriteDockerRegistry,
    ) -> Result<Arc<RegistryCredentialRecord>, Error> {
        let checked = check::check(request, None).map_err(Error::Invalid)?;
        let _making = self.making.lock().await;
        if self.view.credentials().of(&organization).count() >= MAX_PER_ORGANIZATION {
            return Err(Error::TooMany);
        }
        let now = Timestamp::now();
        let mut record = RegistryCredentialRecord {
            version: 1,
            id: CredentialId::from_uuid(Uuid::now_v7()),
            organization,
            name: String::new(),
            url: checked.url.clone(),
            username: String::new(),
            project: String::new(),
            kind: checked.kind,
            sealed: BTreeMap::new(),
            created_at: now,
            updated_at: now,
        };
        self.fill(&mut record, checked)?;
        let key = names::registry_credential(&organization, &record.id);
        let revision = self.bucket.create(&key, &record, None).await.map_err(Error::Write)?;
        self.view.credentials_mut().put(record.clone(), revision);
        Ok(Arc::new(record))
    }

    /// Changes a credential. Its password stays if none is given.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update(
        &self,
        organization: OrganizationId,
        id: &str,
        request: WriteDockerRegistry,
    ) -> Result<Arc<RegistryCredentialRecord>, Error> {
        let entry = self.find(organization, id)?;
        let checked = check::check(request, Some(&entry.value)).map_err(Error::Invalid)?;
        let mut record = (*entry.value).clone();
        record.updated_at = Timestamp::now();
        self.fill(&mut record, checked)?;
        self.store(&record, entry.revision).await?;
        Ok(Arc::new(record))
    }

    /// Deletes a credential. Jobs that hold it already go on with it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, organization: OrganizationId, id: &str) -> Result<(), Error> {
        loop {
            let entry = self.find(organization, id)?;
            let id = entry.value.id;
            let key = names::registry_credential(&organization, &id);
            match self.bucket.delete(&key, entry.revision).await {
                Ok(()) => {
                    self.view.credentials_mut().remove(id, entry.revision);
                    return Ok(());
                }
                // It was changed, or sealed anew: it is to go all the same.
                Err(error) if error.is_conflict() => self.reload(organization, id).await?,
                Err(error) => return Err(Error::Write(error)),
            }
        }
    }

    /// A credential of an organization.
    ///
    /// # Errors
    /// [`Error::NotFound`], which is also what foreign ones look like.
    pub fn find(
        &self,
        organization: OrganizationId,
        id: &str,
    ) -> Result<Entry<RegistryCredentialRecord>, Error> {
        let missing = || Error::NotFound(id.to_owned());
        let id: CredentialId = id.parse().map_err(|_| missing())?;
        self.view.credentials().find(&organization, &id).cloned().ok_or_else(missing)
    }

    /// Every credential of an organization, newest first.
    #[must_use]
    pub fn list(&self, organization: OrganizationId) -> Vec<RegistryCredentialRecord> {
        let mut all: Vec<_> = self.view.credentials().of(&organization).cloned().collect();
        all.sort_by_key(|record| std::cmp::Reverse((record.created_at, record.id)));
        all
    }

    /// What a job under way in a region needs for its images.
    ///
    /// # Errors
    /// [`Error::NoJob`] and [`Error::NotSealed`].
    pub fn for_job(&self, request: &CredentialsRequest) -> Result<CredentialsResponse, Error> {
        let job = self.view.records().job(&request.job).map(|entry| entry.value);
        let job = job.filter(|job| {
            let is_under_way =
                matches!(job.state, JobState::Queued { .. } | JobState::Running { .. });
            is_under_way && job.region == request.region
        });
        let organization = job.ok_or(Error::NoJob)?.organization;
        if request.images.len() > MAX_IMAGES {
            return Err(Error::Invalid(format!("more than {MAX_IMAGES} images")));
        }
        let credentials = self.view.credentials();
        let own: Vec<&RegistryCredentialRecord> = credentials.of(&organization).collect();
        let found = request.images.iter().map(|image| {
            let Some(record) = credential::matching(own.iter().copied(), image) else {
                return Ok(None);
            };
            let missing =
                || Error::NotSealed { name: record.name.clone(), region: request.region.clone() };
            record.for_region(&request.region).map(Some).ok_or_else(missing)
        });
        Ok(CredentialsResponse { credentials: found.collect::<Result<_, _>>()? })
    }

    fn fill(&self, record: &mut RegistryCredentialRecord, from: Checked) -> Result<(), Error> {
        let Checked { name, url, username, project, kind, secret } = from;
        (record.name, record.url, record.username) = (name, url, username);
        (record.project, record.kind) = (project, kind);
        match (kind, secret) {
            (CredentialKind::EcrRole, _) => record.sealed.clear(),
            (CredentialKind::Basic, Some(secret)) => {
                record.sealed = self.seal(&secret, &record.purpose())?;
            }
            (CredentialKind::Basic, None) => {}
        }
        Ok(())
    }

    fn seal(
        &self,
        secret: &secrecy::SecretString,
        purpose: &str,
    ) -> Result<BTreeMap<Region, Sealed>, Error> {
        let mut sealed = BTreeMap::new();
        for region in &self.regions {
            let recipients = self.recipients(region);
            if !recipients.is_empty() {
                let one = slipway_seal::seal(secret, purpose, &recipients).map_err(Error::Seal)?;
                sealed.insert(region.clone(), one);
            }
        }
        if sealed.is_empty() { Err(Error::NoKey) } else { Ok(sealed) }
    }

    async fn store(&self, record: &RegistryCredentialRecord, revision: u64) -> Result<(), Error> {
        let key = names::registry_credential(&record.organization, &record.id);
        match self.bucket.update(&key, record, revision, None).await {
            Ok(revision) => {
                self.view.credentials_mut().put(record.clone(), revision);
                Ok(())
            }
            Err(error) if error.is_conflict() => {
                self.reload(record.organization, record.id).await?;
                Err(Error::Conflict)
            }
            Err(error) => Err(Error::Write(error)),
        }
    }

    async fn reload(&self, organization: OrganizationId, id: CredentialId) -> Result<(), Error> {
        let key = names::registry_credential(&organization, &id);
        match self.bucket.get(&key).await.map_err(Error::Write)? {
            Some(entry) => {
                let record = entry.json().map_err(Error::Write)?;
                self.view.credentials_mut().put(record, entry.revision);
            }
            None => self.view.credentials_mut().removed(&id),
        }
        Ok(())
    }
}
