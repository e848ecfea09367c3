//! Submission: the one way to a new snapshot, whether asked for over HTTP or
//! over NATS.

use jiff::Timestamp;
use slipway_api::types::CreateSnapshot;
use slipway_domain::job::{JobRecord, NewJob};
use slipway_domain::snapshot::{NewSnapshot, SnapshotRecord};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use uuid::Uuid;

use crate::api::{ApiError, App};
use crate::{trace, validate};

/// Checks a request, stores snapshot and job, and wakes a worker. When this
/// returns, both are durable.
///
/// # Errors
/// The request is refused, or it could not be stored; then nothing was.
pub async fn submit(
    app: &App,
    organization: OrganizationId,
    request: CreateSnapshot,
) -> Result<(SnapshotRecord, JobRecord), ApiError> {
    let now = Timestamp::now();
    let valid = check(app, &organization, request, now)?;
    let id = SnapshotId::from_uuid(Uuid::now_v7());
    let job = NewJob {
        id: JobId::from_uuid(Uuid::now_v7()),
        organization,
        snapshot: id,
        region: valid.region.clone(),
        class: valid.class,
        kind: valid.spec.kind(),
        trace: Some(trace::begin()),
    };
    let snapshot = NewSnapshot {
        id,
        organization,
        name: valid.name,
        region: valid.region,
        class: valid.class,
        resources: valid.resources,
        source: valid.spec,
        job: job.id,
    };
    let snapshot = SnapshotRecord::new(snapshot, now);
    let job = JobRecord::new(job, now);
    app.ledger.create(&snapshot, &job).await?;
    tracing::info!(
        job.id = %job.id,
        snapshot.id = %snapshot.id,
        region = %job.region,
        "snapshot submitted"
    );
    Ok((snapshot, job))
}

/// Checks a request against what is configured and known.
fn check(
    app: &App,
    organization: &OrganizationId,
    request: CreateSnapshot,
    now: Timestamp,
) -> Result<validate::Valid, validate::Error> {
    let gpus = {
        let fleet = app.view.fleet();
        let gpu = |worker: &WorkerRecord| Some((worker.region.clone(), worker.gpu.clone()?));
        fleet.workers().filter_map(gpu).collect()
    };
    let accounts = app.view.accounts();
    let terms = validate::Terms {
        regions: &app.config.regions,
        default_region: &app.config.default_region,
        limits: &app.config.limits,
        organization: accounts.organizations.get(organization),
        gpus,
        now,
    };
    validate::validate(request, &terms)
}
