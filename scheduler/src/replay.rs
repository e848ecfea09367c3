//! The watch of the bucket `records`: first everything that is there, then every
//! change.
//!
//! Owns doing so in batches. What has come by now is one batch: it is read and packed
//! on threads of its own while the next one comes in, applied under one lock, and told
//! to those who wait for changes once. A change that comes alone is a batch of one and
//! waits for nothing. Invariant: batches are applied in the order in which they came.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, stream};
use slipway_bus::bucket;
use slipway_bus::bucket::{Change, Entry, Watch};
use slipway_domain::{JobId, SnapshotId};
use tokio::sync::oneshot;
use tokio::task;

use crate::view::{Key, Packers, Ready, Records, View, Watched};
use crate::watch::unreadable;

/// Most changes of a batch: few enough that nobody waits long for the lock.
const BATCH: usize = 1000;
/// Batches that are made ready at once, beside the one that comes in.
const AHEAD: usize = 3;
/// Up to so many changes are read at once, on the spot.
const FEW: usize = 16;

/// What a change asks for.
enum Step {
    Apply(Watched, u64),
    Forget,
    Complete,
}

/// Follows the bucket `records` for ever, by its watch. `ready` is told when the first state is
/// complete; `announce` gets the jobs of snapshots that came and have not heard what
/// their job has to say.
pub async fn follow(
    watch: Watch,
    view: Arc<View>,
    ready: oneshot::Sender<()>,
    announce: impl Fn(JobId),
) -> Result<(), bucket::Error> {
    let mut ready = Some(ready);
    view.change_records(|records| *records = Records::loading());
    let batches = stream::unfold(Some(watch), next);
    let steps = batches.map(|batch| prepared(&view, batch)).buffered(AHEAD);
    let mut steps = std::pin::pin!(steps);
    while let Some(batch) = steps.next().await {
        let mut batch = batch?.into_iter().peekable();
        while let Some(step) = batch.next() {
            match step {
                Step::Apply(change, revision) => {
                    let more = std::iter::from_fn(|| {
                        batch.next_if(|step| matches!(step, Step::Apply(..)))
                    });
                    let changes = more.filter_map(|step| match step {
                        Step::Apply(change, revision) => Some((change, revision)),
                        Step::Forget | Step::Complete => None,
                    });
                    let changes = std::iter::once((change, revision)).chain(changes);
                    apply(&view, changes).into_iter().for_each(&announce);
                }
                Step::Forget => {
                    tracing::error!("NATS lost records: reading everything again");
                    view.change_records(Records::clear);
                }
                Step::Complete => {
                    view.change_records(Records::complete);
                    // Nobody waits any more after the start, or when stopping.
                    let _told = ready.take().map(|ready| ready.send(()));
                }
            }
        }
    }
    Ok(())
}

/// All changes that are there, at least one, and the watch unless it has failed.
async fn next(watch: Option<Watch>) -> Option<(Result<Vec<Change>, bucket::Error>, Option<Watch>)> {
    let mut watch = watch?;
    let mut batch = match watch.next().await {
        Ok(change) => vec![change],
        Err(error) => return Some((Err(error), None)),
    };
    // Cancel-safe: what is not there yet is waited for by the next batch, which also
    // meets an error again.
    while batch.len() < BATCH
        && let Some(Ok(change)) = task::unconstrained(watch.next()).now_or_never()
    {
        batch.push(change);
    }
    Some((Ok(batch), Some(watch)))
}

/// Reads the values of a batch and packs those that rest.
async fn prepared(
    view: &View,
    batch: Result<Vec<Change>, bucket::Error>,
) -> Result<Vec<Step>, bucket::Error> {
    let batch = batch?;
    let packers = view.records().packers();
    let read = move |batch: Vec<Change>| -> Vec<Step> {
        batch.into_iter().filter_map(|change| step(change, &packers)).collect()
    };
    if batch.len() <= FEW {
        return Ok(read(batch));
    }
    match task::spawn_blocking(move || read(batch)).await {
        Ok(steps) => Ok(steps),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime stops.
            Err(_) => Ok(vec![]),
        },
    }
}

fn step(change: Change, packers: &Packers) -> Option<Step> {
    Some(match change {
        Change::Put(entry) => {
            let value = record(&entry, packers)?;
            Step::Apply(Watched::Put(Box::new(value)), entry.revision)
        }
        Change::Deleted { key, revision, .. } => {
            Step::Apply(Watched::Deleted(Key::parse(&key)?), revision)
        }
        Change::Reset => Step::Forget,
        Change::Ready => Step::Complete,
    })
}

/// The value of a record, unless a newer version wrote it in a form unknown here.
fn record(entry: &Entry, packers: &Packers) -> Option<Ready> {
    let key = Key::parse(&entry.key)?;
    let value = entry.read(|json| Ready::read(key, json, packers));
    value.inspect_err(|error| unreadable(&entry.key, error)).ok()
}

/// Applies changes; returns the jobs that owe a word to the snapshots among them.
fn apply(view: &View, changes: impl Iterator<Item = (Watched, u64)>) -> Vec<JobId> {
    let mut came: Vec<(SnapshotId, JobId)> = vec![];
    view.change_records(|records| {
        for (change, revision) in changes {
            if let Watched::Put(value) = &change
                && let Ready::Snapshot(snapshot) = &**value
            {
                came.push((snapshot.outline().id, snapshot.outline().job));
            }
            records.watched(change, revision);
        }
        came.iter().filter_map(|(id, job)| records.behind(id, job)).collect()
    })
}
