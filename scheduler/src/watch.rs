//! Watches: what keeps the view up to date, and what notices lost leases.

use slipway_bus::bucket::{Change, Watch};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bus, bucket};
use slipway_domain::job::{JobEvent, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::message::{EventMessage, WorkerEvent};
use slipway_domain::organization::{ApiKeyRecord, OrganizationRecord};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Attempt, JobId, Region, WorkerId};
use tokio::sync::{mpsc, oneshot};

use crate::calm::{Calm, Graces};
use crate::events;
use crate::ledger::Ledger;
use crate::view::View;

/// Follows a bucket for ever and hands each change to `apply`. `ready` is told when
/// the first state is complete.
pub async fn follow(
    mut watch: Watch,
    ready: oneshot::Sender<()>,
    mut apply: impl FnMut(Change),
) -> Result<(), bucket::Error> {
    let mut ready = Some(ready);
    loop {
        match watch.next().await? {
            Change::Ready => {
                // Nobody waits any more after the start, or when stopping.
                let _told = ready.take().map(|ready| ready.send(()));
            }
            change => apply(change),
        }
    }
}

/// Applies a change of the bucket `organizations`.
pub fn apply_organization(view: &View, change: Change) {
    let mut accounts = view.accounts_mut();
    match change {
        Change::Put(entry) => match entry.json::<OrganizationRecord>() {
            Ok(record) => {
                accounts.put_organization(record, entry.revision);
            }
            Err(error) => unreadable(&entry.key, &error),
        },
        Change::Deleted { key, revision, .. } => accounts.remove_organization(&key, revision),
        Change::Reset => accounts.clear_organizations(),
        Change::Ready => {}
    }
}

/// Applies a change of the bucket `api_keys`.
pub fn apply_api_key(view: &View, change: Change) {
    let mut accounts = view.accounts_mut();
    match change {
        Change::Put(entry) => match entry.json::<ApiKeyRecord>() {
            Ok(record) => {
                if let Some(hash) = entry.key.strip_prefix(&keys::api_key("")) {
                    accounts.put_api_key(hash, record, entry.revision);
                }
            }
            Err(error) => unreadable(&entry.key, &error),
        },
        Change::Deleted { key, revision, .. } => {
            if let Some(hash) = key.strip_prefix(&keys::api_key("")) {
                accounts.remove_api_key(hash, revision);
            }
        }
        Change::Reset => accounts.clear_api_keys(),
        Change::Ready => {}
    }
}

/// Applies a change of the bucket `registry_credentials`.
pub fn apply_credential(view: &View, change: Change) {
    let mut credentials = view.credentials_mut();
    match change {
        Change::Put(entry) if entry.key.starts_with("credential.") => match entry.json() {
            Ok(record) => credentials.put(record, entry.revision),
            Err(error) => unreadable(&entry.key, &error),
        },
        Change::Put(entry) if entry.key.starts_with("region.") => match entry.json() {
            Ok(record) => credentials.put_keys(record, entry.revision),
            Err(error) => unreadable(&entry.key, &error),
        },
        // Of a newer version.
        Change::Put(_) => {}
        Change::Deleted { key, .. } => match key.split('.').collect::<Vec<_>>()[..] {
            ["credential", _, id] => {
                if let Ok(id) = id.parse() {
                    credentials.removed(&id);
                }
            }
            ["region", region] => {
                if let Ok(region) = region.parse() {
                    credentials.remove_keys(&region);
                }
            }
            _ => {}
        },
        Change::Reset => credentials.clear(),
        Change::Ready => {}
    }
}

/// Says that a record is left out.
pub fn unreadable(key: &str, error: &bucket::Error) {
    let error = slipway_runtime::telemetry::chain(error);
    tracing::warn!(key, error, "a record cannot be read and is left out");
}

/// A claim whose lease is gone, as far as was seen.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The job.
    pub job: JobId,
    /// The claim.
    pub attempt: Attempt,
    /// Who held it.
    pub worker: WorkerId,
}

/// Applies a change of a region's leases; returns the claim that lost its lease,
/// if one did.
pub fn apply_lease(view: &View, graces: &Graces, region: &Region, change: Change) -> Option<Loss> {
    match change {
        Change::Put(entry) => {
            if let Some(job) = entry.key.strip_prefix("job.") {
                let job: JobId = job.parse().ok()?;
                let lease: Lease =
                    entry.json().inspect_err(|error| unreadable(&entry.key, error)).ok()?;
                let before = view.change_fleet(|fleet| fleet.put_lease(region, job, lease.clone()));
                return before.filter(|before| *before != lease).and_then(|lease| loss(job, lease));
            }
            if let Some(worker) = entry.key.strip_prefix("drain.") {
                let worker = worker.parse().ok()?;
                view.change_fleet(|fleet| fleet.set_drained(region, worker, true));
                return None;
            }
            let worker: WorkerRecord =
                entry.json().inspect_err(|error| unreadable(&entry.key, error)).ok()?;
            graces.learn(&worker);
            view.change_fleet(|fleet| fleet.put_worker(worker));
            None
        }
        Change::Deleted { key, .. } => {
            if let Some(job) = key.strip_prefix("job.") {
                let job: JobId = job.parse().ok()?;
                let lease = view.change_fleet(|fleet| fleet.remove_lease(&job))?;
                return loss(job, lease);
            }
            if let Some(worker) = key.strip_prefix("drain.") {
                let worker = worker.parse().ok()?;
                view.change_fleet(|fleet| fleet.set_drained(region, worker, false));
                return None;
            }
            let worker = key.strip_prefix("worker.")?.parse().ok()?;
            tracing::warn!(worker.id = %worker, region = %region, "a worker is gone");
            view.change_fleet(|fleet| fleet.remove_worker(region, &worker));
            None
        }
        Change::Reset => {
            view.change_fleet(|fleet| fleet.clear(region));
            None
        }
        Change::Ready => None,
    }
}

fn loss(job: JobId, lease: Lease) -> Option<Loss> {
    match lease {
        Lease::Held { attempt, worker } => Some(Loss { job, attempt, worker }),
        Lease::Closed { .. } => None,
    }
}

/// Looks into every loss of a region, each when holders have had their grace.
pub async fn lose_leases(
    bus: &Bus,
    ledger: &Ledger,
    view: &View,
    calm: &Calm,
    region: &Region,
    mut losses: mpsc::UnboundedReceiver<Loss>,
) {
    while let Some(loss) = losses.recv().await {
        calm.wait(region).await;
        lease_lost(bus, ledger, view, &loss).await;
    }
}

/// Tells the ledger that a claim lost its lease, if the leader agrees: what was
/// seen may be older than the claim itself. A claim that had reported its end
/// before is not lost, even if nobody has read the report yet.
pub async fn lease_lost(bus: &Bus, ledger: &Ledger, view: &View, loss: &Loss) {
    if let Err(error) = try_lease_lost(bus, ledger, view, loss).await {
        // The reconciler sees the same, later.
        let error = slipway_runtime::telemetry::chain(&*error);
        tracing::warn!(job.id = %loss.job, error, "a lost lease could not be looked into");
    }
}

async fn try_lease_lost(
    bus: &Bus,
    ledger: &Ledger,
    view: &View,
    loss: &Loss,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let Loss { job, attempt, worker } = loss;
    let Some(record) = view.records().job(job).map(|entry| entry.value) else {
        return Ok(());
    };
    let waiting = match &record.state {
        JobState::Running { attempt: running, .. } if running == attempt => false,
        JobState::Queued { attempt: waiting, .. } if *waiting == attempt.number => true,
        JobState::Running { .. }
        | JobState::Queued { .. }
        | JobState::Succeeded { .. }
        | JobState::Failed { .. }
        | JobState::Cancelled
        | JobState::Dead { .. } => return Ok(()),
    };
    let leases = bus.bucket(&BucketName::Leases(record.region.clone()));
    let lease =
        leases.get(&keys::job(job)).await?.map(|entry| entry.json::<Lease>()).transpose()?;
    match lease {
        Some(Lease::Held { attempt: holder, .. }) if holder == *attempt => return Ok(()),
        // Another claim of the attempt that waits is as good as this one was.
        Some(Lease::Held { attempt: holder, .. }) if waiting && holder.number == attempt.number => {
            return Ok(());
        }
        _ => {}
    }
    let last: Option<EventMessage> = bus.events().last(&record.region, worker, *job).await?;
    let event = match last.filter(|event| event.attempt == *attempt) {
        Some(event) if event.event != WorkerEvent::Started => {
            events::job_event(&event, ledger.max_size(job))
        }
        _ => {
            tracing::warn!(job.id = %job, %attempt, worker.id = %worker, "a lease was lost");
            ledger.metrics().lease_lost(&record.region);
            JobEvent::LeaseLost { attempt: *attempt }
        }
    };
    ledger.move_job(*job, event).await?;
    Ok(())
}
