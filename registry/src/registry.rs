//! The registry's state, and the way of a request through it: authenticate,
//! find the endpoint, check the right, act.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_oci::{Digest, MediaType};
use slipway_runtime::telemetry::{http, trace};
use tracing::{Instrument as _, Span};

use crate::auth::{Access, Authorizer, AuthorizerError, Credentials};
use crate::config::Options;
use crate::error::Error;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::route::{self, Endpoint};
use crate::uploads::Uploads;

const VERSION_HEADER: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const VERSION: HeaderValue = HeaderValue::from_static("registry/2.0");
pub(crate) const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// A registry over one object store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Registry {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) links: Links,
    pub(crate) uploads: Uploads,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    authorizer: Arc<dyn Authorizer>,
}

impl Registry {
    /// A registry that keeps everything in `store` and asks `authorizer` about
    /// every request.
    #[must_use]
    pub fn new(store: Store, authorizer: Arc<dyn Authorizer>, options: impl Into<Options>) -> Self {
        let options = options.into();
        let inner = Inner {
            links: Links::new(store.clone()),
            uploads: Uploads::new(&options.limits),
            metrics: Arc::default(),
            store,
            options,
            authorizer,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Gives a repository a manifest whose bytes are in the pool, whatever was
    /// known of it before: for what has to be there now, since a client that was
    /// told that a manifest is there does not send it again.
    ///
    /// # Errors
    /// The object store cannot be reached, or lacks the bytes.
    pub async fn keep_manifest(
        &self,
        repository: &Repository,
        digest: Digest,
        media_type: MediaType,
    ) -> Result<(), slipway_blobstore::Error> {
        let size = self.inner.store.head(&ObjectKey::Blob(digest)).await?.size;
        self.inner.links.add_manifest(repository, &digest, size, media_type).await
    }

    /// What the registry did since it was made.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Drops uploads that rest for longer than the limit, with what they
    /// wrote; returns how many. Beginning an upload does it too, so a
    /// periodic call only matters for a registry that nobody pushes to.
    pub async fn expire_uploads(&self) -> usize {
        self.inner.uploads.expire().await
    }

    /// Drops all uploads, for the end of the process. Requests under way get
    /// an error.
    pub async fn close(&self) {
        self.inner.uploads.clear().await;
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("store", &self.inner.store).finish_non_exhaustive()
    }
}

/// The routes below `/v2/`, to be served alone or merged with others.
///
/// A client that tries HTTPS first, as BuildKit does, gets what the HTTP
/// server answers to bytes that are no HTTP: `400`, from which it knows to
/// fall back. `axum::serve` does so without a log line.
pub fn router(registry: Registry) -> Router {
    Router::new()
        .route("/v2", any(ping))
        .route("/v2/", any(ping))
        .route("/v2/{*path}", any(dispatch))
        .with_state(registry)
}

async fn ping(State(registry): State<Registry>, request: Request) -> Response {
    let answer =
        registry.authenticate(request.headers()).await.map(|_| Json(serde_json::json!({})));
    versioned(answer.into_response())
}

async fn dispatch(
    State(registry): State<Registry>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let (began, method) = (Instant::now(), request.method().clone());
    let kind = path.as_ref().ok().and_then(|Path(path)| Endpoint::parse(path).ok());
    let kind = kind.map_or("unmatched", |endpoint| endpoint.kind());
    let span = registry.span(kind, &request);
    let answer = registry.answer(path, request).instrument(span.clone()).await;
    let status = answer.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    if let Some(requests) = &registry.inner.options.requests {
        requests.count(&method, kind, status.as_u16(), began);
    }
    versioned(answer)
}

fn versioned(mut response: Response) -> Response {
    response.headers_mut().insert(VERSION_HEADER, VERSION);
    response
}

impl Registry {
    /// The span of a request: a part of the work that its secret was granted for,
    /// else of what its headers name.
    fn span(&self, kind: &'static str, request: &Request) -> Span {
        let span = http::span(request.method(), kind, request.headers());
        if let Ok(credentials) = Credentials::from_headers(request.headers())
            && let Some(parent) = self.inner.authorizer.trace(&credentials)
        {
            trace::set_parent(&span, Some(&parent));
        }
        span
    }

    async fn answer(
        &self,
        path: Result<Path<String>, PathRejection>,
        request: Request,
    ) -> Response {
        let answer = match self.authenticate(request.headers()).await {
            Ok(access) => match path {
                Ok(Path(path)) => self.act(&access, &path, request).await,
                Err(_) => Err(Error::NameInvalid),
            },
            Err(error) => Err(error),
        };
        answer.into_response()
    }

    async fn authenticate(&self, headers: &HeaderMap) -> Result<Access, Error> {
        let credentials = Credentials::from_headers(headers)?;
        self.inner.authorizer.authorize(credentials).await.map_err(|error| match error {
            AuthorizerError::Refused => Error::Unauthorized,
            AuthorizerError::Unavailable(source) => Error::Unavailable(source),
        })
    }

    async fn act(&self, access: &Access, path: &str, request: Request) -> Result<Response, Error> {
        let endpoint = Endpoint::parse(path)?;
        let writes = endpoint.writes(request.method());
        let repository = route::repository(endpoint.name(), writes)?;
        check_right(access, &repository, writes)?;
        match endpoint {
            Endpoint::Blob { digest, .. } => {
                self.blob(&repository, route::digest(digest)?, request.method(), request.headers())
                    .await
            }
            Endpoint::Manifest { reference, .. } => {
                let reference = route::Reference::parse(reference)?;
                self.manifest(&repository, reference, request).await
            }
            Endpoint::Tags { .. } if reads(request.method()) => {
                self.list_tags(&repository, request.uri()).await
            }
            Endpoint::Referrers { subject, .. } if reads(request.method()) => {
                self.list_referrers(&repository, route::digest(subject)?, request.uri()).await
            }
            Endpoint::Uploads { .. } if *request.method() == Method::POST => {
                self.begin_upload(access, &repository, request).await
            }
            Endpoint::Upload { id, .. } => {
                self.upload(&repository, route::upload_id(id)?, request).await
            }
            Endpoint::Tags { .. } | Endpoint::Referrers { .. } | Endpoint::Uploads { .. } => {
                Err(Error::Unsupported(StatusCode::METHOD_NOT_ALLOWED))
            }
        }
    }
}

/// The server leaves the body of an answer to `HEAD` away by itself.
fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The answer depends on the name alone, never on what exists under it.
fn check_right(access: &Access, repository: &Repository, writes: bool) -> Result<(), Error> {
    match writes {
        true if access.may_push(repository) => Ok(()),
        true => Err(Error::Denied),
        false if access.may_pull(repository) => Ok(()),
        false => Err(Error::NameUnknown),
    }
}
