//! `/api/docker-registry/registry-push-access`: a secret for pushes, for an hour.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderName, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use slipway_api::types::RegistryPushAccess;
use slipway_bus::topology::keys;
use slipway_domain::Region;
use slipway_domain::organization::{Permission, key_hash};
use slipway_domain::push_token::{FOLDER, LIFETIME_SECONDS, PushTokenRecord};
use uuid::Uuid;

use super::{ApiError, App, Caller};

/// Query of `registry-push-access`.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Where to push; default: the default region.
    region_id: Option<String>,
}

/// A secret for pushes to a region's registry
///
/// A new one each time, good for an hour.
#[utoipa::path(get, path = "/docker-registry/registry-push-access", tag = "registries", params(Wanted), responses((status = 200, body = RegistryPushAccess)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Query(wanted): Query<Wanted>,
) -> Result<([(HeaderName, &'static str); 1], Json<RegistryPushAccess>), ApiError> {
    caller.must_any(&[Permission::WriteSnapshots, Permission::WriteSandboxes])?;
    caller.not_suspended(&app.view)?;
    let region = region(&app, wanted.region_id)?;
    let registry_url = app.view.fleet().registry(&region).map(ToOwned::to_owned);
    let registry_url = registry_url.ok_or_else(|| no_registry(&region))?;
    // Two version 4 UUIDs hold 244 bits of the system's randomness.
    let secret = format!("dtp_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let now = Timestamp::now();
    let record = PushTokenRecord {
        version: 1,
        organization: caller.organization,
        region: region.clone(),
        folder: FOLDER.to_owned(),
        created_at: now,
        expires_at: now + SignedDuration::from_secs(LIFETIME_SECONDS.into()),
    };
    let slot = keys::push_token(&key_hash(&secret));
    let ttl = Duration::from_secs(LIFETIME_SECONDS.into());
    let stored = app.push_tokens.create(&slot, &record, Some(ttl)).await;
    stored.map_err(|error| ApiError::unavailable(&error))?;
    let access = RegistryPushAccess {
        username: "slipway".to_owned(),
        secret,
        registry_url,
        registry_id: region.to_string(),
        project: format!("{}/{FOLDER}", caller.organization),
        expires_at: record.expires_at,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(access)))
}

fn region(app: &App, wanted: Option<String>) -> Result<Region, ApiError> {
    let Some(text) = wanted.filter(|text| !text.is_empty()) else {
        return Ok(app.config.default_region.clone());
    };
    let known = text.parse().ok().filter(|region| app.config.regions.contains_key(region));
    known.ok_or_else(|| {
        let message = format!("Region {text} not found");
        ApiError::new(StatusCode::NOT_FOUND, "region_not_found", message)
    })
}

fn no_registry(region: &Region) -> ApiError {
    let message = format!("No worker serves the registry of region {region} now, try again later");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_worker", message)
}
