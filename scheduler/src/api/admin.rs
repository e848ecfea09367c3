//! `/api/admin`: what the operator of the server may do.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use slipway_api::account::SetGeneral;
use slipway_api::registries::DockerRegistry;
use slipway_api::types::Snapshot;
use slipway_domain::SnapshotId;
use slipway_domain::organization::Permission;

use super::{ApiError, App, Caller, present};
use crate::images;

/// Let every organization use a snapshot, or its own alone
#[utoipa::path(patch, path = "/admin/snapshots/{id}/general", tag = "operation",
    params(("id" = String, Path, description = "UUID")),
    responses((status = 200, body = Snapshot)))]
pub async fn set_general(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wanted): Json<SetGeneral>,
) -> Result<Json<Snapshot>, ApiError> {
    caller.must(Permission::Admin)?;
    let missing = || ApiError::snapshot_not_found(&id);
    let parsed: SnapshotId = id.parse().map_err(|_| missing())?;
    let known = app.view.records().snapshot(&parsed).map(|entry| entry.value.general);
    known.ok_or_else(missing)?;
    let record = app.ledger.set_general(parsed, wanted.general).await?;
    app.general.look(&record).await.map_err(|error| ApiError::unavailable(&error))?;
    tracing::info!(snapshot.id = %record.id, general = record.general, "general snapshot set");
    let replaces = app.view.records().replaced_by(&record);
    Ok(Json(present::snapshot(&record, replaces, &app.view.fleet(), false)))
}

/// Query of `can-cleanup-image`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Image {
    /// The image's reference, as snapshots show it under `ref`.
    image_name: String,
}

/// Whether no snapshot needs an image
#[utoipa::path(get, path = "/admin/snapshots/can-cleanup-image", tag = "operation", params(Image),
    responses((status = 200, body = bool, content_type = "application/json")))]
pub async fn can_cleanup_image(
    State(app): State<App>,
    caller: Caller,
    Query(image): Query<Image>,
) -> Result<Json<bool>, ApiError> {
    caller.must(Permission::Admin)?;
    if image.image_name.is_empty() {
        return Err(ApiError::bad_request("imageName should not be empty"));
    }
    let records = app.view.records();
    let digest = image.image_name.rsplit_once('@').and_then(|(_, digest)| digest.parse().ok());
    let with_image = digest.iter().flat_map(|digest| records.of_image(digest));
    let needed = with_image.into_iter().any(|entry| images::is_of(&image.image_name, &entry.value));
    Ok(Json(!needed))
}

/// Make a registry the server's default
///
/// Regions keep their images in their own registries, so there is nothing to
/// choose: 501.
#[utoipa::path(post, path = "/admin/docker-registry/{id}/set-default", tag = "operation",
    params(("id" = String, Path, description = "UUID")),
    responses((status = 200, body = DockerRegistry), (status = 501, description = "Not offered")))]
pub async fn set_default_registry(
    caller: Caller,
    Path(_id): Path<String>,
) -> Result<Json<DockerRegistry>, ApiError> {
    caller.must(Permission::Admin)?;
    let message = "Each region keeps its images in its own registry: there is no default to set";
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, "not_offered", message))
}
