//! `/api/docker-registry`, and what Slipway adds to it.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use slipway_api::registries::{CredentialTest, DockerRegistry, KeyRotation, WriteDockerRegistry};
use slipway_domain::credential::RegistryCredentialRecord;
use slipway_domain::organization::Permission;

use super::{ApiError, App, Caller};

/// Store a registry credential
#[utoipa::path(post, path = "/docker-registry", tag = "registries", responses((status = 201, body = DockerRegistry)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(request): Json<WriteDockerRegistry>,
) -> Result<(StatusCode, Json<DockerRegistry>), ApiError> {
    caller.must(Permission::WriteRegistries)?;
    let record = app.registries.create(caller.organization, request).await?;
    Ok((StatusCode::CREATED, Json(present(&record))))
}

/// List registry credentials, newest first
#[utoipa::path(get, path = "/docker-registry", tag = "registries", responses((status = 200, body = Vec<DockerRegistry>)))]
pub async fn list(State(app): State<App>, caller: Caller) -> Json<Vec<DockerRegistry>> {
    Json(app.registries.list(caller.organization).iter().map(present).collect())
}

/// Read a registry credential
#[utoipa::path(get, path = "/docker-registry/{id}", tag = "registries", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = DockerRegistry)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DockerRegistry>, ApiError> {
    let entry = app.registries.find(caller.organization, &id)?;
    Ok(Json(present(&entry.value)))
}

/// Change a registry credential
#[utoipa::path(patch, path = "/docker-registry/{id}", tag = "registries", params(("id" = String, Path, description = "UUID")), responses((status = 200, body = DockerRegistry)))]
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

/// Delete a registry credential
#[utoipa::path(delete, path = "/docker-registry/{id}", tag = "registries", params(("id" = String, Path, description = "UUID")), responses((status = 204, description = "It is gone")))]
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
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Where {
    /// The region in which to try; any if absent.
    region: Option<String>,
}

/// Have a worker try a registry credential
#[utoipa::path(post, path = "/registry-credentials/{id}/test", tag = "registries", params(("id" = String, Path, description = "UUID or name"), Where), responses((status = 200, body = CredentialTest)))]
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

/// Give a region a new key
#[utoipa::path(post, path = "/regions/{region}/rotate-key", tag = "registries", params(("region" = String, Path, description = "Region")), responses((status = 200, body = KeyRotation)))]
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
