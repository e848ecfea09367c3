//! One request and the redirects that it leads to.
//!
//! Invariant: the authorization goes to the host that it is for. A redirect to
//! another origin drops it for good, even if the way leads back.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use moka::future::Cache;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE};
use reqwest::{Certificate, Response, StatusCode, redirect};
use slipway_oci::RepositoryName;
use url::Url;

use crate::config::{Config, Error as ConfigError};
use crate::error::{Error, RedirectFault};
use crate::location::{self, Location};

/// Redirects that are followed for one request.
const REDIRECTS: usize = 5;
/// Hosts remembered as speaking TLS or not, and for how long.
const SCHEMES: u64 = 1000;
const SCHEME_REMEMBERED: Duration = Duration::from_secs(60);

/// A request without what authorizes it.
#[derive(Debug, Clone)]
pub(crate) struct Get {
    pub(crate) url: Url,
    /// What is asked for, in words for people.
    pub(crate) what: String,
    pub(crate) accept: Option<&'static str>,
    pub(crate) range: Option<String>,
}

/// The end of a chain of redirects.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// Whether the registry itself answered, and not where it redirected to.
    pub(crate) is_registry: bool,
}

pub(crate) struct Http {
    client: reqwest::Client,
    pub(crate) config: Config,
    speaks_tls: Cache<String, bool>,
}

impl Http {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let failed = |error: reqwest::Error| ConfigError::Tls(error.into());
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.silence)
            // Layers come side by side over connections of their own, which
            // one window of HTTP/2 would hold back.
            .http1_only();
        for pem in &config.authorities {
            let authorities = Certificate::from_pem_bundle(pem).map_err(failed)?;
            if authorities.is_empty() {
                return Err(ConfigError::Tls("the file holds no certificate".into()));
            }
            builder = builder.tls_certs_merge(authorities);
        }
        let client = builder.build().map_err(failed)?;
        let speaks_tls =
            Cache::builder().max_capacity(SCHEMES).time_to_live(SCHEME_REMEMBERED).build();
        Ok(Self { client, config, speaks_tls })
    }

    /// The root of a repository's endpoints. A host that may be plain is asked
    /// for TLS first.
    pub(crate) async fn base(
        &self,
        at: &Location,
        repository: &RepositoryName,
    ) -> Result<Url, Error> {
        let url = |scheme: &str, path: &str| {
            Url::parse(&format!("{scheme}://{}/v2/{path}", at.authority))
                .map_err(|error| Error::Unreachable { host: at.name.clone(), source: error.into() })
        };
        let path = format!("{repository}/");
        if !at.may_be_plain {
            return url("https", &path);
        }
        let greeting = url("https", "")?;
        let probe = async {
            match self.client.get(greeting).send().await {
                Ok(_) => Ok(true),
                Err(error) if says_nothing(&error) => Err(error.without_url()),
                Err(error) => Ok(!error.is_connect()),
            }
        };
        let speaks_tls = self.speaks_tls.try_get_with(at.authority.clone(), probe).await;
        let speaks_tls = speaks_tls
            .map_err(|error| Error::Unreachable { host: at.name.clone(), source: error.into() })?;
        url(if speaks_tls { "https" } else { "http" }, &path)
    }

    /// Sends a request and follows where it leads.
    pub(crate) async fn get(
        &self,
        host: &str,
        get: &Get,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let redirect = |fault| Error::Redirect { host: host.to_owned(), fault };
        let mut authorization = authorization;
        let mut passed = vec![get.url.clone()];
        loop {
            let here = &passed[passed.len() - 1];
            let is_registry = here.origin() == get.url.origin();
            let response = self.send(host, here.clone(), get, authorization).await?;
            if !is_redirect(response.status()) {
                return Ok(Answer { response, is_registry });
            }
            let next = self.next(&response, here).map_err(redirect)?;
            if passed.contains(&next) {
                return Err(redirect(RedirectFault::Loop));
            }
            if passed.len() > REDIRECTS {
                return Err(redirect(RedirectFault::TooMany));
            }
            if next.origin() != get.url.origin() {
                authorization = None;
            }
            passed.push(next);
        }
    }

    async fn send(
        &self,
        host: &str,
        url: Url,
        get: &Get,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Error> {
        let mut request = self.client.get(url);
        if let Some(accept) = get.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(range) = &get.range {
            request = request.header(RANGE, range);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.send().await.map_err(|error| unreachable(host, error))
    }

    fn next(&self, response: &Response, here: &Url) -> Result<Url, RedirectFault> {
        let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let next =
            location.and_then(|text| here.join(text).ok()).ok_or(RedirectFault::Malformed)?;
        let is_web = matches!(next.scheme(), "http" | "https") && next.has_host();
        // What stands before the `@` would be sent as a password.
        if !is_web || !next.username().is_empty() || next.password().is_some() {
            return Err(RedirectFault::Malformed);
        }
        let may_be_plain =
            here.scheme() == "http" || self.config.insecure.contains(&location::authority(&next));
        if next.scheme() == "http" && !may_be_plain {
            return Err(RedirectFault::Downgrade);
        }
        Ok(next)
    }

    /// A request to a token server, which is not followed anywhere.
    pub(crate) async fn ask(
        &self,
        host: &str,
        request: impl FnOnce(&reqwest::Client) -> reqwest::RequestBuilder,
    ) -> Result<Response, Error> {
        request(&self.client).send().await.map_err(|error| unreachable(host, error))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Whether nobody answered, so that what they speak is still unknown.
fn says_nothing(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&error| error.source());
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    error.is_timeout() || causes.filter_map(|error| error.downcast_ref()).any(is_refused)
}

/// Without the URL: one that a redirect led to may be signed.
pub(crate) fn unreachable(host: &str, error: reqwest::Error) -> Error {
    Error::Unreachable { host: host.to_owned(), source: error.without_url().into() }
}
