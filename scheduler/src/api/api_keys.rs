//! `/api/api-keys` for one's own organization, and
//! `/api/v1/organizations/{id}/api-keys` for the operator.
//!
//! Invariant: nobody gives a key more than their own key may do, but for the
//! operator.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use slipway_api::account::{ApiKey, CreateApiKey, CreatedApiKey};
use slipway_domain::OrganizationId;
use slipway_domain::organization::{ApiKeyRecord, Permission};

use super::{ApiError, App, Caller, organizations};

/// The key that asks
#[utoipa::path(get, path = "/api-keys/current", tag = "api-keys",
    responses((status = 200, body = ApiKey)))]
pub async fn current(caller: Caller) -> Json<ApiKey> {
    Json(present(&caller.key))
}

/// List the organization's API keys
#[utoipa::path(get, path = "/api-keys", tag = "api-keys",
    responses((status = 200, body = Vec<ApiKey>)))]
pub async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Vec<ApiKey>>, ApiError> {
    caller.must_any(&[Permission::ManageApiKeys, Permission::Admin])?;
    Ok(Json(all(&app, &caller.organization)))
}

/// Make an API key
///
/// Its value is told this once. It may do no more than the key that asks.
#[utoipa::path(post, path = "/api-keys", tag = "api-keys",
    responses((status = 201, body = CreatedApiKey)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(wanted): Json<CreateApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), ApiError> {
    caller.must_any(&[Permission::ManageApiKeys, Permission::Admin])?;
    make(&app, &caller, caller.organization, wanted).await
}

/// Read an API key
#[utoipa::path(get, path = "/api-keys/{name}", tag = "api-keys",
    params(("name" = String, Path, description = "Name of the key")),
    responses((status = 200, body = ApiKey)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ApiKey>, ApiError> {
    caller.must_any(&[Permission::ManageApiKeys, Permission::Admin])?;
    let found = all(&app, &caller.organization).into_iter().find(|key| key.name == name);
    found.map(Json).ok_or_else(|| {
        let message = format!("API key `{name}` not found");
        ApiError::new(StatusCode::NOT_FOUND, "api_key_not_found", message)
    })
}

/// Revoke an API key
///
/// Registries may take it for 10 s more.
#[utoipa::path(delete, path = "/api-keys/{name}", tag = "api-keys",
    params(("name" = String, Path, description = "Name of the key")),
    responses((status = 204, description = "It works no more")))]
pub async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    caller.must_any(&[Permission::ManageApiKeys, Permission::Admin])?;
    app.accounts.revoke_key(caller.organization, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the API keys of an organization
#[utoipa::path(get, path = "/organizations/{id}/api-keys", tag = "operation",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = Vec<ApiKey>)))]
pub async fn list_of(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<ApiKey>>, ApiError> {
    caller.must(Permission::Admin)?;
    let organization = organizations::find(&app, &caller, &id)?;
    Ok(Json(all(&app, &organization.id)))
}

/// Make an API key for an organization
#[utoipa::path(post, path = "/organizations/{id}/api-keys", tag = "operation",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 201, body = CreatedApiKey)))]
pub async fn create_for(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wanted): Json<CreateApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), ApiError> {
    caller.must(Permission::Admin)?;
    let organization = organizations::find(&app, &caller, &id)?;
    make(&app, &caller, organization.id, wanted).await
}

/// Revoke an API key of an organization
#[utoipa::path(delete, path = "/organizations/{id}/api-keys/{name}", tag = "operation",
    params(("id" = String, Path, description = "UUID or name"),
        ("name" = String, Path, description = "Name of the key")),
    responses((status = 204, description = "It works no more")))]
pub async fn revoke_of(
    State(app): State<App>,
    caller: Caller,
    Path((id, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::Admin)?;
    let organization = organizations::find(&app, &caller, &id)?;
    app.accounts.revoke_key(organization.id, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn make(
    app: &App,
    caller: &Caller,
    organization: OrganizationId,
    wanted: CreateApiKey,
) -> Result<(StatusCode, Json<CreatedApiKey>), ApiError> {
    let permissions = wanted.permissions.iter().map(|name| name.parse::<Permission>());
    let permissions = permissions.collect::<Result<Vec<_>, _>>();
    let permissions = permissions.map_err(|error| ApiError::bad_request(error.to_string()))?;
    if caller.must(Permission::Admin).is_err() {
        permissions.iter().try_for_each(|permission| caller.must(*permission))?;
    }
    let made = app.accounts.create_key(organization, &wanted.name, permissions, wanted.expires_at);
    let (value, record) = made.await?;
    tracing::info!(organization.id = %organization, name = record.name, "API key made");
    let created = CreatedApiKey {
        name: record.name.clone(),
        value,
        created_at: record.created_at,
        permissions: names(&record),
        expires_at: record.expires_at,
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// The keys of an organization, newest first.
fn all(app: &App, organization: &OrganizationId) -> Vec<ApiKey> {
    let accounts = app.view.accounts();
    let mut keys: Vec<&ApiKeyRecord> = accounts.keys_of(organization).map(|(_, key)| key).collect();
    keys.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)));
    keys.into_iter().map(present).collect()
}

fn present(record: &ApiKeyRecord) -> ApiKey {
    let hint = if record.hint.is_empty() { "***" } else { &record.hint };
    ApiKey {
        name: record.name.clone(),
        value: hint.to_owned(),
        created_at: record.created_at,
        permissions: names(record),
        last_used_at: None,
        expires_at: record.expires_at,
        user_id: record.organization.to_string(),
    }
}

fn names(record: &ApiKeyRecord) -> Vec<String> {
    record.permissions.iter().map(|permission| permission.as_str().to_owned()).collect()
}
