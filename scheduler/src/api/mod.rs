//! The HTTP API: Daytona's contract under `/api`, Slipway's own additions under
//! `/api/v1`.
//!
//! Owns routes, authentication and the form of answers. Refuses decisions: what
//! may happen to a snapshot is the lifecycle's, what is stored is the ledger's.

mod absent;
mod admin;
mod api_keys;
mod auth;
mod contexts;
mod doc;
mod error;
mod fleet;
mod idempotency;
pub(crate) mod jobs;
mod organizations;
pub(crate) mod present;
mod push_access;
mod rate;
mod registries;
mod server;
mod snapshots;
mod sse;
mod storage;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Router, middleware};
use jiff::Timestamp;
use slipway_bus::Bucket;
use slipway_runtime::telemetry::http::Requests;
use slipway_uploads::Contexts;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use auth::Caller;
pub use error::ApiError;
pub use rate::Limiter;

use crate::accounts::Accounts;
use crate::activity::Activity;
use crate::config::Config;
use crate::credentials::Registries;
use crate::drain::Drains;
use crate::general::General;
use crate::ledger::Ledger;
use crate::logs::Logs;
use crate::queue::Queue;
use crate::view::View;

/// What handlers share. Clones are cheap.
#[derive(Debug, Clone)]
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// Base address for clients, without `/api`.
    pub public_url: Arc<str>,
    /// What is known.
    pub view: Arc<View>,
    /// What changes it.
    pub ledger: Arc<Ledger>,
    /// When which job is sent.
    pub queue: Arc<Queue>,
    /// Logs of jobs.
    pub logs: Arc<Logs>,
    /// Registry credentials.
    pub registries: Arc<Registries>,
    /// Build contexts.
    pub contexts: Contexts,
    /// How clients of S3 bring them.
    pub uploads: slipway_uploads::Access,
    /// Organizations and API keys, to change them.
    pub accounts: Accounts,
    /// Orders to workers.
    pub drains: Drains,
    /// Images that everybody may read.
    pub general: Arc<General>,
    /// What is measured of requests.
    pub requests: Requests,
    /// Which snapshots are active.
    pub activity: Arc<Activity>,
    /// Counts requests, if they are limited.
    pub limiter: Option<Limiter>,
    /// When this process started.
    pub started_at: Timestamp,
    /// Secrets for pushes to the regions' registries.
    pub push_tokens: Bucket,
    /// Requests that may be sent again.
    pub requests_made: Bucket,
    /// Cancelled when the process stops: answers that would go on end then.
    pub shutdown: CancellationToken,
}

/// Longest request body but for contexts: the Dockerfile, escaped, and change.
const MAX_BODY: usize = 1 << 20;

/// Every route.
pub fn router(app: App) -> Router {
    let version = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));
    let version = SetResponseHeaderLayer::overriding(
        HeaderName::from_static("x-daytona-api-version"),
        version,
    );
    let requests = app.requests.clone();
    let (described, _) = routes().split_for_parts();
    Router::new()
        .merge(described.layer(middleware::from_fn_with_state(app.clone(), writable)))
        .nest("/api", absent::routes())
        .route("/api/openapi.json", get(doc::json))
        .route("/api/docs", get(doc::page))
        .layer(middleware::from_fn_with_state(app.clone(), rate::limit))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(error::error_bodies))
        .layer(version)
        .layer(middleware::from_fn(move |request, next| requests.clone().observe(request, next)))
        .with_state(app)
}

/// Middleware: what changes something is refused at once while NATS is away, instead
/// of after it has been waited for.
async fn writable(State(app): State<App>, request: Request, next: Next) -> Response {
    if !request.method().is_safe()
        && let Err(error) = app.ledger.check_connected()
    {
        return ApiError::from(error).into_response();
    }
    next.run(request).await
}

/// The description of every route, as the handlers give it.
fn description() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(doc::Document::openapi())
        .nest("/api", daytona())
        .nest("/api/v1", own())
}

fn daytona() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(admin::can_cleanup_image))
        .routes(routes!(admin::set_default_registry))
        .routes(routes!(admin::set_general))
        .routes(routes!(api_keys::list, api_keys::create))
        .routes(routes!(api_keys::current))
        .routes(routes!(api_keys::read, api_keys::revoke))
        .routes(routes!(fleet::health))
        .routes(routes!(fleet::ready))
        .routes(routes!(organizations::list))
        .routes(routes!(organizations::me))
        .routes(routes!(organizations::read))
        .routes(routes!(organizations::usage))
        .routes(routes!(push_access::read))
        .routes(routes!(registries::list, registries::create))
        .routes(routes!(registries::read, registries::update, registries::remove))
        .routes(routes!(server::config))
        .routes(routes!(server::regions))
        .routes(routes!(server::shared_regions))
        .routes(routes!(snapshots::activate))
        .routes(routes!(snapshots::build_logs))
        .routes(routes!(snapshots::build_logs_url))
        .routes(routes!(snapshots::deactivate))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::read, snapshots::remove))
        .routes(routes!(storage::read))
}

fn own() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(api_keys::list_of, api_keys::create_for))
        .routes(routes!(api_keys::revoke_of))
        .routes(routes!(contexts::head, contexts::put))
        .routes(routes!(fleet::regions))
        .routes(routes!(fleet::workers))
        .routes(routes!(fleet::drain_worker, fleet::undrain_worker))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::dead))
        .routes(routes!(jobs::discard))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::logs))
        .routes(routes!(jobs::read))
        .routes(routes!(jobs::redrive))
        .routes(routes!(organizations::list_all, organizations::create))
        .routes(routes!(organizations::resume))
        .routes(routes!(organizations::set_limits))
        .routes(routes!(organizations::suspend))
        .routes(routes!(registries::rotate_key))
        .routes(routes!(registries::test))
}
