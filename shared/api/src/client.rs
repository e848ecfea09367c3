//! The typed HTTP client.
//!
//! Owns addresses, deadlines, repetition and the reading of error bodies.
//! Refuses to decide what a failure means for a user; that is the command's.
//!
//! Invariant: only requests that may be made twice are repeated, so a snapshot
//! is asked for once or not at all.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Request, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use slipway_domain::LogSeq;
use url::Url;

use crate::events::JobEvents;
use crate::own::RegionStatus;
use crate::types::{CreateSnapshot, ListSnapshots, PaginatedSnapshots, Snapshot};

mod accounts;
mod error;
mod jobs;
mod registries;
mod retry;
mod upload;
mod workers;

pub use error::Error;
pub use retry::Retry;
pub use upload::UploadError;

/// Deadlines and repetition.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For a connection to be made.
    pub connect: Duration,
    /// For a whole answer in JSON.
    pub answer: Duration,
    /// Longest silence of a stream. Servers give a sign every 15 seconds.
    pub silence: Duration,
    /// Longest time in which an upload makes no progress.
    pub upload_stall: Duration,
    /// From the end of an upload to its answer: the server may still be storing.
    pub upload_answer: Duration,
    /// For requests that may be made twice.
    pub retry: Retry,
    /// For log streams; their count starts anew with every entry. They outlast
    /// a restart of the server.
    pub resume: Retry,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(45),
            upload_stall: Duration::from_secs(60),
            upload_answer: Duration::from_secs(600),
            retry: Retry::default(),
            resume: Retry { attempts: 12, ..Retry::default() },
        }
    }
}

/// Speaks with one server on behalf of one API key. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Client {
    base: Url,
    http: reqwest::Client,
    uploads: reqwest::Client,
    settings: Settings,
}

impl Client {
    /// A client for the server at `base`, with the default [`Settings`].
    ///
    /// # Errors
    /// As for [`Client::with_settings`].
    pub fn new(base: Url, key: &SecretString) -> Result<Self, Error> {
        Self::with_settings(base, key, Settings::default())
    }

    /// A client for the server at `base`: the address of its API, for example
    /// `http://127.0.0.1:3000/api`. Where it has no path, `/api` is meant.
    ///
    /// # Errors
    /// [`Error::BadKey`] if the key cannot be sent in a header, and
    /// [`Error::Setup`] if TLS cannot be set up.
    pub fn with_settings(
        mut base: Url,
        key: &SecretString,
        settings: Settings,
    ) -> Result<Self, Error> {
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(if path.is_empty() { "/api" } else { &path });
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
            .map_err(|_| Error::BadKey)?;
        bearer.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
        let builder = || {
            let builder = reqwest::Client::builder()
                .connect_timeout(settings.connect)
                .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
                .default_headers(headers.clone());
            // A proxy is of no use on the way to this very machine.
            if is_loopback(&base) { builder.no_proxy() } else { builder }
        };
        let http = builder().read_timeout(settings.silence).build().map_err(Error::Setup)?;
        let uploads = builder().build().map_err(Error::Setup)?;
        Ok(Self { base, http, uploads, settings })
    }

    /// The address of the API, as it is used.
    #[must_use]
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// `POST /snapshots`: asks for a snapshot. Never repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn create_snapshot(&self, wanted: &CreateSnapshot) -> Result<Snapshot, Error> {
        let url = self.url(&["snapshots"])?;
        let request = self.http.post(url).json(wanted).timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }

    /// `GET /snapshots`: one page of them.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn list_snapshots(&self, what: &ListSnapshots) -> Result<PaginatedSnapshots, Error> {
        let request = self.http.get(self.url(&["snapshots"])?).query(what);
        let request = request.timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }

    /// `GET /snapshots/{id or name}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn snapshot(&self, id_or_name: &str) -> Result<Snapshot, Error> {
        self.get(&["snapshots", id_or_name]).await
    }

    /// `DELETE /snapshots/{id or name}`; ends its build if it is in one.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn delete_snapshot(&self, id_or_name: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &["snapshots", id_or_name])?;
        self.send(request).await?;
        Ok(())
    }

    /// `POST /snapshots/{id or name}/activate`: active, or on the way.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 400 if it is not
    /// inactive or the quota is used up.
    pub async fn activate_snapshot(&self, id_or_name: &str) -> Result<Snapshot, Error> {
        let request = self.request(Method::POST, &["snapshots", id_or_name, "activate"])?;
        self.json(request).await
    }

    /// `POST /snapshots/{id or name}/deactivate`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 400 if it is not
    /// active.
    pub async fn deactivate_snapshot(&self, id_or_name: &str) -> Result<(), Error> {
        let request = self.request(Method::POST, &["snapshots", id_or_name, "deactivate"])?;
        self.send(request).await?;
        Ok(())
    }

    /// `GET /snapshots/{id or name}/build-logs`: the log as plain bytes; with
    /// `follow` until the build has ended. A cut stream is not resumed; see
    /// [`Client::job_events`] for one that is.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is no such snapshot.
    pub async fn build_logs(
        &self,
        id_or_name: &str,
        follow: bool,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + use<>, Error> {
        let mut url = self.url(&["snapshots", id_or_name, "build-logs"])?;
        if follow {
            url.set_query(Some("follow=true"));
        }
        let response = self.send(Request::new(Method::GET, url)).await?;
        let described = describe(&Method::GET, response.url());
        Ok(response.bytes_stream().map_err(move |source| Error::interrupted(&described, source)))
    }

    /// `HEAD /v1/contexts/{sha256}`: whether the server already has a context.
    ///
    /// # Errors
    /// [`Error::Refused`] for any answer but 200 and 404.
    pub async fn has_context(&self, sha256: &str) -> Result<bool, Error> {
        let request = self.request(Method::HEAD, &["v1", "contexts", sha256])?;
        match self.send(request).await {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `GET /v1/jobs/{id}/logs`: the job's log after `after`, resumed by itself
    /// whenever the connection is cut; see [`JobEvents`].
    ///
    /// # Errors
    /// [`Error::BadName`] if `id` cannot be part of an address.
    pub fn job_events(&self, id: &str, after: LogSeq, follow: bool) -> Result<JobEvents, Error> {
        let mut url = self.url(&["v1", "jobs", id, "logs"])?;
        url.set_query(Some(if follow { "follow=true" } else { "follow=false" }));
        Ok(JobEvents::new(self.clone(), url, after, follow))
    }

    /// `GET /v1/regions`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn regions(&self) -> Result<Vec<RegionStatus>, Error> {
        self.get(&["v1", "regions"]).await
    }

    /// The address below the base of these path segments, each percent-encoded:
    /// names contain `/` and `:`.
    fn url(&self, segments: &[&str]) -> Result<Url, Error> {
        // Dots alone would be taken for a way up.
        if let Some(bad) = segments.iter().find(|part| matches!(**part, "" | "." | "..")) {
            return Err(Error::BadName((*bad).to_owned()));
        }
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| Error::BadBase(self.base.to_string()))?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    fn request(&self, method: Method, segments: &[&str]) -> Result<Request, Error> {
        let mut request = Request::new(method, self.url(segments)?);
        *request.timeout_mut() = Some(self.settings.answer);
        Ok(request)
    }

    async fn get<T: DeserializeOwned>(&self, segments: &[&str]) -> Result<T, Error> {
        self.json(self.request(Method::GET, segments)?).await
    }

    async fn json<T: DeserializeOwned>(&self, mut request: Request) -> Result<T, Error> {
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let described = describe(request.method(), request.url());
        let response = self.send(request).await?;
        let body = response.bytes().await;
        let body = body.map_err(|source| Error::interrupted(&described, source))?;
        serde_json::from_slice(&body)
            .map_err(|source| Error::Malformed { request: described, source })
    }

    /// Sends, and repeats what may be repeated. An answer other than a success
    /// is an error.
    async fn send(&self, request: Request) -> Result<Response, Error> {
        let is_repeatable = request.method() != Method::POST;
        let mut tried = 0;
        loop {
            let copy = request.try_clone().filter(|_| is_repeatable);
            let Some(copy) = copy else {
                return self.send_once(request).await;
            };
            tried += 1;
            match self.send_once(copy).await {
                Err(error) if error.is_retryable() && tried < self.settings.retry.attempts => {
                    let pause = self.settings.retry.pause(tried, error.retry_after());
                    tokio::time::sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) async fn send_once(&self, request: Request) -> Result<Response, Error> {
        let described = describe(request.method(), request.url());
        let sent = self.http.execute(request).await;
        let response = sent.map_err(|source| Error::transport(&self.base, &described, source))?;
        error::checked(response, &described).await
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// A request as messages name it: method and path.
fn describe(method: &Method, url: &Url) -> String {
    format!("{method} {}", url.path())
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
