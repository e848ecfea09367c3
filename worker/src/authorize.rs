//! Who may use the registry routes: API keys and push tokens, as the scheduler
//! knows them.
//!
//! Only the hash of a secret travels. Answers are remembered for a few seconds,
//! so that a pull of many layers asks once; a key that was taken back works no
//! longer than that, and none beyond its end.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use moka::future::Cache;
use secrecy::ExposeSecret as _;
use slipway_api::own::{AuthorizeRequest, AuthorizeResponse};
use slipway_bus::{Bus, topology};
use slipway_domain::Region;
use slipway_domain::organization::key_hash;
use slipway_registry::{Access, Authorizer, AuthorizerError, Credentials, Scope};

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(10);
/// How long to wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Keys remembered at the same time.
const KEYS: u64 = 10_000;

/// Asks the scheduler about API keys and push tokens.
#[derive(Debug)]
pub struct ApiKeys {
    bus: Bus,
    region: Option<Region>,
    known: Cache<String, Option<Known>>,
}

/// What a secret opens, and until when.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    access: Access,
    expires_at: Option<Timestamp>,
}

impl ApiKeys {
    /// Asks over `bus`, for the registry of a region; without one, push tokens
    /// are refused.
    #[must_use]
    pub fn new(bus: Bus, region: Option<Region>) -> Self {
        let known = Cache::builder().max_capacity(KEYS).time_to_live(REMEMBERED).build();
        Self { bus, region, known }
    }

    async fn look_up(&self, key_hash: String) -> Result<Option<Known>, AuthorizerError> {
        if let Some(known) = self.known.get(&key_hash).await {
            return Ok(known);
        }
        let region = self.region.as_ref().map(ToString::to_string);
        let request = AuthorizeRequest { key_hash: key_hash.clone(), region };
        let answer = self.bus.call(topology::AUTHORIZE, &request, DEADLINE).await;
        let answer = answer.map_err(|error| AuthorizerError::Unavailable(Box::new(error)))?;
        let known = read(answer);
        self.known.insert(key_hash, known.clone()).await;
        Ok(known)
    }
}

/// An answer that cannot be read in full opens nothing.
fn read(answer: AuthorizeResponse) -> Option<Known> {
    let organization = answer.organization_id?.parse().ok()?;
    let (pull, push) = match answer.pushes_below {
        None => (Scope::Everything, Scope::Nothing),
        Some(folder) => (Scope::Nothing, Scope::Below(folder.parse().ok()?)),
    };
    let access = Access { organization, pull, push };
    Some(Known { access, expires_at: answer.expires_at })
}

#[async_trait]
impl Authorizer for ApiKeys {
    async fn authorize(&self, credentials: Credentials) -> Result<Access, AuthorizerError> {
        let secret = credentials.secret().ok_or(AuthorizerError::Refused)?;
        let known = self.look_up(key_hash(secret.expose_secret())).await?;
        let now = Timestamp::now();
        known
            .filter(|known| known.expires_at.is_none_or(|end| now < end))
            .map(|known| known.access)
            .ok_or(AuthorizerError::Refused)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn answer(pushes_below: Option<&str>) -> AuthorizeResponse {
        AuthorizeResponse {
            organization_id: Some("018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f".to_owned()),
            pushes_below: pushes_below.map(ToOwned::to_owned),
            expires_at: None,
        }
    }

    #[test]
    fn a_key_reads_all_and_a_token_only_what_it_may_write() {
        let key = read(answer(None)).unwrap().access;
        assert_eq!((key.pull, key.push), (Scope::Everything, Scope::Nothing));
        let token = read(answer(Some("push"))).unwrap().access;
        let below = Scope::Below("push".parse().unwrap());
        assert_eq!((token.pull, token.push), (Scope::Nothing, below));
        // What is not understood is not taken for less than it is.
        assert_eq!(read(answer(Some("../x"))), None);
        assert_eq!(read(AuthorizeResponse { organization_id: None, ..answer(None) }), None);
    }

    #[test]
    fn answers_of_older_schedulers_are_read() {
        let json = r#"{"organizationId":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f"}"#;
        let answer: AuthorizeResponse = serde_json::from_str(json).unwrap();
        assert!(read(answer).is_some());
    }
}
