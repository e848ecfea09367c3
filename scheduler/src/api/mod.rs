//! The HTTP API: Daytona's contract under `/api`, Slipway's own additions under
//! `/api/v1`.
//!
//! Owns routes, authentication and the form of answers. Refuses decisions: what
//! may happen to a snapshot is the lifecycle's, what is stored is the ledger's.

mod auth;
mod contexts;
mod error;
mod fleet;
mod jobs;
pub(crate) mod present;
mod push_access;
mod registries;
mod snapshots;
mod sse;
mod storage;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue};
use axum::routing::{get, post};
use axum::{Router, middleware};
use slipway_bus::Bucket;
use slipway_uploads::Contexts;
use tokio_util::sync::CancellationToken;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

pub use auth::Caller;
pub use error::ApiError;

use crate::config::Config;
use crate::credentials::Registries;
use crate::ledger::Ledger;
use crate::logs::Logs;
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
    /// Logs of jobs.
    pub logs: Arc<Logs>,
    /// Registry credentials.
    pub registries: Arc<Registries>,
    /// Build contexts.
    pub contexts: Contexts,
    /// How clients of S3 bring them.
    pub uploads: slipway_uploads::Access,
    /// Secrets for pushes to the regions' registries.
    pub push_tokens: Bucket,
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
    Router::new()
        .nest("/api", daytona())
        .nest("/api/v1", own())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(error::error_bodies))
        .layer(version)
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

fn daytona() -> Router<App> {
    Router::new()
        .route("/docker-registry", get(registries::list).post(registries::create))
        .route(
            "/docker-registry/{id}",
            get(registries::read).patch(registries::update).delete(registries::remove),
        )
        .route("/health", get(fleet::health))
        .route("/docker-registry/registry-push-access", get(push_access::read))
        .route("/object-storage/push-access", get(storage::read))
        .route("/snapshots", get(snapshots::list).post(snapshots::create))
        .route("/snapshots/{id_or_name}", get(snapshots::read).delete(snapshots::remove))
        .route("/snapshots/{id_or_name}/build-logs", get(snapshots::build_logs))
        .route("/snapshots/{id_or_name}/build-logs-url", get(snapshots::build_logs_url))
}

fn own() -> Router<App> {
    Router::new()
        .route("/contexts/{hash}", get(contexts::head).put(contexts::put))
        .route("/jobs/{id}", get(jobs::read))
        .route("/jobs/{id}/logs", get(jobs::logs))
        .route("/regions", get(fleet::regions))
        .route("/regions/{region}/rotate-key", post(registries::rotate_key))
        .route("/registry-credentials/{id}/test", post(registries::test))
        .route("/workers", get(fleet::workers))
}
