//! `/api/v1/jobs`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use serde::Deserialize;
use slipway_api::own::Job;
use slipway_domain::job::JobRecord;
use slipway_domain::{JobId, LogSeq};

use super::{ApiError, App, Caller, present, sse};

/// Read a job
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = Job)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(present::job(&*find(&app, &caller, &id)?, &app.view)))
}

/// Query of a job's log.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct LogQuery {
    /// Only entries after this sequence number.
    after: Option<u64>,
    /// Whether to wait for what comes; default true.
    follow: Option<bool>,
}

/// The log of a job
///
/// Server-sent events, one per entry, whose id is the entry's sequence number.
/// Resume with the `Last-Event-ID` header (HTML, section 9.2) or with `after`. The
/// last event is `end`.
#[utoipa::path(get, path = "/jobs/{id}/logs", tag = "jobs", params(("id" = String, Path, description = "UUID"), LogQuery), responses((status = 200, body = String, content_type = "text/event-stream")))]
pub async fn logs(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = find(&app, &caller, &id)?;
    let after = match headers.get("last-event-id") {
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let seq = text.parse::<LogSeq>();
            seq.map_err(|_| ApiError::bad_request("`Last-Event-ID` is not a sequence number"))?
        }
        None => query.after.map_or(LogSeq::ZERO, LogSeq::from_u64),
    };
    let entries = app.logs.read(job.id, after, query.follow.unwrap_or(true)).await?;
    let entries = entries.take_until(app.shutdown.cancelled_owned()).boxed();
    Ok(sse::log(app.view.clone(), job.id, entries).into_response())
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<std::sync::Arc<JobRecord>, ApiError> {
    let parsed: JobId = id.parse().map_err(|_| ApiError::job_not_found(id))?;
    let records = app.view.records();
    let entry = records.job(&parsed).filter(|job| job.value.organization == caller.organization);
    Ok(entry.ok_or_else(|| ApiError::job_not_found(id))?.value.clone())
}
