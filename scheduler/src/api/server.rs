//! What clients may know of the server without a key, and the regions.

use axum::Json;
use axum::extract::State;
use slipway_api::account::{Configuration, Oidc, Region};

use super::{App, Caller, organizations};

/// The server's configuration, as far as clients look for it
#[utoipa::path(get, path = "/config", tag = "server", security(()),
    responses((status = 200, body = Configuration)))]
pub async fn config(State(app): State<App>) -> Json<Configuration> {
    let default = app.config.default_snapshots.first().map(|snapshot| snapshot.name.clone());
    Json(Configuration {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        oidc: Oidc::default(),
        linked_accounts_enabled: false,
        announcements: std::collections::BTreeMap::new(),
        proxy_template_url: String::new(),
        proxy_toolbox_url: String::new(),
        default_snapshot: default.unwrap_or_default(),
        dashboard_url: app.public_url.to_string(),
        max_auto_archive_interval: 0,
        maintanance_mode: false,
        environment: "slipway".to_owned(),
    })
}

/// List the regions that the organization may use
#[utoipa::path(get, path = "/regions", tag = "regions",
    responses((status = 200, body = Vec<Region>)))]
pub async fn regions(State(app): State<App>, caller: Caller) -> Json<Vec<Region>> {
    let organization = organizations::record(&app, caller.organization);
    let regions = app.config.regions.keys().filter(|region| organization.may_use(region));
    Json(regions.map(|region| present(&app, region)).collect())
}

/// List the regions of the server
#[utoipa::path(get, path = "/shared-regions", tag = "regions", security(()),
    responses((status = 200, body = Vec<Region>)))]
pub async fn shared_regions(State(app): State<App>) -> Json<Vec<Region>> {
    Json(app.config.regions.keys().map(|region| present(&app, region)).collect())
}

fn present(app: &App, region: &slipway_domain::Region) -> Region {
    Region {
        id: region.to_string(),
        name: region.to_string(),
        region_type: "shared".to_owned(),
        organization_id: None,
        proxy_url: None,
        ssh_gateway_url: None,
        snapshot_manager_url: None,
        otel_endpoint: None,
        created_at: app.started_at,
        updated_at: app.started_at,
    }
}
