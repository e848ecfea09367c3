//! Bodies about organizations, API keys, regions and the server itself, as
//! Daytona's clients read them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A region, as `GET /api/regions` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Region {
    /// What requests call it.
    pub id: String,
    /// What people call it: the same.
    pub name: String,
    /// Always `shared`: regions belong to the server.
    pub region_type: String,
    /// Always null.
    pub organization_id: Option<String>,
    /// Always null.
    pub proxy_url: Option<String>,
    /// Always null.
    pub ssh_gateway_url: Option<String>,
    /// Always null.
    pub snapshot_manager_url: Option<String>,
    /// Always null.
    pub otel_endpoint: Option<String>,
    /// When the server started.
    pub created_at: Timestamp,
    /// When the server started.
    pub updated_at: Timestamp,
}

/// An organization. Keys about sandboxes, sign-on and secrets are there because
/// clients look for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Organization {
    /// UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Always `slipway`.
    pub created_by: String,
    /// Always false.
    pub personal: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was made.
    pub updated_at: Timestamp,
    /// Whether it may make nothing new.
    pub suspended: bool,
    /// Since when.
    pub suspended_at: Option<Timestamp>,
    /// Why.
    pub suspension_reason: Option<String>,
    /// When that ends by itself.
    pub suspended_until: Option<Timestamp>,
    /// Hours after which snapshots of a suspended organization become inactive.
    pub suspension_cleanup_grace_period_hours: u32,
    /// Virtual CPUs of a sandbox.
    pub max_cpu_per_sandbox: u32,
    /// Memory of a sandbox in GiB.
    pub max_memory_per_sandbox: u32,
    /// Disk of a sandbox in GiB.
    pub max_disk_per_sandbox: u32,
    /// Snapshots that are pending, building, pulling or active at once.
    pub snapshot_quota: u32,
    /// Size of a snapshot in GiB.
    pub max_snapshot_size: u32,
    /// Minutes without use after which a snapshot becomes inactive.
    pub snapshot_deactivation_timeout_minutes: u32,
    /// Always false.
    pub sandbox_limited_network_egress: bool,
    /// Requests in a window, if they are limited.
    pub authenticated_rate_limit: Option<u32>,
    /// Always null.
    pub sandbox_create_rate_limit: Option<u32>,
    /// Always null.
    pub sandbox_lifecycle_rate_limit: Option<u32>,
    /// Seconds of such a window.
    pub authenticated_rate_limit_ttl_seconds: Option<u64>,
    /// Always null.
    pub sandbox_create_rate_limit_ttl_seconds: Option<u64>,
    /// Always null.
    pub sandbox_lifecycle_rate_limit_ttl_seconds: Option<u64>,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    pub experimental_config: Option<serde_json::Value>,
    /// Always null.
    #[schema(value_type = Option<Object>)]
    pub otel_config: Option<serde_json::Value>,
    /// Always 0.
    pub secret_quota: u32,
    /// Always 0.
    pub max_secrets_per_sandbox: u32,
    /// Always false.
    pub preview_warning_enabled: bool,
    /// Always false.
    pub sso_enabled: bool,
    /// The region of requests that name none.
    pub default_region_id: String,
    /// The regions that it may use.
    pub region_ids: Vec<String>,
    /// Share of a region's workers among organizations whose jobs wait. Slipway's own.
    pub queue_weight: u32,
    /// Jobs that run at once; any number if null. Slipway's own.
    pub jobs_at_once: Option<u32>,
    /// Limits that differ in a region. Slipway's own.
    pub region_limits: Vec<RegionLimits>,
}

/// Limits of an organization that differ in a region; null where they do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionLimits {
    /// The region.
    pub region: String,
    /// `cpu` or `gpu`; each if null.
    pub class: Option<String>,
    /// Virtual CPUs of a sandbox.
    pub cpu: Option<u32>,
    /// Memory of a sandbox in GiB.
    pub memory: Option<u32>,
    /// Disk of a sandbox in GiB.
    pub disk: Option<u32>,
    /// GPUs in all; 0 refuses snapshots with a GPU.
    pub gpus: Option<u32>,
}

/// What an organization uses of its quotas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrganizationUsage {
    /// Always empty: there are no sandboxes here.
    #[schema(value_type = Vec<Object>)]
    pub region_usage: Vec<serde_json::Value>,
    /// Snapshots that it may have.
    pub total_snapshot_quota: u32,
    /// Snapshots that are pending, building, pulling or active.
    pub current_snapshot_usage: u32,
    /// Always 0.
    pub total_volume_quota: u32,
    /// Always 0.
    pub current_volume_usage: u32,
}

/// An API key, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// Its name, unique in the organization.
    pub name: String,
    /// A few letters of its value.
    pub value: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it may do.
    pub permissions: Vec<String>,
    /// Always null.
    pub last_used_at: Option<Timestamp>,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// The organization once more.
    pub user_id: String,
}

/// `POST /api/api-keys`: a key that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateApiKey {
    /// Its name, unique in the organization.
    pub name: String,
    /// What it may do beyond reading, for example `write:snapshots`.
    #[serde(default)]
    pub permissions: Vec<String>,
    /// When it stops to work; never if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// A new API key. Its value is told this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedApiKey {
    /// Its name.
    pub name: String,
    /// What requests show as a bearer token.
    pub value: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// What it may do.
    pub permissions: Vec<String>,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
}

impl std::fmt::Debug for CreatedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedApiKey").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The organization's id: keys belong to organizations.
    pub id: String,
    /// The organization's name.
    pub name: String,
    /// Always empty.
    pub email: String,
    /// Always false.
    pub email_verified: bool,
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    pub public_keys: Vec<serde_json::Value>,
    /// When the organization was made.
    pub created_at: Timestamp,
}

/// `GET /api/config`: what clients may want to know of the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// The server's version.
    pub version: String,
    /// Empty: there is no sign-on, only API keys.
    pub oidc: Oidc,
    /// Always false.
    pub linked_accounts_enabled: bool,
    /// Always empty.
    pub announcements: BTreeMap<String, String>,
    /// Always empty.
    pub proxy_template_url: String,
    /// Always empty.
    pub proxy_toolbox_url: String,
    /// The first of the default snapshots; empty if there are none.
    pub default_snapshot: String,
    /// The server's own address.
    pub dashboard_url: String,
    /// Always 0.
    pub max_auto_archive_interval: u32,
    /// Always false. (The spelling is the contract's.)
    pub maintanance_mode: bool,
    /// Always `slipway`.
    pub environment: String,
}

/// Sign-on by OpenID Connect, which is not offered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Oidc {
    /// Always empty.
    pub issuer: String,
    /// Always empty.
    pub client_id: String,
    /// Always empty.
    pub audience: String,
}

/// `GET /api/health` and `/api/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`; otherwise the answer is 503.
    pub status: String,
}

/// `PATCH /api/admin/snapshots/{id}/general`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetGeneral {
    /// Whether every organization may use the snapshot.
    pub general: bool,
}

/// `POST /api/v1/organizations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateOrganization {
    /// What people call it; unique on the server.
    pub name: String,
    /// The region of requests that name none; the server's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_region_id: Option<String>,
    /// The regions that it may use; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_ids: Option<Vec<String>>,
}

/// `PATCH /api/v1/organizations/{id or name}/limits`. What is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetLimits {
    /// Forget first what was set before at this place, so that the server's
    /// limits count again.
    #[serde(default)]
    pub reset: bool,
    /// The values are about sandboxes of this region alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// With a region: for this class alone, `cpu` or `gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Virtual CPUs of a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Memory of a sandbox in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Disk of a sandbox in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// With a region: GPUs in all; 0 refuses snapshots with a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Snapshots at once. Not with a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u32>,
    /// Size of a snapshot in GiB. Not with a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_size: Option<u32>,
    /// Share of a region's workers among organizations whose jobs wait, 1 to 1000:
    /// one of weight 3 has three jobs taken for each of one of weight 1. Not with a
    /// region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 1000)]
    pub weight: Option<u32>,
    /// Jobs that run at once, in all regions. Not with a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub jobs_at_once: Option<NonZeroU32>,
    /// Minutes without use after which a snapshot becomes inactive. Not with a
    /// region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_minutes: Option<u32>,
}

/// `POST /api/v1/organizations/{id or name}/suspend`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Suspend {
    /// Why, in words for its people.
    #[serde(default)]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}
