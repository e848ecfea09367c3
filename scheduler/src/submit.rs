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
use slipway_oci::{Digest, ImageReference};
use uuid::Uuid;

use crate::api::{ApiError, App};
use crate::ledger::Naming;
use crate::{trace, validate};

/// Checks a request, stores the snapshot, with its job or on one that does the
/// same work already, and wakes a worker. When this returns, both are durable. The
/// snapshot gets `id`, which is new.
///
/// # Errors
/// The request is refused, or it could not be stored; then nothing was.
pub async fn submit(
    app: &App,
    organization: OrganizationId,
    id: SnapshotId,
    request: CreateSnapshot,
) -> Result<SnapshotRecord, ApiError> {
    let now = Timestamp::now();
    let naming = if request.replace { Naming::Replace } else { Naming::Take };
    let valid = check(app, &organization, request, now)?;
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
    let contexts = contexts(app, &snapshot).await;
    let identity = contexts.as_ref().and_then(|seen| {
        let SnapshotRecord { organization, region, class, source, .. } = &snapshot;
        WorkIdentity::of(*organization, region, *class, source, seen)
    });
    let contexts = contexts.unwrap_or_default();
    let job = JobRecord { identity, contexts, ..JobRecord::new(job, now) };
    let snapshot = app.ledger.create(&snapshot, &job, naming).await?;
    tracing::info!(
        job.id = %snapshot.job,
        snapshot.id = %snapshot.id,
        region = %snapshot.region,
        "snapshot submitted"
    );
    Ok(snapshot)
}

/// An id for a snapshot.
#[must_use]
pub fn new_id() -> SnapshotId {
    SnapshotId::from_uuid(Uuid::now_v7())
}

/// What the server sees of each of a build's contexts, whatever its client calls
/// it: what may be shared, and what the worker must find. None if it cannot see
/// them all; the job will say what is missing.
async fn contexts(app: &App, snapshot: &SnapshotRecord) -> Option<Vec<Digest>> {
    let JobSpec::Build(build) = &snapshot.source else { return Some(vec![]) };
    let mut seen = Vec::with_capacity(build.contexts.len());
    for hash in &build.contexts {
        match app.contexts.identity(snapshot.organization, hash).await {
            Ok(context) => seen.push(context?.digest),
            Err(error) => {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(snapshot.id = %snapshot.id, error, "the build is not shared");
                return None;
            }
        }
    }
    Some(seen)
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
    let valid = validate::validate(request, &terms)?;
    drop(accounts);
    in_its_region(app, &valid)?;
    Ok(valid)
}

/// Refuses an image of another region's registry: workers read only that of their own.
fn in_its_region(app: &App, valid: &validate::Valid) -> Result<(), validate::Error> {
    let JobSpec::Pull(pull) = &valid.spec else { return Ok(()) };
    let Ok(image) = pull.image.parse::<ImageReference>() else { return Ok(()) };
    let (host, fleet) = (image.domain(), app.view.fleet());
    match fleet.region_of_registry(host) {
        Some(there) if !fleet.is_registry(&valid.region, host) => {
            Err(validate::Error::ImageElsewhere {
                image: pull.image.clone(),
                region: valid.region.clone(),
                there: there.clone(),
            })
        }
        _ => Ok(()),
    }
}
