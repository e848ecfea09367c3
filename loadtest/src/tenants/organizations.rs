//! The organizations of a run, and a key for each.
//!
//! Organizations cannot be deleted, so they have fixed names, and a later run takes
//! those that are there. Keys are of one run. Invariant: a key that was made is
//! revoked, or named as left behind.

use slipway_api::Client;
use slipway_api::account::{CreateApiKey, CreateOrganization, CreatedApiKey, SetLimits};

use crate::error::Error;
use crate::progress::Progress;
use crate::run::Run;

/// What the keys may do.
const PERMISSIONS: [&str; 2] = ["write:snapshots", "delete:snapshots"];

/// The tenants.
pub(crate) struct Tenants {
    operator: Client,
    key: String,
    organizations: Vec<String>,
    /// The same run on behalf of each.
    pub(crate) runs: Vec<Run>,
}

impl Tenants {
    /// Makes so many, each of which may hold `quota` snapshots beside those that it
    /// has. If one cannot be made, the keys of the others are revoked.
    pub(crate) async fn make(run: &Run, count: usize, quota: u64) -> Result<Self, Error> {
        let key = format!("loadtest-{:016x}", rand::random::<u64>());
        let (operator, organizations) = (run.client().clone(), vec![]);
        let mut tenants = Self { operator, key, organizations, runs: vec![] };
        let progress = Progress::new(count as u64);
        progress.say("making organizations");
        for n in 1..=count {
            if let Err(error) = tenants.add(run, &format!("loadtest-{n:03}"), quota).await {
                let mut lost = vec![];
                tenants.revoke(&mut lost).await;
                lost.iter().for_each(|lost| progress.say(lost.clone()));
                return Err(error);
            }
            progress.at(n as u64);
        }
        Ok(tenants)
    }

    async fn add(&mut self, run: &Run, name: &str, quota: u64) -> Result<(), Error> {
        self.ensure(name).await?;
        let used = self.operator.organization_usage(name).await?.current_snapshot_usage;
        let room = u32::try_from(quota).unwrap_or(u32::MAX).saturating_add(used);
        let limits = SetLimits { snapshots: Some(room), ..SetLimits::default() };
        self.operator.set_limits(name, &limits).await?;
        let wanted = CreateApiKey {
            name: self.key.clone(),
            permissions: PERMISSIONS.map(str::to_owned).to_vec(),
            expires_at: None,
        };
        let made = self.operator.create_api_key(Some(name), &wanted).await?;
        self.organizations.push(name.to_owned());
        self.runs.push(run.on_behalf_of(client(&self.operator, made)?));
        Ok(())
    }

    async fn ensure(&self, name: &str) -> Result<(), Error> {
        match self.operator.organization(name).await {
            Ok(_) => Ok(()),
            Err(error) if error.status() == Some(404) => {
                let wanted = CreateOrganization {
                    name: name.to_owned(),
                    default_region_id: None,
                    region_ids: None,
                };
                Ok(self.operator.create_organization(&wanted).await.map(|_| ())?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Revokes every key; those that stay are named.
    pub(crate) async fn revoke(&self, left_behind: &mut Vec<String>) {
        for organization in &self.organizations {
            if let Err(error) = self.operator.revoke_api_key(Some(organization), &self.key).await {
                left_behind.push(format!("API key {} of {organization}: {error}", self.key));
            }
        }
    }
}

fn client(operator: &Client, key: CreatedApiKey) -> Result<Client, Error> {
    Ok(Client::new(operator.base().clone(), &key.value.into())?)
}
