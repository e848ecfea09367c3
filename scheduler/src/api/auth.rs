//! Who calls: API keys as bearer tokens.

use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, header, request::Parts};
use jiff::Timestamp;
use slipway_domain::OrganizationId;
use slipway_domain::organization::{ApiKeyRecord, Permission, key_hash};

use super::{ApiError, App};
use crate::validate;
use crate::view::View;

/// The organization that calls, and what its key may do.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose key it is.
    pub organization: OrganizationId,
    /// The key.
    pub key: ApiKeyRecord,
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
            Some(record) => Ok(Self { organization: record.organization, key: record.clone() }),
            None => Err(ApiError::unauthorized()),
        }
    }

    /// Finds the owner of a request's bearer token.
    ///
    /// # Errors
    /// 401 without a valid one.
    pub fn of_headers(view: &View, headers: &HeaderMap) -> Result<Self, ApiError> {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, value) =
            header.and_then(|text| text.split_once(' ')).ok_or_else(ApiError::unauthorized)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::unauthorized());
        }
        Self::of_key(view, value.trim(), Timestamp::now())
    }

    /// Requires a permission.
    ///
    /// # Errors
    /// 403 if the key lacks it.
    pub fn must(&self, permission: Permission) -> Result<(), ApiError> {
        self.must_any(&[permission])
    }

    /// Requires one of several permissions.
    ///
    /// # Errors
    /// 403 if the key has none of them.
    pub fn must_any(&self, permissions: &[Permission]) -> Result<(), ApiError> {
        if permissions.iter().any(|wanted| self.key.permissions.contains(wanted)) {
            return Ok(());
        }
        let names: Vec<&str> = permissions.iter().map(|wanted| wanted.as_str()).collect();
        Err(ApiError::forbidden(&names.join("` or `")))
    }

    /// Requires that the organization is not suspended.
    ///
    /// # Errors
    /// 403 if it is.
    pub fn not_suspended(&self, view: &View) -> Result<(), ApiError> {
        let accounts = view.accounts();
        let organization = accounts.organizations.get(&self.organization);
        Ok(validate::not_suspended(organization, Timestamp::now())?)
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Self::of_headers(&app.view, &parts.headers)
    }
}
