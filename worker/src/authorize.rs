//! Who may use the registry routes: API keys, as the scheduler knows them.
//!
//! Only the hash of a key travels. Answers are remembered for a few seconds, so
//! that a pull of many layers asks once; a key that was taken back works no
//! longer than that.

use std::time::Duration;

use async_trait::async_trait;
use moka::future::Cache;
use secrecy::ExposeSecret as _;
use slipway_api::own::{AuthorizeRequest, AuthorizeResponse};
use slipway_bus::{Bus, topology};
use slipway_domain::OrganizationId;
use slipway_domain::organization::key_hash;
use slipway_registry::{Access, Authorizer, AuthorizerError, Credentials, Scope};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long to wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Keys remembered at the same time.
const KEYS: u64 = 10_000;

/// Asks the scheduler about API keys.
#[derive(Debug)]
pub struct ApiKeys {
    bus: Bus,
    known: Cache<String, Option<OrganizationId>>,
}

impl ApiKeys {
    /// Asks over `bus`.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        let known = Cache::builder().max_capacity(KEYS).time_to_live(REMEMBERED).build();
        Self { bus, known }
    }

    async fn owner(&self, key_hash: String) -> Result<Option<OrganizationId>, AuthorizerError> {
        if let Some(known) = self.known.get(&key_hash).await {
            return Ok(known);
        }
        let request = AuthorizeRequest { key_hash: key_hash.clone() };
        let answer = self.bus.call(topology::AUTHORIZE, &request, DEADLINE).await;
        let answer: AuthorizeResponse =
            answer.map_err(|error| AuthorizerError::Unavailable(Box::new(error)))?;
        let owner = answer.organization_id.and_then(|id| id.parse().ok());
        self.known.insert(key_hash, owner).await;
        Ok(owner)
    }
}

#[async_trait]
impl Authorizer for ApiKeys {
    async fn authorize(&self, credentials: Credentials) -> Result<Access, AuthorizerError> {
        let secret = credentials.secret().ok_or(AuthorizerError::Refused)?;
        match self.owner(key_hash(secret.expose_secret())).await? {
            Some(organization) => {
                Ok(Access { organization, pull: Scope::Everything, push: Scope::Nothing })
            }
            None => Err(AuthorizerError::Refused),
        }
    }
}
