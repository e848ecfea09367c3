//! `/api/v1/workers`, `/api/v1/regions` and the health check.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use slipway_api::account::Health;
use slipway_api::own::{RegionStatus, Worker};
use slipway_domain::job::JobState;
use slipway_domain::organization::Permission;
use slipway_domain::worker::{Gpu, WorkerRecord};

use super::{ApiError, App, Caller};
use crate::drain;
use crate::view::Fleet;

/// Whether the server works
///
/// 503 without NATS.
#[utoipa::path(get, path = "/health", tag = "server", security(()), responses((status = 200, body = Health)))]
pub async fn health(State(app): State<App>) -> Result<Json<Health>, ApiError> {
    app.ledger.check_connected()?;
    Ok(Json(Health { status: "ok".to_owned() }))
}

/// Whether the server can take requests
///
/// 503 without NATS.
#[utoipa::path(get, path = "/health/ready", tag = "server", security(()), responses((status = 200, body = Health)))]
pub async fn ready(state: State<App>) -> Result<Json<Health>, ApiError> {
    health(state).await
}

/// List the workers that are alive
#[utoipa::path(get, path = "/workers", tag = "fleet", responses((status = 200, body = Vec<Worker>)))]
pub async fn workers(State(app): State<App>, _caller: Caller) -> Json<Vec<Worker>> {
    let fleet = app.view.fleet();
    Json(fleet.workers().map(|record| worker(record, &fleet)).collect())
}

/// Query of orders to a worker.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Where {
    /// The worker's region; needed if workers of several regions have the name.
    region: Option<String>,
}

/// Have a worker take no new jobs
///
/// It finishes what it runs. The order stays until it is taken back, also if the
/// worker is started anew.
#[utoipa::path(post, path = "/workers/{id}/drain", tag = "operation",
    params(("id" = String, Path, description = "Name of the worker"), Where),
    responses((status = 200, body = Worker)))]
pub async fn drain_worker(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(place): Query<Where>,
) -> Result<Json<Worker>, ApiError> {
    caller.must(Permission::Admin)?;
    let (region, name) = app.drains.order(&id, place.region.as_deref()).await?;
    let fleet = app.view.fleet();
    let record = fleet.worker(&region, &name);
    let record = record.ok_or_else(|| drain::Error::NotFound(id))?;
    Ok(Json(worker(record, &fleet)))
}

/// Have a worker take jobs again
#[utoipa::path(delete, path = "/workers/{id}/drain", tag = "operation",
    params(("id" = String, Path, description = "Name of the worker"), Where),
    responses((status = 204, description = "There is no order to it any more")))]
pub async fn undrain_worker(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Query(place): Query<Where>,
) -> Result<StatusCode, ApiError> {
    caller.must(Permission::Admin)?;
    app.drains.take_back(&id, place.region.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List the regions with what is going on there
#[utoipa::path(get, path = "/regions", tag = "fleet", responses((status = 200, body = Vec<RegionStatus>)))]
pub async fn regions(State(app): State<App>, _caller: Caller) -> Json<Vec<RegionStatus>> {
    let (records, fleet) = (app.view.records(), app.view.fleet());
    let status = app.config.regions.iter().map(|(region, config)| {
        let workers: Vec<&WorkerRecord> =
            fleet.workers().filter(|worker| worker.region == *region).collect();
        let jobs = |wanted: fn(&JobState) -> bool| {
            let here = records.open_jobs().filter(|job| job.value.region == *region);
            here.filter(|job| wanted(&job.value.state)).count() as u32
        };
        RegionStatus {
            id: region.to_string(),
            default: *region == app.config.default_region,
            classes: config.classes.iter().map(ToString::to_string).collect(),
            workers: workers.len() as u32,
            gpus: workers.iter().filter_map(|worker| gpu(worker)).collect(),
            registry: fleet.registry(region).map(ToOwned::to_owned),
            queued: jobs(|state| matches!(state, JobState::Queued { .. })),
            running: jobs(|state| matches!(state, JobState::Running { .. })),
        }
    });
    Json(status.collect())
}

fn worker(record: &WorkerRecord, fleet: &Fleet) -> Worker {
    Worker {
        id: record.id.to_string(),
        region: record.region.to_string(),
        classes: record.classes.iter().map(ToString::to_string).collect(),
        gpu: gpu(record),
        slots: record.slots,
        running: record.running.len() as u32,
        version: record.software.clone(),
        buildkit: record.buildkit.clone(),
        registry: record.registry.clone(),
        draining: fleet.is_draining(record),
        // By its own word: an order that it has not heard changes nothing yet.
        drained: record.draining && record.running.is_empty(),
        started_at: record.started_at,
    }
}

fn gpu(record: &WorkerRecord) -> Option<String> {
    record.gpu.as_ref().map(|gpu| match gpu {
        Gpu::Present { name } => name.clone(),
        Gpu::Simulated => "simulated".to_owned(),
    })
}
