//! `/api/snapshots`.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::future::ready;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use slipway_api::types::{CreateSnapshot, ListSnapshots, PaginatedSnapshots, Snapshot, Url};
use slipway_domain::organization::Permission;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{LogSeq, Region};

use super::{ApiError, App, Caller, idempotency, present};
use crate::view::{Listing, Needle, Order, SortKey};
use crate::{activity, logs};

/// Make a snapshot
///
/// From a Dockerfile or from a registry image. The answer comes at once; a worker
/// makes the snapshot from now on. With `replace`, a snapshot that has the name keeps
/// it until the new one is active, and is deleted then; until then the new one is
/// found by its id. With an `Idempotency-Key` the same request can be sent again for a
/// day, and is answered with the snapshot that the first one made.
#[utoipa::path(post, path = "/snapshots", tag = "snapshots", params(("Idempotency-Key" = Option<String>, Header, description = "Names this request: 1 to 255 printable ASCII characters")), responses((status = 200, body = Snapshot)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(request): Json<CreateSnapshot>,
) -> Result<Json<Snapshot>, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let key = headers.get(idempotency::HEADER);
    let record = idempotency::submit(&app, caller.organization, key, request).await?;
    Ok(Json(show(&app, &record, &headers)))
}

/// List snapshots
///
/// The organization's own, then general ones of others.
#[utoipa::path(get, path = "/snapshots", tag = "snapshots", params(ListSnapshots), responses((status = 200, body = PaginatedSnapshots)))]
pub async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ListSnapshots>,
) -> Result<Json<PaginatedSnapshots>, ApiError> {
    let (page, limit) = (query.page.unwrap_or(1), query.limit.unwrap_or(100));
    if page == 0 {
        return Err(ApiError::bad_request("`page` must not be less than 1"));
    }
    if !(1..=200).contains(&limit) {
        return Err(ApiError::bad_request("`limit` must be between 1 and 200"));
    }
    // Slipway makes no snapshots from sandboxes.
    if query.source_sandbox_id.is_some() {
        return Ok(Json(PaginatedSnapshots { items: vec![], total: 0, page, total_pages: 0 }));
    }
    let order = order(&query)?;
    let needle = query.name.as_deref().map(str::to_lowercase);
    let own = caller.organization;
    let organization = app.view.accounts().organizations.get(&own).cloned();
    let start = usize::try_from((page - 1).saturating_mul(limit)).unwrap_or(usize::MAX);
    let pending_is_over = pending_is_over(&headers);
    let look = move || {
        let may_see = |region: &Region| organization.as_ref().is_none_or(|own| own.may_use(region));
        let (name, limit) = (needle.as_deref().map(Needle::new), limit as usize);
        let listing = Listing { order, name, regions: &may_see, start, limit };
        let records = app.view.records();
        let found = records.visible_page(&own, &listing);
        let fleet = app.view.fleet();
        let show = |record: &Arc<SnapshotRecord>| {
            present::snapshot(record, records.replaced_by(record), &fleet, pending_is_over)
        };
        (found.items.iter().map(show).collect(), found.total as u64)
    };
    // A part of a name is looked for in every name, which others need not wait for.
    let (items, total) = if query.name.is_some() { blocking(look).await? } else { look() };
    Ok(Json(PaginatedSnapshots { items, total, page, total_pages: total.div_ceil(limit) }))
}

/// Does on a thread of its own what takes its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => ApiError::unavailable(&std::io::Error::other("the server stops")),
    })
}

/// Read a snapshot
#[utoipa::path(get, path = "/snapshots/{id_or_name}", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded")), responses((status = 200, body = Snapshot)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Path(id_or_name): Path<String>,
) -> Result<Json<Snapshot>, ApiError> {
    let record = {
        let records = app.view.records();
        let entry = records.visible(&caller.organization, &id_or_name);
        entry.ok_or_else(|| ApiError::snapshot_not_found(&id_or_name))?.value
    };
    Ok(Json(show(&app, &record, &headers)))
}

/// Delete a snapshot
///
/// A running build is cancelled.
#[utoipa::path(delete, path = "/snapshots/{id_or_name}", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded")), responses((status = 200, description = "It is being removed")))]
pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id_or_name): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::DeleteSnapshots)?;
    let record = find(&app, &caller, &id_or_name)?;
    if record.general {
        let message = "You cannot delete a general snapshot";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "general_snapshot", message));
    }
    app.ledger.remove(record.id).await?;
    Ok(StatusCode::OK)
}

/// Activate a snapshot
///
/// One that is inactive, because it was not used for long or was deactivated. It is
/// active at once if its image is still there, which it is unless somebody deleted
/// it; else it is made again.
#[utoipa::path(post, path = "/snapshots/{id_or_name}/activate", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded")), responses((status = 200, body = Snapshot)))]
pub async fn activate(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Path(id_or_name): Path<String>,
) -> Result<Json<Snapshot>, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let record = find(&app, &caller, &id_or_name)?;
    if let Some(reason) = activity::activation_refused(&record) {
        return Err(ApiError::bad_request(reason));
    }
    caller.not_suspended(&app.view)?;
    app.activity.activate(&record).await?;
    let record = find(&app, &caller, &record.id.to_string())?;
    Ok(Json(show(&app, &record, &headers)))
}

/// Deactivate a snapshot
///
/// It counts for no quota then, and keeps its image. Deactivating it twice changes
/// nothing.
#[utoipa::path(post, path = "/snapshots/{id_or_name}/deactivate", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded")), responses((status = 204, description = "It is inactive")))]
pub async fn deactivate(
    State(app): State<App>,
    caller: Caller,
    Path(id_or_name): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::WriteSnapshots)?;
    let record = find(&app, &caller, &id_or_name)?;
    if let Some(reason) = activity::deactivation_refused(&record) {
        return Err(ApiError::bad_request(reason));
    }
    app.ledger.deactivate(record.id, |_| true).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where the log of a snapshot is
#[utoipa::path(get, path = "/snapshots/{id_or_name}/build-logs-url", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded")), responses((status = 200, body = Url)))]
pub async fn build_logs_url(
    State(app): State<App>,
    caller: Caller,
    Path(id_or_name): Path<String>,
) -> Result<Json<Url>, ApiError> {
    let record = find(&app, &caller, &id_or_name)?;
    let url = format!("{}/api/snapshots/{}/build-logs", app.public_url, record.id);
    Ok(Json(Url { url }))
}

/// Query of `build-logs`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BuildLogs {
    /// Whether to wait for what comes.
    #[serde(default)]
    follow: bool,
}

/// The log of a snapshot
///
/// Its lines as plain bytes. With `follow=true` the answer ends when the job does.
#[utoipa::path(get, path = "/snapshots/{id_or_name}/build-logs", tag = "snapshots", params(("id_or_name" = String, Path, description = "Name or id, percent-encoded"), BuildLogs), responses((status = 200, body = String, content_type = "application/octet-stream")))]
pub async fn build_logs(
    State(app): State<App>,
    caller: Caller,
    Path(id_or_name): Path<String>,
    Query(query): Query<BuildLogs>,
) -> Result<Response, ApiError> {
    let record = find(&app, &caller, &id_or_name)?;
    let job = record.job;
    let pieces = app.logs.read(job, LogSeq::ZERO, query.follow).await?;
    let lines = pieces.map(move |piece| logs::text(job, &piece?));
    let lines = lines.try_filter(|text| ready(!text.is_empty()));
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-cache")];
    // At shutdown the answer breaks off, so that nobody takes it for whole.
    let shutdown = app.shutdown.clone();
    let broken_off = stream::once(async move {
        shutdown.is_cancelled().then_some(Err(logs::Error::Interrupted { job }))
    });
    let lines = lines.take_until(app.shutdown.cancelled_owned());
    let lines = lines.chain(broken_off.filter_map(ready));
    Ok((headers, Body::from_stream(lines)).into_response())
}

fn show(app: &App, record: &SnapshotRecord, headers: &HeaderMap) -> Snapshot {
    let replaces = app.view.records().replaced_by(record);
    present::snapshot(record, replaces, &app.view.fleet(), pending_is_over(headers))
}

fn find(app: &App, caller: &Caller, id_or_name: &str) -> Result<SnapshotRecord, ApiError> {
    let records = app.view.records();
    let entry = records.find(&caller.organization, id_or_name);
    let entry = entry.ok_or_else(|| ApiError::snapshot_not_found(id_or_name))?;
    Ok((*entry.value).clone())
}

/// The Daytona CLI stops its log reader when it sees `pending`.
fn pending_is_over(headers: &HeaderMap) -> bool {
    headers.get("x-daytona-source").is_some_and(|source| source == "cli")
}

/// How a list is to be sorted.
fn order(query: &ListSnapshots) -> Result<Order, ApiError> {
    let key = match query.sort.as_deref() {
        None | Some("lastUsedAt") => SortKey::LastUsedAt,
        Some("name") => SortKey::Name,
        Some("state") => SortKey::State,
        Some("createdAt") => SortKey::CreatedAt,
        Some(_) => {
            let message = "`sort` must be one of name, state, lastUsedAt, createdAt";
            return Err(ApiError::bad_request(message));
        }
    };
    let descending = match query.order.as_deref() {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(_) => return Err(ApiError::bad_request("`order` must be asc or desc")),
    };
    Ok(Order { key, descending })
}
