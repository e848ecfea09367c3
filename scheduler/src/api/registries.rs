//! `/api/docker-registry`, and what Slipway adds to it.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use slipway_api::registries::{CredentialTest, DockerRegistry, KeyRotation, WriteDockerRegistry};
use slipway_domain::credential::RegistryCredentialRecord;
use slipway_domain::organization::Permission;

use super::{ApiError, App, Caller};

/// `POST /docker-registry`: 201 with the credential, without its password.
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<WriteDockerRegistry>,
) -> Result<(StatusCode, Json<DockerRegistry>), ApiError> {
    caller.must(Permission::WriteRegistries)?;
    let record = app.registries.create(caller.organization, request).await?;
    Ok((StatusCode::CREATED, Json(present(&record))))
}

/// `GET /docker-registry`: newest first.
pub async fn list(State(app): State<App>, caller: Caller) -> Json<Vec<DockerRegistry>> {
    Json(app.registries.list(caller.organization).iter().map(present).collect())
}

/// `GET /docker-registry/{id}`.
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DockerRegistry>, ApiError> {
    let entry = app.registries.find(caller.organization, &id)?;
    Ok(Json(present(&entry.value)))
}

/// `PATCH /docker-registry/{id}`.
pub async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(request): Json<WriteDockerRegistry>,
) -> Result<Json<DockerRegistry>, ApiError> {
    caller.must(Permission::WriteRegistries)?;
    let record = app.registries.update(caller.organization, &id, request).await?;
    Ok(Json(present(&record)))
}

/// `DELETE /docker-registry/{id}`: 204.
pub async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::DeleteRegistries)?;
    app.registries.delete(caller.organization, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Query of `test`.
#[derive(Debug, Deserialize)]
pub struct Where {
    /// The region in which to try; any if absent.
    region: Option<String>,
}

/// `POST /v1/registry-credentials/{id}/test`.
pub async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(place): Query<Where>,
) -> Result<Json<CredentialTest>, ApiError> {
    caller.must(Permission::WriteRegistries)?;
    let region = place.region.as_deref();
    Ok(Json(app.registries.test(caller.organization, &id, region).await?))
}

/// `POST /v1/regions/{region}/rotate-key`.
pub async fn rotate_key(
    State(app): State<App>,
    caller: Caller,
    Path(region): Path<String>,
) -> Result<Json<KeyRotation>, ApiError> {
    caller.must(Permission::WriteRegions)?;
    Ok(Json(app.registries.rotate(&region).await?))
}

fn present(record: &RegistryCredentialRecord) -> DockerRegistry {
    DockerRegistry {
        id: record.id.to_string(),
        name: record.name.clone(),
        url: record.url.to_string(),
        username: record.username.clone(),
        project: record.project.clone(),
        registry_type: "organization".to_owned(),
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}
