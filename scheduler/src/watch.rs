//! Watches: what keeps the view up to date, and what notices lost leases.

use std::sync::Arc;

use slipway_bus::bucket::{Change, Entry};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus, bucket};
use slipway_domain::job::{JobEvent, JobState};
use slipway_domain::lease::Lease;
use slipway_domain::organization::{ApiKeyRecord, OrganizationRecord};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Attempt, JobId, Region};
use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::view::{Key, Value, View, Watched};

/// Follows `bucket` for ever and hands each change to `apply`. `ready` is told
/// when the first state is complete.
pub async fn follow(
    bucket: Bucket,
    ready: oneshot::Sender<()>,
    mut apply: impl FnMut(Change),
) -> Result<(), bucket::Error> {
    let mut ready = Some(ready);
    let mut watch = bucket.watch(None);
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

/// Applies a change of the bucket `records`.
pub fn apply_record(view: &View, change: Change) {
    match change {
        Change::Put(entry) => {
            if let Some(value) = record(&entry) {
                let change = Watched::Put(value);
                view.change_records(|records| records.watched(change, entry.revision));
            }
        }
        Change::Deleted { key, revision, .. } => {
            if let Some(key) = Key::parse(&key) {
                let change = Watched::Deleted(key);
                view.change_records(|records| records.watched(change, revision));
            }
        }
        Change::Reset => {
            tracing::error!("NATS lost records: reading everything again");
            view.change_records(crate::view::Records::clear);
        }
        Change::Ready => {}
    }
}

/// The value of a record, unless a newer version wrote it in a form unknown here.
fn record(entry: &Entry) -> Option<Value> {
    let parsed = match Key::parse(&entry.key)? {
        Key::Snapshot(_) => entry.json().map(Value::Snapshot),
        Key::Job(_) => entry.json().map(Value::Job),
        Key::Name => return None,
    };
    parsed.inspect_err(|error| unreadable(&entry.key, error)).ok()
}

/// Applies a change of the bucket `organizations`.
pub fn apply_organization(view: &View, change: Change) {
    let mut accounts = view.accounts_mut();
    match change {
        Change::Put(entry) => match entry.json::<OrganizationRecord>() {
            Ok(record) => {
                accounts.organizations.insert(record.id, record);
            }
            Err(error) => unreadable(&entry.key, &error),
        },
        Change::Deleted { key, .. } => {
            accounts.organizations.retain(|id, _| keys::organization(id) != key);
        }
        Change::Reset => accounts.organizations.clear(),
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
                    accounts.api_keys.insert(hash.to_owned(), record);
                }
            }
            Err(error) => unreadable(&entry.key, &error),
        },
        Change::Deleted { key, .. } => {
            accounts.api_keys.retain(|hash, _| keys::api_key(hash) != key);
        }
        Change::Reset => accounts.api_keys.clear(),
        Change::Ready => {}
    }
}

fn unreadable(key: &str, error: &bucket::Error) {
    let error = slipway_runtime::telemetry::chain(error);
    tracing::warn!(key, error, "a record cannot be read and is left out");
}

/// Applies a change of a region's leases; returns the claim that lost its lease,
/// if one did.
pub fn apply_lease(view: &View, region: &Region, change: Change) -> Option<(JobId, Attempt)> {
    match change {
        Change::Put(entry) => {
            if let Some(job) = entry.key.strip_prefix("job.") {
                let job: JobId = job.parse().ok()?;
                let lease: Lease =
                    entry.json().inspect_err(|error| unreadable(&entry.key, error)).ok()?;
                let before = view.change_fleet(|fleet| fleet.put_lease(region, job, lease.clone()));
                return superseded(before, &lease).map(|attempt| (job, attempt));
            }
            let worker: WorkerRecord =
                entry.json().inspect_err(|error| unreadable(&entry.key, error)).ok()?;
            view.change_fleet(|fleet| fleet.put_worker(worker));
            None
        }
        Change::Deleted { key, .. } => {
            if let Some(job) = key.strip_prefix("job.") {
                let job: JobId = job.parse().ok()?;
                let lease = view.change_fleet(|fleet| fleet.remove_lease(&job))?;
                return held(&lease).map(|attempt| (job, attempt));
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

/// The claim that a new lease pushed aside.
fn superseded(before: Option<Lease>, now: &Lease) -> Option<Attempt> {
    let before = held(&before?)?;
    (held(now) != Some(before)).then_some(before)
}

fn held(lease: &Lease) -> Option<Attempt> {
    match lease {
        Lease::Held { attempt, .. } => Some(*attempt),
        Lease::Closed { .. } => None,
    }
}

/// Tells the ledger that a claim lost its lease, if the leader agrees: what was
/// seen may be older than the claim itself.
pub async fn lease_lost(
    bus: &Bus,
    ledger: &Arc<Ledger>,
    view: &View,
    job: JobId,
    attempt: Attempt,
) {
    let Some(record) = view.records().job(&job).map(|entry| entry.value.clone()) else { return };
    let concerned = match &record.state {
        JobState::Running { attempt: running, .. } => *running == attempt,
        JobState::Queued { attempt: waiting, .. } => *waiting == attempt.number,
        JobState::Succeeded { .. }
        | JobState::Failed { .. }
        | JobState::Cancelled
        | JobState::Dead { .. } => false,
    };
    if !concerned {
        return;
    }
    let leases = bus.bucket(&BucketName::Leases(record.region.clone()));
    match leases.get(&keys::job(&job)).await {
        Ok(Some(entry)) if entry.json().ok().and_then(|lease| held(&lease)) == Some(attempt) => {}
        Ok(_) => {
            tracing::warn!(job.id = %job, attempt = %attempt, "a lease was lost");
            // A failure is repaired by the reconciler, which sees the same.
            if let Err(error) = ledger.move_job(job, JobEvent::LeaseLost { attempt }).await {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(job.id = %job, error, "a lost lease was not recorded");
            }
        }
        Err(error) => {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(job.id = %job, error, "a lease could not be looked up");
        }
    }
}
