//! Submission: the one way to a new snapshot, whether asked for over HTTP or
//! over NATS.

use jiff::Timestamp;
use slipway_api::types::CreateSnapshot;
use slipway_domain::identity::WorkIdentity;
use slipway_domain::job::{JobRecord, NewJob};
use slipway_domain::snapshot::{NewSnapshot, SnapshotRecord};
use slipway_domain::spec::JobSpec;
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use uuid::Uuid;

use crate::api::{ApiError, App};
use crate::{trace, validate};

/// Checks a request, stores the snapshot, with its job or on one that does the
/// same work already, and wakes a worker. When this returns, both are durable.
///
/// # Errors
/// The request is refused, or it could not be stored; then nothing was.
pub async fn submit(
    app: &App,
    organization: OrganizationId,
    request: CreateSnapshot,
) -> Result<SnapshotRecord, ApiError> {
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
    let identity = identity(app, &snapshot).await;
    let job = JobRecord { identity, ..JobRecord::new(job, now) };
    let snapshot = app.ledger.create(&snapshot, &job).await?;
    tracing::info!(
        job.id = %snapshot.job,
        snapshot.id = %snapshot.id,
        region = %snapshot.region,
        "snapshot submitted"
    );
    Ok(snapshot)
}

/// Under which identity others may share the work, if they may: with what the
/// server saw of each context, whatever its client calls it.
async fn identity(app: &App, snapshot: &SnapshotRecord) -> Option<WorkIdentity> {
    let spec = &snapshot.source;
    let contexts = match spec {
        JobSpec::Build(build) if build.no_cache => return None,
        JobSpec::Build(build) => build.contexts.as_slice(),
        JobSpec::Pull(_) => &[],
    };
    let mut seen = Vec::with_capacity(contexts.len());
    for hash in contexts {
        match app.contexts.identity(snapshot.organization, hash).await {
            Ok(Some(context)) => seen.push(context.digest),
            // The job will say that it is missing.
            Ok(None) => return None,
            Err(error) => {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(snapshot.id = %snapshot.id, error, "the build is not shared");
                return None;
            }
        }
    }
    WorkIdentity::of(snapshot.organization, &snapshot.region, snapshot.class, spec, &seen)
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
