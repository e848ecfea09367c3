//! What the regions' registries ask: whose a secret is, and that a snapshot was
//! used.
//!
//! Owns both answers. API keys are looked up in the view; push tokens in their
//! bucket, since another replica may have made one a moment ago. Invariant: a
//! push token is no API key, and is good in its region alone.

use jiff::Timestamp;
use slipway_api::own::{AuthorizeRequest, AuthorizeResponse, UsedRequest, UsedResponse};
use slipway_bus::services::{Error, Fault, Request, Service};
use slipway_bus::topology::keys;
use slipway_bus::{Bus, topology};
use slipway_domain::push_token::PushTokenRecord;
use slipway_domain::{OrganizationId, Region, SnapshotId};
use slipway_oci::Digest;

use crate::api::App;
use crate::service::offer;

/// Offers `slipway.used` until it is dropped.
///
/// # Errors
/// It cannot be registered.
pub async fn start(bus: &Bus, app: &App) -> Result<Service, Error> {
    let what = "Notes that a registry gave out a snapshot's manifest";
    let app = app.clone();
    let noted = bus.serve(offer("slipway-used", what, topology::USED), {
        move |request: Request<UsedRequest>| {
            let app = app.clone();
            async move { note(&app, request.body).await }
        }
    });
    noted.await
}

/// Whose a secret is, and what it opens.
pub async fn authorize(app: &App, request: AuthorizeRequest) -> Result<AuthorizeResponse, Fault> {
    let now = Timestamp::now();
    if let Some(answer) = api_key(app, &request.key_hash, now) {
        return Ok(answer);
    }
    let nobody = AuthorizeResponse { organization_id: None, pushes_below: None, expires_at: None };
    let region: Option<Region> = request.region.and_then(|region| region.parse().ok());
    // The hash becomes part of a subject.
    let is_hash = request.key_hash.len() == 64
        && request.key_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (Some(region), true) = (region, is_hash) else { return Ok(nobody) };
    let found = app.push_tokens.get(&keys::push_token(&request.key_hash)).await;
    let found = found.map_err(|error| Fault::new(503, error.to_string()))?;
    let record = found.and_then(|entry| entry.json::<PushTokenRecord>().ok());
    Ok(match record.filter(|record| record.is_valid(&region, now)) {
        Some(record) => AuthorizeResponse {
            organization_id: Some(record.organization.to_string()),
            pushes_below: Some(record.folder),
            expires_at: Some(record.expires_at),
        },
        None => nobody,
    })
}

fn api_key(app: &App, key_hash: &str, now: Timestamp) -> Option<AuthorizeResponse> {
    let accounts = app.view.accounts();
    let record = accounts.api_keys.get(key_hash)?;
    record.is_valid_at(now).then(|| AuthorizeResponse {
        organization_id: Some(record.organization.to_string()),
        pushes_below: None,
        expires_at: record.expires_at,
    })
}

async fn note(app: &App, used: UsedRequest) -> Result<UsedResponse, Fault> {
    let malformed = || Fault::new(400, "organization, region or digest cannot be read");
    let organization: OrganizationId = used.organization_id.parse().map_err(|_| malformed())?;
    let region: Region = used.region.parse().map_err(|_| malformed())?;
    let digest: Digest = used.digest.parse().map_err(|_| malformed())?;
    let concerned: Vec<SnapshotId> = {
        let records = app.view.records();
        let with_image = records.of_image(&digest).map(|entry| entry.value);
        with_image
            .filter(|record| record.organization == organization && record.region == region)
            .map(|record| record.id)
            .collect()
    };
    for id in &concerned {
        let noted = app.ledger.note_use(*id).await;
        noted.map_err(|error| Fault::new(503, error.to_string()))?;
    }
    Ok(UsedResponse { snapshots: concerned.len() as u32 })
}
