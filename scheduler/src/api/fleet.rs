//! `/api/v1/workers`, `/api/v1/regions` and the health check.

use axum::Json;
use axum::extract::State;
use slipway_api::account::Health;
use slipway_api::own::{RegionStatus, Worker};
use slipway_domain::job::JobState;
use slipway_domain::worker::{Gpu, WorkerRecord};

use super::{ApiError, App, Caller};

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
    let workers = app.view.fleet().workers().map(worker).collect();
    Json(workers)
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

fn worker(record: &WorkerRecord) -> Worker {
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
        draining: record.draining,
        started_at: record.started_at,
    }
}

fn gpu(record: &WorkerRecord) -> Option<String> {
    record.gpu.as_ref().map(|gpu| match gpu {
        Gpu::Present { name } => name.clone(),
        Gpu::Simulated => "simulated".to_owned(),
    })
}
