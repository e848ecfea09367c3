//! The one place that maps errors to HTTP answers.
//!
//! A handler returns [`ApiError`]; the middleware [`error_bodies`] turns it, and
//! every other error answer such as axum's own, into Daytona's error body.
//! Internal detail is logged there and never leaves.

use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use slipway_api::types::ErrorBody;

use crate::{accounts, activity, credentials, drain, ledger, logs, validate};

/// An error answer: status, stable code and text for the user.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    /// What happened and what to do.
    pub message: String,
}

impl ApiError {
    /// An error with its text.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// 404 for a snapshot, which is also what foreign ones look like.
    #[must_use]
    pub fn snapshot_not_found(id_or_name: &str) -> Self {
        let message = format!("Snapshot with ID or name {id_or_name} not found");
        Self::new(StatusCode::NOT_FOUND, "snapshot_not_found", message)
    }

    /// 404 for a job, which is also what foreign ones look like.
    #[must_use]
    pub fn job_not_found(id: &str) -> Self {
        let message = format!("Job with ID {id} not found");
        Self::new(StatusCode::NOT_FOUND, "job_not_found", message)
    }

    /// 401.
    #[must_use]
    pub fn unauthorized() -> Self {
        let message = "Invalid credentials: send a valid API key as `Authorization: Bearer <key>`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// 403.
    #[must_use]
    pub fn forbidden(permission: &str) -> Self {
        let message = format!("Access denied: the API key lacks the permission `{permission}`");
        Self::new(StatusCode::FORBIDDEN, "forbidden", message)
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// 503: NATS or an object store is away; the same request may work later.
    #[must_use]
    pub fn unavailable(error: &dyn std::error::Error) -> Self {
        tracing::warn!(error = slipway_runtime::telemetry::chain(error), "request not served");
        let message = "The service is temporarily unavailable, try again in a few seconds";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 500: a fault of ours; the log has the detail.
    #[must_use]
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = slipway_runtime::telemetry::chain(error), "request failed");
        let message = "An unexpected error occurred";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }
}

impl From<validate::Error> for ApiError {
    fn from(error: validate::Error) -> Self {
        let (status, code) = match &error {
            validate::Error::RegionNotFound { .. } => (StatusCode::NOT_FOUND, "region_not_found"),
            validate::Error::ClassNotInRegion { .. } => {
                (StatusCode::BAD_REQUEST, "class_not_in_region")
            }
            validate::Error::RegionNotAllowed { .. } => {
                (StatusCode::FORBIDDEN, "region_not_allowed")
            }
            validate::Error::Suspended { .. } => (StatusCode::FORBIDDEN, "suspended"),
            validate::Error::NoSuchSandboxClass { .. } => {
                (StatusCode::BAD_REQUEST, "class_not_in_region")
            }
            validate::Error::ImageElsewhere { .. } => (StatusCode::BAD_REQUEST, "image_elsewhere"),
            validate::Error::NoSuchGpu { .. } => (StatusCode::BAD_REQUEST, "gpu_not_in_region"),
            validate::Error::GpuQuota { .. } => (StatusCode::BAD_REQUEST, "quota_exceeded"),
            validate::Error::TooLarge { .. } => (StatusCode::BAD_REQUEST, "limit_exceeded"),
            validate::Error::Malformed(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ledger::Error> for ApiError {
    fn from(error: ledger::Error) -> Self {
        match &error {
            ledger::Error::NameTaken { .. } => {
                Self::new(StatusCode::CONFLICT, "name_taken", error.to_string())
            }
            ledger::Error::TooManyReplace { .. } => {
                Self::new(StatusCode::CONFLICT, "too_many_replace", error.to_string())
            }
            ledger::Error::GeneralReplaced { .. } => {
                Self::new(StatusCode::FORBIDDEN, "general_snapshot", error.to_string())
            }
            ledger::Error::QuotaExceeded { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "quota_exceeded", error.to_string())
            }
            ledger::Error::SnapshotGone { id } => Self::snapshot_not_found(&id.to_string()),
            ledger::Error::Write { .. } | ledger::Error::Read { .. } => Self::unavailable(&error),
        }
    }
}

impl From<activity::Error> for ApiError {
    fn from(error: activity::Error) -> Self {
        match error {
            activity::Error::Ledger(error) => error.into(),
            activity::Error::Store(_) => Self::unavailable(&error),
        }
    }
}

impl From<credentials::Error> for ApiError {
    fn from(error: credentials::Error) -> Self {
        use credentials::Error as E;
        let (status, code) = match &error {
            E::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            E::NotFound(_) => (StatusCode::NOT_FOUND, "registry_not_found"),
            E::TooMany => (StatusCode::BAD_REQUEST, "quota_exceeded"),
            E::NoRegion(_) => (StatusCode::NOT_FOUND, "region_not_found"),
            E::NoKey | E::NoWorker(_) | E::NotSealed { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_worker")
            }
            E::NoJob => (StatusCode::CONFLICT, "job_not_running"),
            E::Conflict => (StatusCode::CONFLICT, "conflict"),
            E::Seal(_) | E::Answer => return Self::internal(&error),
            E::Worker(_) | E::Write(_) => return Self::unavailable(&error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<drain::Error> for ApiError {
    fn from(error: drain::Error) -> Self {
        let (status, code) = match &error {
            drain::Error::NotFound(_) => (StatusCode::NOT_FOUND, "worker_not_found"),
            drain::Error::Ambiguous { .. } => (StatusCode::CONFLICT, "worker_ambiguous"),
            drain::Error::Write { .. } => return Self::unavailable(&error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<accounts::Error> for ApiError {
    fn from(error: accounts::Error) -> Self {
        use accounts::Error as E;
        let (status, code) = match &error {
            E::BadName(_) | E::Expired => (StatusCode::BAD_REQUEST, "bad_request"),
            E::OrganizationExists(_) | E::KeyExists(_) => (StatusCode::CONFLICT, "name_taken"),
            E::NoOrganization(_) => (StatusCode::NOT_FOUND, "organization_not_found"),
            E::NoKey(_) => (StatusCode::NOT_FOUND, "api_key_not_found"),
            E::Write { .. } => return Self::unavailable(&error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<logs::Error> for ApiError {
    fn from(error: logs::Error) -> Self {
        match &error {
            logs::Error::UnknownJob(job) => Self::job_not_found(&job.to_string()),
            logs::Error::Stream { .. }
            | logs::Error::Store { .. }
            | logs::Error::NoAnswer { .. }
            | logs::Error::Incomplete { .. }
            | logs::Error::Interrupted { .. } => Self::unavailable(&error),
            logs::Error::Spool { .. } | logs::Error::Entry { .. } => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Middleware: gives every error answer its body.
pub async fn error_bodies(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let mut headers = response.headers().clone();
    let error = match response.extensions().get::<ApiError>() {
        Some(error) => error.clone(),
        None => foreign(response).await,
    };
    let mut answer = answer(path, error);
    // What is said beside the body stays, such as the methods that there are.
    for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    answer.headers_mut().extend(headers);
    answer
}

/// An error of axum itself: no such route, a body that is not JSON.
async fn foreign(response: Response) -> ApiError {
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 4 << 10).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let (code, fallback) = match status {
        StatusCode::NOT_FOUND => ("not_found", "there is no such endpoint"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "the endpoint has other methods"),
        StatusCode::PAYLOAD_TOO_LARGE => ("payload_too_large", "the request is too large"),
        status if status.is_client_error() => ("bad_request", ""),
        _ => ("error", ""),
    };
    // Daytona's server answers 400 to every body that it cannot read.
    let status = match status {
        StatusCode::UNPROCESSABLE_ENTITY | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            StatusCode::BAD_REQUEST
        }
        other => other,
    };
    let message = if text.is_empty() { fallback.to_owned() } else { text.into_owned() };
    ApiError::new(status, code, message)
}

fn answer(path: String, error: ApiError) -> Response {
    let body = ErrorBody {
        path,
        timestamp: Timestamp::now(),
        status_code: error.status.as_u16(),
        error: error.status.canonical_reason().unwrap_or("Error").to_owned(),
        message: error.message,
        code: Some(error.code.to_owned()),
    };
    let mut response = (error.status, axum::Json(body)).into_response();
    if error.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}
