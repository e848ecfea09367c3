//! What workers are asked to do with their identities.

use std::time::Duration;

use slipway_api::registries::CredentialTest;
use slipway_bus::topology;
use slipway_domain::credential::{VaultAnswer, VaultRequest, VaultVerb};
use slipway_domain::message::VERSION;
use slipway_domain::{OrganizationId, Region, WorkerId};

use super::{Error, Registries};

/// How long a worker may take: it may speak to a slow registry.
const DEADLINE: Duration = Duration::from_secs(40);

impl Registries {
    pub(super) async fn ask(
        &self,
        region: &Region,
        worker: &WorkerId,
        verb: VaultVerb,
    ) -> Result<VaultAnswer, Error> {
        let subject = topology::vault_subject(region, worker);
        let request = VaultRequest { version: VERSION, verb };
        self.bus.call(&subject, &request, DEADLINE).await.map_err(Error::Worker)
    }

    pub(super) fn region(&self, name: &str) -> Result<Region, Error> {
        let known = self.regions.iter().find(|region| region.as_str() == name);
        known.cloned().ok_or_else(|| Error::NoRegion(name.to_owned()))
    }

    /// Has a worker try a credential at its registry: one of `region`, or of any
    /// region that can open it.
    ///
    /// # Errors
    /// See [`Error`]. That the registry does not take it is no error.
    pub async fn test(
        &self,
        organization: OrganizationId,
        id: &str,
        region: Option<&str>,
    ) -> Result<CredentialTest, Error> {
        let record = self.find(organization, id)?.value;
        let wanted = region.map(|name| self.region(name)).transpose()?;
        let found = {
            let fleet = self.view.fleet();
            let mut able = fleet.workers().filter(|worker| {
                worker.recipient.is_some()
                    && wanted.as_ref().is_none_or(|region| worker.region == *region)
            });
            able.find_map(|worker| {
                let credential = record.for_region(&worker.region)?;
                Some((worker.region.clone(), worker.id.clone(), credential))
            })
        };
        let Some((region, worker, credential)) = found else {
            let place =
                wanted.map_or("of any region".to_owned(), |name| format!("of region `{name}`"));
            return Err(Error::NoWorker(place));
        };
        match self.ask(&region, &worker, VaultVerb::Test { credential }).await? {
            VaultAnswer::Tested(tested) => Ok(CredentialTest {
                works: tested.works,
                message: tested.message,
                region: region.to_string(),
                worker: worker.to_string(),
            }),
            _ => Err(Error::Answer),
        }
    }
}
