//! Endpoints of Daytona's API that Slipway does not offer: they say so.

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::StatusCode;
use axum::routing::{any, patch, post};

use super::{ApiError, App};

/// What is answered with 501, with the method and path of the contract.
pub const OPERATIONS: [(&str, &str); 12] = [
    ("get", "/api/sandbox"),
    ("post", "/api/sandbox"),
    ("get", "/api/sandbox/{id}"),
    ("post", "/api/sandbox/{id}/snapshot"),
    ("get", "/api/jobs"),
    ("get", "/api/jobs/poll"),
    ("get", "/api/jobs/{id}"),
    ("post", "/api/jobs/{id}/status"),
    ("post", "/api/runners/healthcheck"),
    ("post", "/api/regions"),
    ("patch", "/api/regions/{id}"),
    ("post", "/api/regions/{id}/regenerate-snapshot-manager-credentials"),
];

/// The routes.
pub fn routes() -> Router<App> {
    let mut router = Router::new();
    for path in ["/sandbox", "/jobs", "/runners", "/toolbox", "/volumes", "/secret", "/webhooks"] {
        router = router.route(path, any(refuse)).route(&format!("{path}/{{*rest}}"), any(refuse));
    }
    router
        .route("/regions", post(regions))
        .route("/regions/{id}", patch(regions).delete(regions))
        .route("/regions/{id}/regenerate-snapshot-manager-credentials", post(regions))
}

async fn refuse(OriginalUri(uri): OriginalUri) -> ApiError {
    let what = uri.path().split('/').nth(2).unwrap_or_default();
    let message = format!(
        "Slipway makes snapshots and does not offer `/{what}`: \
         ask the server that runs your sandboxes"
    );
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_offered", message)
}

async fn regions() -> ApiError {
    let message = "Regions are set in the configuration of the server, by its operator";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_offered", message)
}
