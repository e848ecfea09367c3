//! Tokens: how they are got from a token server, and for how long they are
//! kept (distribution specification, "token authentication" and "OAuth2").

use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use crate::credential::Credential;
use crate::error::Error;
use crate::http::{Http, unreachable};
use crate::{body, reason, retry};

/// Tokens kept at the same time.
const TOKENS: u64 = 10_000;
/// What a token lasts if its server does not say; the specification's value.
const LASTS: Duration = Duration::from_secs(60);
/// A token is not used any more so long before its end.
const LEAD: Duration = Duration::from_secs(15);
/// No token is trusted for longer, whatever its server says.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// Largest answer of a token server, in bytes.
const ANSWER: u64 = 1 << 20;

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub(crate) realm: Url,
    pub(crate) service: Option<String>,
    pub(crate) scope: String,
}

/// A token is one credential's: no organization gets that of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    wanted: Wanted,
    credential: [u8; 32],
}

#[derive(Clone)]
struct Token {
    value: SecretString,
    usable: Duration,
}

/// The tokens of all sessions.
pub(crate) struct Tokens {
    cache: Cache<Key, Token>,
}

struct UntilUnusable;

impl Expiry<Key, Token> for UntilUnusable {
    fn expire_after_create(&self, _: &Key, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.usable)
    }
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let cache = Cache::builder().max_capacity(TOKENS).expire_after(UntilUnusable).build();
        Self { cache }
    }

    /// The authorization header of a token for `wanted`.
    pub(crate) async fn header(
        &self,
        http: &Http,
        host: &str,
        wanted: &Wanted,
        credential: &Credential,
    ) -> Result<HeaderValue, Error> {
        let key = Key { wanted: wanted.clone(), credential: credential.fingerprint() };
        let token = match self.cache.get(&key).await {
            Some(token) => token,
            None => {
                let token = fetch(http, host, wanted, credential).await?;
                self.cache.insert(key, token.clone()).await;
                token
            }
        };
        let unfit = || unusable(host, "its token cannot be sent in a header".to_owned());
        header("Bearer", &token.value).ok_or_else(unfit)
    }

    /// Forgets a token that the registry did not take.
    pub(crate) async fn forget(&self, wanted: &Wanted, credential: &Credential) {
        let key = Key { wanted: wanted.clone(), credential: credential.fingerprint() };
        self.cache.invalidate(&key).await;
    }
}

/// An authorization header that is not shown in logs.
pub(crate) fn header(scheme: &str, secret: &SecretString) -> Option<HeaderValue> {
    let text = format!("{scheme} {}", secret.expose_secret());
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[derive(Deserialize)]
struct Answer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
    expires_in: Option<u64>,
}

async fn fetch(
    http: &Http,
    host: &str,
    wanted: &Wanted,
    credential: &Credential,
) -> Result<Token, Error> {
    let sent = http.ask(host, |client| match credential {
        Credential::IdentityToken(token) => client
            .post(wanted.realm.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(refresh_form(wanted, token)),
        _ => {
            let mut url = wanted.realm.clone();
            if let Some(service) = &wanted.service {
                url.query_pairs_mut().append_pair("service", service);
            }
            url.query_pairs_mut().append_pair("scope", &wanted.scope);
            let request = client.get(url);
            match credential.basic().and_then(|pair| header("Basic", &pair)) {
                Some(basic) => request.header(AUTHORIZATION, basic),
                None => request,
            }
        }
    });
    let mut response = sent.await?;
    let status = response.status();
    let bytes = match body::read(&mut response, ANSWER).await {
        Ok(bytes) => bytes,
        Err(body::Fault::TooLarge) => {
            return Err(unusable(host, format!("its answer is larger than {ANSWER} bytes")));
        }
        Err(body::Fault::Broken(error)) => return Err(unreachable(host, error)),
    };
    if !status.is_success() {
        let asked = retry::asked(response.headers(), jiff::Timestamp::now());
        return Err(refused(host, wanted, credential, status, asked, &bytes));
    }
    read(host, &bytes)
}

/// The OAuth2 form (RFC 6749, section 6).
fn refresh_form(wanted: &Wanted, token: &SecretString) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "slipway")
        .append_pair("scope", &wanted.scope)
        .append_pair("refresh_token", token.expose_secret());
    if let Some(service) = &wanted.service {
        form.append_pair("service", service);
    }
    form.finish()
}

fn read(host: &str, bytes: &[u8]) -> Result<Token, Error> {
    // The reader's own message could quote a part of the token.
    let answer: Answer = serde_json::from_slice(bytes)
        .map_err(|_| unusable(host, "its answer is not that of a token server".to_owned()))?;
    let value = answer.token.or(answer.access_token);
    let value = value.filter(|token| !token.expose_secret().is_empty());
    let value = value.ok_or_else(|| unusable(host, "its answer has no token".to_owned()))?;
    let lasts = answer.expires_in.map_or(LASTS, Duration::from_secs).min(LONGEST);
    // A short-lived token is still good for something.
    Ok(Token { value, usable: lasts.saturating_sub(LEAD).max(lasts / 2) })
}

fn refused(
    host: &str,
    wanted: &Wanted,
    credential: &Credential,
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
) -> Error {
    let reason = reason::read(body).map(|reason| credential.redact(&reason));
    let host = host.to_owned();
    match status.as_u16() {
        400 | 401 | 403 => Error::Unauthorized {
            host,
            repository: wanted.scope.split(':').nth(1).unwrap_or(&wanted.scope).to_owned(),
            anonymous: credential.is_anonymous(),
            reason,
        },
        429 => Error::RateLimited { host, retry_after },
        408 | 500..=599 => Error::Failed { host, status: status.as_u16(), retry_after, reason },
        other => unusable(&host, format!("it answers with status {other}")),
    }
}

pub(crate) fn unusable(host: &str, problem: String) -> Error {
    Error::Token { host: host.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn usable(json: &str) -> Duration {
        read("host", json.as_bytes()).ok().unwrap().usable
    }

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        assert_eq!(usable(r#"{"token":"t","expires_in":300}"#), Duration::from_secs(285));
        assert_eq!(usable(r#"{"access_token":"t"}"#), Duration::from_secs(45));
        assert_eq!(usable(r#"{"token":"t","expires_in":10}"#), Duration::from_secs(5));
        assert_eq!(usable(r#"{"token":"t","expires_in":99999999}"#), LONGEST - LEAD);
        assert_eq!(usable(r#"{"token":"t","expires_in":0}"#), Duration::ZERO);
    }

    #[test]
    fn an_answer_that_is_no_token_is_refused_without_being_quoted() {
        for bad in ["<html>s3cret", "{}", r#"{"token":""}"#, r#"{"token":5,"x":"s3cret"}"#] {
            let error = read("host", bad.as_bytes()).err().unwrap();
            let text = format!("{error} {error:?}");
            assert!(matches!(error, Error::Token { .. }) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn the_refresh_form_is_that_of_oauth2() {
        let wanted = Wanted {
            realm: "https://auth/token".parse().unwrap(),
            service: Some("registry".into()),
            scope: "repository:a/b:pull".into(),
        };
        let form = refresh_form(&wanted, &"r/t&x".to_owned().into());
        assert_eq!(
            form,
            "grant_type=refresh_token&client_id=slipway&scope=repository%3Aa%2Fb%3Apull\
             &refresh_token=r%2Ft%26x&service=registry"
        );
    }
}
