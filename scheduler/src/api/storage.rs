//! `/api/object-storage/push-access`: keys for uploads, for an hour.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use slipway_api::storage::StorageAccess;
use slipway_domain::organization::Permission;
use slipway_uploads::AccessError;

use super::{ApiError, App, Caller};

/// Keys for uploads of build contexts
///
/// New ones each time, good for an hour. 503 where no way to upload is configured.
#[utoipa::path(get, path = "/object-storage/push-access", tag = "contexts", responses((status = 200, body = StorageAccess)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
) -> Result<([(HeaderName, &'static str); 1], Json<StorageAccess>), ApiError> {
    caller.must_any(&[Permission::WriteSnapshots, Permission::WriteSandboxes])?;
    caller.not_suspended(&app.view)?;
    let grant = app.uploads.grant(caller.organization, Timestamp::now()).await.map_err(refusal)?;
    let access = StorageAccess {
        access_key: grant.access_key,
        secret: grant.secret.expose_secret().to_owned(),
        session_token: grant.session_token.expose_secret().to_owned(),
        storage_url: grant.url,
        organization_id: caller.organization.to_string(),
        bucket: grant.bucket,
        region: grant.region,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(access)))
}

fn refusal(error: AccessError) -> ApiError {
    match error {
        AccessError::NotConfigured => {
            let message = "Object storage is not configured: its operator sets `uploads` in the \
                           scheduler's configuration";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "storage_not_configured", message)
        }
        AccessError::Sts(error) => {
            tracing::error!(%error, "no keys for uploads can be made");
            let message = "Keys for uploads cannot be made now, try again later; the scheduler's \
                           log says why";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", message)
        }
    }
}
