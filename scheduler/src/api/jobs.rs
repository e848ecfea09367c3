//! `/api/v1/jobs`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt as _;
use serde::Deserialize;
use slipway_api::own::{Job, JobList, ListJobs};
use slipway_domain::job::JobRecord;
use slipway_domain::organization::Permission;
use slipway_domain::{JobId, LogSeq, OrganizationId};

use super::{ApiError, App, Caller, present, sse};
use crate::operate;
use crate::view::Jobs;

/// Jobs of a page, unless asked otherwise.
const PAGE: u32 = 100;
/// Jobs of a page at most.
const MAX_PAGE: u32 = 1000;
/// The state of jobs that gave up.
const DEAD: &str = "dead";

/// Read a job
#[utoipa::path(get, path = "/jobs/{id}", tag = "jobs", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = Job)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    Ok(Json(present::job(&*find(&app, &caller.organization, &id)?, &app.view, &app.queue)))
}

/// List jobs, newest first
#[utoipa::path(get, path = "/jobs", tag = "jobs", params(ListJobs), responses((status = 200, body = JobList)))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListJobs>,
) -> Result<Json<JobList>, ApiError> {
    page(&app, caller.organization, &query, query.state.as_deref(), |_| true).map(Json)
}

/// List the jobs that gave up, newest first, until they are dropped
#[utoipa::path(get, path = "/jobs/dead", tag = "jobs", params(ListJobs), responses((status = 200, body = JobList)))]
pub async fn dead(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListJobs>,
) -> Result<Json<JobList>, ApiError> {
    if query.state.as_ref().is_some_and(|state| state != DEAD) {
        return Ok(Json(JobList { items: vec![], next: None }));
    }
    page(&app, caller.organization, &query, Some(DEAD), |job| !job.revival.dropped).map(Json)
}

/// Cancel a job; its snapshot stays, in state `error`
#[utoipa::path(post, path = "/jobs/{id}/cancel", tag = "jobs", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = Job)))]
pub async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let job = find(&app, &caller.organization, &id)?;
    operate::cancel(&app, job.id).await?;
    read(State(app), caller, Path(id)).await
}

/// Give a dead job a fresh set of attempts; its snapshot is `pending` again
#[utoipa::path(post, path = "/jobs/{id}/redrive", tag = "jobs", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = Job)))]
pub async fn redrive(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let job = find(&app, &caller.organization, &id)?;
    operate::redrive(&app, &job).await?;
    read(State(app), caller, Path(id)).await
}

/// Take a dead job from the list of the dead
#[utoipa::path(post, path = "/jobs/{id}/drop", tag = "jobs", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = Job)))]
pub async fn discard(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Job>, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let job = find(&app, &caller.organization, &id)?;
    operate::discard(&app, job.id).await?;
    read(State(app), caller, Path(id)).await
}

/// A page of an organization's jobs. Ids are of version 7, so that their order
/// is that of submission.
fn page(
    app: &App,
    organization: OrganizationId,
    query: &ListJobs,
    state: Option<&str>,
    wanted: impl Fn(&JobRecord) -> bool,
) -> Result<JobList, ApiError> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        let message = format!("`limit` must be from 1 to {MAX_PAGE}");
        return Err(ApiError::bad_request(message));
    }
    let after: Option<JobId> =
        query.after.as_deref().map(str::parse).transpose().map_err(|_| {
            ApiError::bad_request("`after` must be the id of a job, as `next` of the page before")
        })?;
    let which = Jobs {
        after,
        state,
        region: query.region.as_deref(),
        // One more tells whether there is another page.
        limit: limit as usize + 1,
    };
    let mut found = app.view.records().jobs_of(&organization, &which, wanted);
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|job| job.id.to_string());
    let items = found.iter().map(|job| present::job(job, &app.view, &app.queue)).collect();
    Ok(JobList { items, next })
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
    let job = find(&app, &caller.organization, &id)?;
    let after = match headers.get("last-event-id") {
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let seq = text.parse::<LogSeq>();
            seq.map_err(|_| ApiError::bad_request("`Last-Event-ID` is not a sequence number"))?
        }
        None => query.after.map_or(LogSeq::ZERO, LogSeq::from_u64),
    };
    let pieces = app.logs.read(job.id, after, query.follow.unwrap_or(true)).await?;
    let pieces = pieces.take_until(app.shutdown.cancelled_owned()).boxed();
    Ok(sse::log(app.view.clone(), app.queue.clone(), job.id, pieces))
}

/// A job of an organization.
pub(crate) fn find(
    app: &App,
    organization: &OrganizationId,
    id: &str,
) -> Result<std::sync::Arc<JobRecord>, ApiError> {
    let parsed: JobId = id.parse().map_err(|_| ApiError::job_not_found(id))?;
    let records = app.view.records();
    let entry = records.job(&parsed).filter(|job| job.value.organization == *organization);
    Ok(entry.ok_or_else(|| ApiError::job_not_found(id))?.value)
}
