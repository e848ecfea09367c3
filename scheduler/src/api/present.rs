//! From records to the bodies of answers.

use slipway_api::own;
use slipway_api::types::{BuildInfo, Snapshot};
use slipway_domain::SnapshotId;
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::organization::{GENERAL_REPOSITORY, SNAPSHOTS_REPOSITORY};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};
use slipway_domain::spec::{JobKind, JobSpec};

use crate::queue::{Place, Queue};
use crate::validate::CONTAINER;
use crate::view::{Fleet, View};

/// Bytes of a gibibyte.
const GIB: f64 = (1_u64 << 30) as f64;

/// A snapshot as clients read it. `replaces` is the one that has its name, if that
/// is another. `pending_is_over` is for the one client that
/// takes `pending` for the end of a build: it is shown `building` or `pulling`
/// instead.
#[must_use]
pub fn snapshot(
    record: &SnapshotRecord,
    replaces: Option<SnapshotId>,
    fleet: &Fleet,
    pending_is_over: bool,
) -> Snapshot {
    let image = record.state.image();
    let state = match &record.state {
        SnapshotState::Pending if pending_is_over => match record.source.kind() {
            JobKind::Build => "building",
            JobKind::Pull => "pulling",
        },
        state => state.name(),
    };
    let entrypoint = image.map(|image| {
        let command: Vec<String> = image.entrypoint.iter().chain(&image.cmd).cloned().collect();
        if command.is_empty() { vec!["sleep".into(), "infinity".into()] } else { command }
    });
    let (image_name, chosen) = match &record.source {
        JobSpec::Build(_) => (String::new(), None),
        JobSpec::Pull(spec) => (spec.image.clone(), spec.entrypoint.clone()),
    };
    let reference = image.and_then(|image| {
        let registry = fleet.registry(&record.region)?;
        let repository = if record.general { GENERAL_REPOSITORY } else { SNAPSHOTS_REPOSITORY };
        Some(format!("{registry}/{}/{repository}@{}", record.organization, image.digest))
    });
    Snapshot {
        id: record.id.to_string(),
        organization_id: record.organization.to_string(),
        general: record.general,
        name: record.name.clone(),
        image_name,
        state: state.to_owned(),
        size: image.map(|image| image.size as f64 / GIB),
        entrypoint: chosen.or(entrypoint),
        cpu: record.resources.cpu,
        gpu: record.resources.gpu,
        gpu_type: record.resources.gpu_type.map(|kind| kind.to_string()),
        mem: record.resources.memory,
        disk: record.resources.disk,
        error_reason: record.state.failure().map(|failure| failure.message.clone()),
        created_at: record.created_at,
        updated_at: record.updated_at,
        last_used_at: record.last_used_at,
        source_sandbox_id: None,
        build_info: build_info(record),
        region_ids: vec![record.region.to_string()],
        sandbox_class: CONTAINER.to_owned(),
        reference,
        digest: image.map(|image| image.digest.to_string()),
        replaces: replaces.map(|id| id.to_string()),
        job_id: Some(record.job.to_string()),
    }
}

fn build_info(record: &SnapshotRecord) -> Option<BuildInfo> {
    match &record.source {
        JobSpec::Pull(_) => None,
        JobSpec::Build(spec) => Some(BuildInfo {
            dockerfile_content: spec.dockerfile.clone(),
            context_hashes: spec.contexts.clone(),
            created_at: record.created_at,
            updated_at: record.updated_at,
            snapshot_ref: spec.snapshot_ref(),
        }),
    }
}

/// A job as clients read it.
#[must_use]
pub fn job(record: &JobRecord, view: &View, queue: &Queue) -> own::Job {
    let place = queue.place(record);
    let name = view.records().snapshot(&record.snapshot).map(|entry| entry.value.name.clone());
    let image = match &record.state {
        JobState::Succeeded { image, .. } => Some(image),
        JobState::Queued { .. }
        | JobState::Running { .. }
        | JobState::Failed { .. }
        | JobState::Cancelled
        | JobState::Dead { .. } => None,
    };
    let attempts = record.attempts.iter().map(|attempt| own::Attempt {
        number: attempt.number.get(),
        worker: attempt.worker.as_ref().map(ToString::to_string),
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
        failure: attempt.failure.clone(),
    });
    own::Job {
        id: record.id.to_string(),
        snapshot_id: record.snapshot.to_string(),
        snapshot_name: name.unwrap_or_default(),
        kind: record.kind.as_str().to_owned(),
        region: record.region.to_string(),
        class: record.class.to_string(),
        state: record.state.name().to_owned(),
        waiting: waiting(record, &view.fleet(), place),
        queue_position: place.map(|place| place.ahead as u64 + 1),
        queue_seconds: place.and_then(|place| place.seconds),
        failure: record.state.failure().cloned(),
        attempts: attempts.collect(),
        cached_steps: image.map(|image| image.cached_steps),
        total_steps: image.map(|image| image.total_steps),
        redrives: record.revival.redrives,
        created_at: record.created_at,
        updated_at: record.updated_at,
    }
}

/// Why a job waits that stands at `place`, in words for its owner; `None` if it does
/// not.
#[must_use]
pub fn waiting(record: &JobRecord, fleet: &Fleet, place: Option<Place>) -> Option<String> {
    let JobState::Queued { attempt, not_before } = &record.state else { return None };
    let (region, class) = (&record.region, record.class);
    if fleet.is_outdated(region, class) {
        let text = format!("no worker of class {class} in {region} is new enough: update them");
        return Some(text);
    }
    if !fleet.serves(region, class) {
        return Some(format!("no worker of class {class} in {region}"));
    }
    match (place, not_before) {
        (Some(Place { is_limited: true, .. }), _) => {
            Some("your organization runs as many jobs at once as it may".to_owned())
        }
        (None | Some(Place { ahead: 0, .. }), None) if fleet.has_free_slot(region, class) => None,
        (Some(Place { ahead, seconds, .. }), _) => {
            let before = match ahead {
                0 => String::new(),
                1 => ", behind 1 other job".to_owned(),
                n => format!(", behind {n} other jobs"),
            };
            let about = seconds.map(|seconds| format!(", about {}", about(seconds)));
            let about = about.unwrap_or_default();
            Some(format!("for a free worker of class {class} in {region}{before}{about}"))
        }
        (None, Some(time)) => Some(format!("attempt {attempt} starts at {time:.0}")),
        (None, None) => Some(format!("for a free worker of class {class} in {region}")),
    }
}

/// An estimate as people say it, no finer than it is worth.
fn about(seconds: u64) -> String {
    match seconds {
        0..=60 => format!("{} s", seconds.next_multiple_of(5).max(5)),
        61..=7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}
