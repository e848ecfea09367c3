//! `/api/organizations` for members, `/api/v1/organizations` for the operator.
//!
//! Invariant: a key sees its own organization and no other, unless it may
//! operate the server.

use std::num::NonZeroU32;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use slipway_api::account::{
    CreateOrganization, Organization, OrganizationUsage, RegionLimits, SetLimits, Suspend, User,
};
use slipway_domain::organization::{
    OrganizationRecord, Permission, RegionLimits as RegionRecord, SandboxOverrides, Suspension,
};
use slipway_domain::{Class, OrganizationId, Region};

use super::{ApiError, App, Caller};
use crate::limits;
use crate::queue::MAX_WEIGHT;

/// List organizations
///
/// One's own.
#[utoipa::path(get, path = "/organizations", tag = "organizations",
    responses((status = 200, body = Vec<Organization>)))]
pub async fn list(State(app): State<App>, caller: Caller) -> Json<Vec<Organization>> {
    Json(vec![present(&app, &record(&app, caller.organization))])
}

/// Read an organization
#[utoipa::path(get, path = "/organizations/{id}", tag = "organizations",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = Organization)))]
pub async fn read(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Organization>, ApiError> {
    Ok(Json(present(&app, &find(&app, &caller, &id)?)))
}

/// What an organization uses of its quotas
#[utoipa::path(get, path = "/organizations/{id}/usage", tag = "organizations",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = OrganizationUsage)))]
pub async fn usage(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OrganizationUsage>, ApiError> {
    let organization = find(&app, &caller, &id)?;
    let records = app.view.records();
    let used = records.usage(&organization.id).map_or(0, |usage| usage.in_use());
    Ok(Json(OrganizationUsage {
        region_usage: vec![],
        total_snapshot_quota: limits::of(&app.config.limits, Some(&organization)).snapshots,
        current_snapshot_usage: u32::try_from(used).unwrap_or(u32::MAX),
        total_volume_quota: 0,
        current_volume_usage: 0,
    }))
}

/// Who asks
///
/// Keys belong to organizations, so this is the key's organization.
#[utoipa::path(get, path = "/users/me", tag = "organizations",
    responses((status = 200, body = User)))]
pub async fn me(State(app): State<App>, caller: Caller) -> Json<User> {
    let organization = record(&app, caller.organization);
    Json(User {
        id: organization.id.to_string(),
        name: organization.name,
        email: String::new(),
        email_verified: false,
        public_keys: vec![],
        created_at: organization.created_at,
    })
}

/// List every organization
#[utoipa::path(get, path = "/organizations", tag = "operation",
    responses((status = 200, body = Vec<Organization>)))]
pub async fn list_all(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Vec<Organization>>, ApiError> {
    caller.must(Permission::Admin)?;
    let mut records: Vec<_> = app.view.accounts().organizations.values().cloned().collect();
    records.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Json(records.iter().map(|record| present(&app, record)).collect()))
}

/// Make an organization
#[utoipa::path(post, path = "/organizations", tag = "operation", responses((status = 201, body = Organization)))]
pub async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(wanted): Json<CreateOrganization>,
) -> Result<(StatusCode, Json<Organization>), ApiError> {
    caller.must(Permission::Admin)?;
    let default = wanted.default_region_id.map(|name| region(&app, &name)).transpose()?;
    let regions = wanted
        .region_ids
        .map(|names| names.iter().map(|name| region(&app, name)).collect::<Result<Vec<_>, _>>());
    let regions = regions.transpose()?;
    let default_is_allowed = regions.as_ref().is_none_or(|regions| {
        regions.contains(default.as_ref().unwrap_or(&app.config.default_region))
    });
    if !default_is_allowed {
        let message = "The default region must be one of `regionIds`: set `defaultRegionId`";
        return Err(ApiError::bad_request(message));
    }
    let record = app.accounts.create(&wanted.name, |record| {
        record.default_region = default;
        record.regions = regions;
    });
    let record = record.await?;
    tracing::info!(organization.id = %record.id, name = record.name, "organization made");
    Ok((StatusCode::CREATED, Json(present(&app, &record))))
}

/// Set limits of an organization
///
/// For all of it, or for sandboxes in one region. What is absent stays.
#[utoipa::path(patch, path = "/organizations/{id}/limits", tag = "operation",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = Organization)))]
pub async fn set_limits(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wanted): Json<SetLimits>,
) -> Result<Json<Organization>, ApiError> {
    caller.must(Permission::Admin)?;
    let place = place(&app, &wanted)?;
    let record = app.accounts.update(&id, |record| match &place {
        Some((region, class)) => set_in_region(record, region, *class, &wanted),
        None => set_everywhere(record, &wanted),
    });
    Ok(Json(present(&app, &record.await?)))
}

/// Suspend an organization
///
/// It can read and delete, but make nothing new.
#[utoipa::path(post, path = "/organizations/{id}/suspend", tag = "operation",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = Organization)))]
pub async fn suspend(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Json(wanted): Json<Suspend>,
) -> Result<Json<Organization>, ApiError> {
    caller.must(Permission::Admin)?;
    let now = Timestamp::now();
    if wanted.until.is_some_and(|end| end <= now) {
        return Err(ApiError::bad_request("`until` is in the past"));
    }
    let suspension = Suspension { since: now, reason: wanted.reason, until: wanted.until };
    let record = app.accounts.update(&id, |record| record.suspension = Some(suspension.clone()));
    let record = record.await?;
    tracing::info!(organization.id = %record.id, "organization suspended");
    Ok(Json(present(&app, &record)))
}

/// End the suspension of an organization
#[utoipa::path(post, path = "/organizations/{id}/resume", tag = "operation",
    params(("id" = String, Path, description = "UUID or name")),
    responses((status = 200, body = Organization)))]
pub async fn resume(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Organization>, ApiError> {
    caller.must(Permission::Admin)?;
    let record = app.accounts.update(&id, |record| record.suspension = None).await?;
    tracing::info!(organization.id = %record.id, "organization resumed");
    Ok(Json(present(&app, &record)))
}

/// The organization as it is known. A key may be older than its organization's
/// record: then the organization has the server's limits.
pub(super) fn record(app: &App, id: OrganizationId) -> OrganizationRecord {
    let known = app.view.accounts().organizations.get(&id).cloned();
    known.unwrap_or_else(|| OrganizationRecord::new(id, id.to_string(), Timestamp::UNIX_EPOCH))
}

/// An organization that the caller may see.
pub(super) fn find(app: &App, caller: &Caller, id: &str) -> Result<OrganizationRecord, ApiError> {
    let own = record(app, caller.organization);
    if own.id.to_string() == id || own.name == id {
        return Ok(own);
    }
    let found = app.view.accounts().find(id).cloned();
    let may_see = caller.must(Permission::Admin).is_ok();
    found.filter(|_| may_see).ok_or_else(|| {
        let message = format!("Organization with ID or name {id} not found");
        ApiError::new(StatusCode::NOT_FOUND, "organization_not_found", message)
    })
}

fn region(app: &App, name: &str) -> Result<Region, ApiError> {
    let known = name.parse().ok().filter(|region| app.config.regions.contains_key(region));
    known.ok_or_else(|| {
        let message = format!("Region not found: `{name}`");
        ApiError::new(StatusCode::NOT_FOUND, "region_not_found", message)
    })
}

/// Where limits are to be set: everywhere, or in a region, perhaps for a class.
fn place(app: &App, wanted: &SetLimits) -> Result<Option<(Region, Option<Class>)>, ApiError> {
    if wanted.weight.is_some_and(|weight| !(1..=MAX_WEIGHT).contains(&weight)) {
        let message = format!("`weight` must be from 1 to {MAX_WEIGHT}");
        return Err(ApiError::bad_request(message));
    }
    let class = wanted.class.as_deref().map(str::parse::<Class>).transpose();
    let class = class.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let Some(name) = &wanted.region else {
        if class.is_some() || wanted.gpus.is_some() {
            return Err(ApiError::bad_request("`class` and `gpus` need a `region`"));
        }
        return Ok(None);
    };
    let at_once = wanted.jobs_at_once.map(NonZeroU32::get);
    let SetLimits { snapshots, snapshot_size, inactivity_minutes, weight, .. } = wanted;
    let whole = [*snapshots, *snapshot_size, *inactivity_minutes, *weight, at_once];
    if whole.iter().any(Option::is_some) {
        let message = "`snapshots`, `snapshotSize`, `inactivityMinutes`, `weight` and \
                       `jobsAtOnce` are for the whole organization: set them without a `region`";
        return Err(ApiError::bad_request(message));
    }
    Ok(Some((region(app, name)?, class)))
}

fn set_everywhere(record: &mut OrganizationRecord, wanted: &SetLimits) {
    if wanted.reset {
        record.limits = slipway_domain::organization::LimitOverrides::default();
        record.inactivity_minutes = None;
    }
    record.limits.snapshots = wanted.snapshots.or(record.limits.snapshots);
    record.limits.snapshot_size = wanted.snapshot_size.or(record.limits.snapshot_size);
    record.limits.weight = wanted.weight.or(record.limits.weight);
    record.limits.jobs_at_once = wanted.jobs_at_once.or(record.limits.jobs_at_once);
    record.inactivity_minutes = wanted.inactivity_minutes.or(record.inactivity_minutes);
    set_sandbox(&mut record.limits.sandbox, wanted);
}

fn set_in_region(
    record: &mut OrganizationRecord,
    region: &Region,
    class: Option<Class>,
    wanted: &SetLimits,
) {
    let known = |limits: &RegionRecord| limits.region == *region && limits.class == class;
    let before = record.region_limits.iter().find(|limits| known(limits));
    let mut sandbox = before.filter(|_| !wanted.reset).map(|l| l.sandbox).unwrap_or_default();
    set_sandbox(&mut sandbox, wanted);
    record.region_limits.retain(|limits| !known(limits));
    if sandbox != SandboxOverrides::default() {
        record.region_limits.push(RegionRecord { region: region.clone(), class, sandbox });
    }
}

fn set_sandbox(sandbox: &mut SandboxOverrides, wanted: &SetLimits) {
    sandbox.cpu = wanted.cpu.or(sandbox.cpu);
    sandbox.memory = wanted.memory.or(sandbox.memory);
    sandbox.disk = wanted.disk.or(sandbox.disk);
    sandbox.gpus = wanted.gpus.or(sandbox.gpus);
}

fn present(app: &App, record: &OrganizationRecord) -> Organization {
    let limits = limits::of(&app.config.limits, Some(record));
    let suspension =
        record.suspension.as_ref().filter(|_| record.is_suspended_at(Timestamp::now()));
    let rate = app.config.rate_limit;
    let default_region = record.default_region.as_ref().unwrap_or(&app.config.default_region);
    let regions = app.config.regions.keys().filter(|region| record.may_use(region));
    Organization {
        id: record.id.to_string(),
        name: record.name.clone(),
        created_by: "slipway".to_owned(),
        personal: false,
        created_at: record.created_at,
        updated_at: record.created_at,
        suspended: suspension.is_some(),
        suspended_at: suspension.map(|suspension| suspension.since),
        suspension_reason: suspension.map(|suspension| suspension.reason.clone()),
        suspended_until: suspension.and_then(|suspension| suspension.until),
        suspension_cleanup_grace_period_hours: limits::SUSPENSION_GRACE_HOURS,
        max_cpu_per_sandbox: limits.cpu,
        max_memory_per_sandbox: limits.memory,
        max_disk_per_sandbox: limits.disk,
        snapshot_quota: limits.snapshots,
        max_snapshot_size: limits.snapshot_size,
        snapshot_deactivation_timeout_minutes: record
            .inactivity_minutes
            .unwrap_or(limits::INACTIVITY_MINUTES),
        sandbox_limited_network_egress: false,
        authenticated_rate_limit: rate.map(|rate| rate.requests.get()),
        sandbox_create_rate_limit: None,
        sandbox_lifecycle_rate_limit: None,
        authenticated_rate_limit_ttl_seconds: rate.map(|rate| rate.window.as_secs()),
        sandbox_create_rate_limit_ttl_seconds: None,
        sandbox_lifecycle_rate_limit_ttl_seconds: None,
        experimental_config: None,
        otel_config: None,
        secret_quota: 0,
        max_secrets_per_sandbox: 0,
        preview_warning_enabled: false,
        sso_enabled: false,
        default_region_id: default_region.to_string(),
        region_ids: regions.map(ToString::to_string).collect(),
        queue_weight: limits.weight,
        jobs_at_once: limits.jobs_at_once.map(NonZeroU32::get),
        region_limits: record.region_limits.iter().map(region_limits).collect(),
    }
}

fn region_limits(record: &RegionRecord) -> RegionLimits {
    RegionLimits {
        region: record.region.to_string(),
        class: record.class.map(|class| class.to_string()),
        cpu: record.sandbox.cpu,
        memory: record.sandbox.memory,
        disk: record.sandbox.disk,
        gpus: record.sandbox.gpus,
    }
}
