//! Passwords for private registries of Amazon ECR, got by assuming a role of
//! the customer's account.
//!
//! Owns two calls, `sts:AssumeRole` and `ecr:GetAuthorizationToken`, and how long
//! their outcome is remembered. Refuses every other service of AWS.
//!
//! Invariants: a role is assumed with the organization as its external id, so
//! that no organization can have the role of another assumed for it; what the
//! worker itself may do in AWS is never shown to a registry.

mod call;
mod config;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use moka::Expiry;
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

pub use config::{Config, Error as ConfigError, File, Identity};

use call::Caller;

/// Passwords remembered at the same time.
const REMEMBERED: u64 = 10_000;
/// A password is not used any more this long before its end.
const LEAD: Duration = Duration::from_secs(30 * 60);
/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(60);

/// Which password is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// The organization, as its roles name it for their external id.
    pub organization: String,
    /// ARN of the role.
    pub role: String,
    /// AWS region of the registry.
    pub region: String,
}

/// Name and password for a registry.
#[derive(Debug, Clone)]
pub struct Login {
    /// `AWS`.
    pub username: String,
    /// Good for about 12 hours from its making.
    pub password: SecretString,
}

/// Why there is no password. Display is for the user and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The workers have no identity in AWS.
    #[error("roles of Amazon ECR cannot be assumed: the workers have no identity in AWS")]
    NoIdentity,
    /// AWS says no.
    #[error("AWS refuses `{action}` for `{role}`: {reason}")]
    Refused {
        /// The call.
        action: &'static str,
        /// The role.
        role: String,
        /// What AWS said.
        reason: String,
    },
    /// AWS cannot be reached, or answers with something else.
    #[error("`{action}` of AWS failed: {reason}")]
    Failed {
        /// The call.
        action: &'static str,
        /// What happened.
        reason: String,
    },
}

/// Gets passwords and remembers them. Clones share what they remember.
#[derive(Debug, Clone)]
pub struct Ecr {
    caller: Caller,
    known: Cache<Wanted, Known>,
}

#[derive(Debug, Clone)]
struct Known {
    outcome: Result<Login, Error>,
    usable: Duration,
}

struct AsItSays;

impl Expiry<Wanted, Known> for AsItSays {
    fn expire_after_create(&self, _: &Wanted, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.usable)
    }
}

impl Ecr {
    /// Gets passwords as `config` says.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let known = Cache::builder().max_capacity(REMEMBERED).expire_after(AsItSays).build();
        Ok(Self { caller: Caller::new(config)?, known })
    }

    /// The password for a registry. Those who ask for the same one at the same
    /// time wait for one answer.
    ///
    /// # Errors
    /// See [`Error`]; a failure is given again for a minute.
    pub async fn login(&self, wanted: Wanted) -> Result<Login, Error> {
        let fetch = async {
            match self.fetch(&wanted).await {
                Ok((login, usable)) => Known { outcome: Ok(login), usable },
                Err(error) => Known { outcome: Err(error), usable: FAILURE },
            }
        };
        self.known.get_with(wanted.clone(), fetch).await.outcome
    }

    async fn fetch(&self, wanted: &Wanted) -> Result<(Login, Duration), Error> {
        let assumed = self.caller.assume_role(wanted).await?;
        let answer = self.caller.authorization_token(wanted, &assumed).await?;
        read(&answer, Timestamp::now())
    }
}

impl Error {
    fn of(error: slipway_aws::Error, wanted: &Wanted) -> Self {
        match error {
            slipway_aws::Error::Refused { action, reason } => {
                Self::Refused { action, role: wanted.role.clone(), reason }
            }
            slipway_aws::Error::Failed { action, reason } => Self::Failed { action, reason },
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    authorization_token: SecretString,
    /// Seconds since 1970.
    expires_at: f64,
}

fn read(answer: &[u8], now: Timestamp) -> Result<(Login, Duration), Error> {
    let wrong = |reason: &str| Error::Failed { action: call::TOKEN, reason: reason.to_owned() };
    // The reader's own message could quote a part of the token.
    let answer: Answer =
        serde_json::from_slice(answer).map_err(|_| wrong("its answer is not understood"))?;
    let found = answer.authorization_data.into_iter().next();
    let found = found.ok_or_else(|| wrong("its answer has no token"))?;
    let pair = BASE64_STANDARD.decode(found.authorization_token.expose_secret()).ok();
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = pair
        .as_deref()
        .and_then(|pair| pair.split_once(':'))
        .ok_or_else(|| wrong("its token is no name and password"))?;
    let lasts = (found.expires_at - now.as_second() as f64).max(0.0);
    let usable = Duration::try_from_secs_f64(lasts).unwrap_or_default().saturating_sub(LEAD);
    let login = Login { username: username.to_owned(), password: password.to_owned().into() };
    Ok((login, usable))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_password_is_used_until_half_an_hour_before_its_end() {
        let token = BASE64_STANDARD.encode("AWS:pass:word");
        let at = |expires: u32| {
            let json = format!(
                r#"{{"authorizationData":[{{"authorizationToken":"{token}",
                "expiresAt":{expires}.5,"proxyEndpoint":"https://x"}}]}}"#
            );
            read(json.as_bytes(), Timestamp::from_second(1000).unwrap()).unwrap()
        };
        let (login, usable) = at(1000 + 43_200);
        assert_eq!((login.username.as_str(), login.password.expose_secret()), ("AWS", "pass:word"));
        assert_eq!(usable.as_secs(), 43_200 - 1800);
        assert_eq!(at(1500).1, Duration::ZERO);
        assert_eq!(at(10).1, Duration::ZERO);
    }

    #[test]
    fn an_answer_that_is_none_is_not_quoted() {
        for bad in [
            "s3cret",
            "{}",
            r#"{"authorizationData":[]}"#,
            r#"{"authorizationData":[{"authorizationToken":"s3cret","expiresAt":1}]}"#,
        ] {
            let error = read(bad.as_bytes(), Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("s3cret"));
        }
    }
}
