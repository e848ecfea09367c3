//! One repository of one registry under one credential: requests that are
//! authorized, repeated and judged.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode};
use slipway_oci::RepositoryName;
use tokio::sync::Mutex;
use url::Url;

use crate::auth::{self, Tokens, Wanted};
use crate::challenge::Challenge;
use crate::check::Accepted;
use crate::credential::Credential;
use crate::error::Error;
use crate::http::{Answer, Get, Http, unreachable};
use crate::location::{self, Location};
use crate::retry::{self, Backoff};
use crate::{body, reason};

/// Largest error body that is looked at, in bytes.
pub(crate) const ERROR_BODY: u64 = 16 << 10;

pub(crate) struct Session {
    pub(crate) http: Arc<Http>,
    tokens: Arc<Tokens>,
    pub(crate) host: String,
    base: Url,
    pub(crate) repository: RepositoryName,
    credential: Credential,
    /// What the registry asked for last. Held while a token is fetched, so
    /// that layers which start together fetch one.
    challenge: Mutex<Option<Challenge>>,
}

impl Session {
    pub(crate) async fn open(
        http: Arc<Http>,
        tokens: Arc<Tokens>,
        at: &Location,
        repository: RepositoryName,
        credential: Credential,
    ) -> Result<Self, Error> {
        let (host, mut backoff) = (at.name.clone(), Backoff::new(http.config.retry));
        let base = loop {
            match http.base(at, &repository).await {
                Ok(base) => break base,
                Err(error) => wait(&host, &mut backoff, error).await?,
            }
        };
        Ok(Self { http, tokens, host, base, repository, credential, challenge: Mutex::default() })
    }

    /// A request for something below the repository; `path` is made of digests
    /// and tags only.
    pub(crate) fn request(&self, path: &str, what: String) -> Get {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        Get { url, what, accept: None, range: None }
    }

    /// The answer to a request, its body unread.
    pub(crate) async fn open_body(&self, get: &Get) -> Result<Response, Error> {
        let mut backoff = Backoff::new(self.http.config.retry);
        loop {
            match self.attempt(get).await {
                Ok(response) => return Ok(response),
                Err(error) => self.wait(&mut backoff, error).await?,
            }
        }
    }

    /// The answer to a request with its whole body, which is small.
    pub(crate) async fn read(&self, get: &Get, limit: u64) -> Result<(HeaderMap, Bytes), Error> {
        let mut backoff = Backoff::new(self.http.config.retry);
        loop {
            match self.read_once(get, limit).await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait(&mut backoff, error).await?,
            }
        }
    }

    async fn read_once(&self, get: &Get, limit: u64) -> Result<(HeaderMap, Bytes), Error> {
        let mut response = self.attempt(get).await?;
        match body::read(&mut response, limit).await {
            Ok(bytes) => Ok((response.headers().clone(), bytes)),
            Err(body::Fault::TooLarge) if body::is_web_page(response.headers()) => {
                Err(Error::WebPage(self.host.clone()))
            }
            Err(body::Fault::TooLarge) => {
                Err(Error::DocumentTooLarge { what: get.what.clone(), limit })
            }
            Err(body::Fault::Broken(error)) => Err(unreachable(&self.host, error)),
        }
    }

    /// See [`wait`].
    pub(crate) async fn wait(&self, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
        wait(&self.host, backoff, error).await
    }

    /// One try, with a second one if the registry asks for credentials.
    async fn attempt(&self, get: &Get) -> Result<Response, Error> {
        let shown = self.authorization().await?;
        let answer = self.http.get(&self.host, get, shown.as_ref()).await?;
        let asks = answer.response.status() == StatusCode::UNAUTHORIZED && answer.is_registry;
        if !asks {
            return self.judge(get, answer).await;
        }
        let authorization = self.answer(answer.response, shown.is_some()).await?;
        let answer = self.http.get(&self.host, get, Some(&authorization)).await?;
        self.judge(get, answer).await
    }

    /// Shows the credential at the root of the API, which says nothing about any
    /// image. A token server that gives a token has taken it already.
    pub(crate) async fn check(&self) -> Result<Accepted, Error> {
        let mut url = self.base.clone();
        url.set_path("/v2/");
        let get = Get { url, what: "its greeting".to_owned(), accept: None, range: None };
        let answer = self.http.get(&self.host, &get, None).await?;
        if answer.response.status() != StatusCode::UNAUTHORIZED || !answer.is_registry {
            return self.judge(&get, answer).await.map(|_| Accepted::Anybody);
        }
        let authorization = self.answer(answer.response, false).await?;
        if let Some(Challenge::Basic) = &*self.challenge.lock().await {
            let answer = self.http.get(&self.host, &get, Some(&authorization)).await?;
            self.judge(&get, answer).await?;
        }
        Ok(Accepted::Credential)
    }

    /// What to show without being asked: what the registry asked for before.
    async fn authorization(&self) -> Result<Option<HeaderValue>, Error> {
        if let Credential::Bearer(token) = &self.credential {
            return Ok(auth::header("Bearer", token));
        }
        let challenge = self.challenge.lock().await;
        match &*challenge {
            None => Ok(None),
            Some(challenge) => self.header(challenge).await,
        }
    }

    /// What to show to a registry that has just said no.
    async fn answer(&self, mut response: Response, was_shown: bool) -> Result<HeaderValue, Error> {
        let mut known = self.challenge.lock().await;
        let challenge = Challenge::choose(response.headers());
        let reason = self.reason(&mut response).await;
        let is_fixed = matches!(self.credential, Credential::Bearer(_));
        let Some(challenge) = challenge.filter(|_| !is_fixed) else {
            return Err(self.unauthorized(reason));
        };
        if was_shown && let Challenge::Bearer { .. } = &challenge {
            self.tokens.forget(&self.wanted(&challenge)?, &self.credential).await;
        }
        let header = self.header(&challenge).await?;
        *known = Some(challenge);
        header.ok_or_else(|| self.unauthorized(reason))
    }

    async fn header(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, Error> {
        match challenge {
            Challenge::Basic => {
                Ok(self.credential.basic().and_then(|pair| auth::header("Basic", &pair)))
            }
            Challenge::Bearer { .. } => {
                let wanted = self.wanted(challenge)?;
                let token = self.tokens.header(&self.http, &self.host, &wanted, &self.credential);
                token.await.map(Some)
            }
        }
    }

    fn wanted(&self, challenge: &Challenge) -> Result<Wanted, Error> {
        let Challenge::Bearer { realm, service, scope } = challenge else {
            return Err(auth::unusable(&self.host, "it names none".to_owned()));
        };
        let no = |problem: &str| auth::unusable(&self.host, problem.to_owned());
        let realm: Url = realm.parse().map_err(|_| no("its address is not a URL"))?;
        if !realm.username().is_empty() || !realm.has_host() {
            return Err(no("its address is not that of a server"));
        }
        let may_be_plain = self.base.scheme() == "http"
            || self.http.config.insecure.contains(&location::authority(&realm));
        match realm.scheme() {
            "https" => {}
            "http" if may_be_plain => {}
            _ => return Err(no("its address is not HTTPS")),
        }
        let own = || format!("repository:{}:pull", self.repository);
        let scope = scope.clone().unwrap_or_else(own);
        Ok(Wanted { realm, service: service.clone(), scope })
    }

    /// Success, or the error that the answer is.
    async fn judge(&self, get: &Get, answer: Answer) -> Result<Response, Error> {
        let Answer { mut response, is_registry } = answer;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let host = self.host.clone();
        let retry_after = retry::asked(response.headers(), Timestamp::now());
        let reason = self.reason(&mut response).await;
        let status = status.as_u16();
        Err(match status {
            429 => Error::RateLimited { host, retry_after },
            408 | 500..=599 => Error::Failed { host, status, retry_after, reason },
            // Where the registry keeps its blobs does not know the client; a
            // signed address that was too old can be had anew.
            _ if !is_registry => Error::Failed { host, status, retry_after, reason },
            401 | 403 => self.unauthorized(reason),
            404 => Error::NotFound { host, what: get.what.clone() },
            _ => Error::Refused { host, status, reason },
        })
    }

    fn unauthorized(&self, reason: Option<String>) -> Error {
        Error::Unauthorized {
            host: self.host.clone(),
            repository: self.repository.to_string(),
            anonymous: self.credential.is_anonymous(),
            reason,
        }
    }

    async fn reason(&self, response: &mut Response) -> Option<String> {
        let bytes = body::read(response, ERROR_BODY).await.ok()?;
        self.reason_in(&bytes)
    }

    /// The registry's words for an error, if the bytes are that.
    pub(crate) fn reason_in(&self, bytes: &[u8]) -> Option<String> {
        reason::read(bytes).map(|reason| self.credential.redact(&reason))
    }
}

/// Waits after a failed try, or gives the failure back if it is final.
async fn wait(host: &str, backoff: &mut Backoff, error: Error) -> Result<(), Error> {
    if !error.is_retryable() {
        return Err(error);
    }
    let Some(pause) = backoff.pause(error.retry_after()) else { return Err(error) };
    tracing::info!(
        registry = host,
        tries = backoff.tries(),
        pause_ms = pause.as_millis() as u64,
        error = &error as &dyn std::error::Error,
        "a request to a source registry is repeated"
    );
    tokio::time::sleep(pause).await;
    Ok(())
}
