//! The two calls.

use std::time::Duration;

use slipway_aws::{AssumeRole, Call, Client, endpoint};

use crate::config::{Config, Error as ConfigError, Identity};
use crate::{Error, Wanted};

pub(crate) const TOKEN: &str = "ecr:GetAuthorizationToken";
/// How long the assumed role lasts: the least that STS gives. Only one call is
/// made with it.
const SESSION: Duration = Duration::from_secs(900);

#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: Client,
    config: Config,
}

impl Caller {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { client: Client::new()?, config })
    }

    pub(crate) async fn assume_role(&self, wanted: &Wanted) -> Result<Identity, Error> {
        let identity = self.config.identity.as_ref().ok_or(Error::NoIdentity)?;
        let session = format!("{}-{}-pull", self.config.session_prefix, wanted.organization);
        let role = AssumeRole {
            role: &wanted.role,
            session: &session,
            external_id: Some(&wanted.organization),
            policy: None,
            lasts: SESSION,
        };
        let sts = self.config.sts_endpoint.as_ref();
        let assumed = self.client.assume_role(sts, &wanted.region, identity, &role).await;
        assumed.map_err(|error| Error::of(error, wanted))
    }

    pub(crate) async fn authorization_token(
        &self,
        wanted: &Wanted,
        identity: &Identity,
    ) -> Result<Vec<u8>, Error> {
        let given = self.config.ecr_endpoint.as_ref();
        let endpoint = endpoint(TOKEN, given, "api.ecr", &wanted.region);
        let call = Call {
            action: TOKEN,
            service: "ecr",
            region: &wanted.region,
            endpoint: endpoint.map_err(|error| Error::of(error, wanted))?,
            headers: &[
                ("content-type", "application/x-amz-json-1.1"),
                ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"),
            ],
            body: "{}".to_owned(),
        };
        let answer = self.client.send(&call, identity).await;
        answer.map_err(|error| Error::of(error, wanted))
    }
}
