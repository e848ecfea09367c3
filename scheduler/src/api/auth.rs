//! Who calls: API keys as bearer tokens.

use axum::extract::FromRequestParts;
use axum::http::{header, request::Parts};
use jiff::Timestamp;
use slipway_domain::OrganizationId;
use slipway_domain::organization::{Permission, key_hash};

use super::{ApiError, App};
use crate::view::View;

/// The organization that calls, and what its key may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose key it is.
    pub organization: OrganizationId,
    permissions: Vec<Permission>,
}

impl Caller {
    /// Finds the owner of a key's value.
    ///
    /// # Errors
    /// 401 for an unknown or expired key.
    pub fn of_key(view: &View, value: &str, now: Timestamp) -> Result<Self, ApiError> {
        let accounts = view.accounts();
        let record = accounts.api_keys.get(&key_hash(value));
        match record.filter(|record| record.is_valid_at(now)) {
            Some(record) => Ok(Self {
                organization: record.organization,
                permissions: record.permissions.clone(),
            }),
            None => Err(ApiError::unauthorized()),
        }
    }

    /// Requires a permission.
    ///
    /// # Errors
    /// 403 if the key lacks it.
    pub fn must(&self, permission: Permission) -> Result<(), ApiError> {
        if self.permissions.contains(&permission) {
            return Ok(());
        }
        Err(ApiError::forbidden(permission.as_str()))
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let header = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, value) =
            header.and_then(|text| text.split_once(' ')).ok_or_else(ApiError::unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::unauthorized());
        }
        Self::of_key(&app.view, value.trim(), Timestamp::now())
    }
}
