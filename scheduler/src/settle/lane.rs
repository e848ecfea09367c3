//! Which jobs are settled when: each once at a time.
//!
//! Two lanes: what makes a job go on or stop takes a moment and comes first; what
//! closes a job moves its log, and a region whose store or stream is slow holds up
//! only itself. Invariant: a job is in at most one lane at a time; who asks for it
//! meanwhile has it settled once more afterwards.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use slipway_domain::{JobId, Region};
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::{Semaphore, mpsc};

use super::{Error, Left, Settler};

/// Jobs settled at the same time.
const CONCURRENT: usize = 64;
/// Jobs of one region closed at the same time: mostly they wait for its store.
const CLOSING: usize = 16;
/// Pause before settling again what failed.
const RETRY: Duration = Duration::from_secs(2);

impl Settler {
    /// Settles every job announced on `work`, until shutdown.
    pub async fn run(self: Arc<Self>, mut work: mpsc::UnboundedReceiver<JobId>, tasks: Tasks) {
        let mut lane = Lane::default();
        let mut timers = FuturesUnordered::new();
        let mut waiting: HashSet<JobId> = HashSet::new();
        let (closed, mut closings) = mpsc::unbounded_channel::<(JobId, Left)>();
        let limits = self.closing_limits();
        loop {
            // Cancel-safe: receivers and streams lose nothing when dropped.
            let (job, left) = tokio::select! {
                () = tasks.shutdown().cancelled() => return,
                Some(job) = work.recv() => (job, None),
                Some(job) = timers.next() => {
                    waiting.remove(&job);
                    (job, None)
                }
                Some((job, left)) = lane.running.next() => (job, Some(left)),
                Some((job, left)) = closings.recv() => (job, Some(left)),
            };
            match left {
                None => lane.add(job),
                Some(Left::Nothing) => lane.done(job),
                Some(Left::LookAgain(pause)) => {
                    lane.done(job);
                    if waiting.insert(job) {
                        timers.push(async move {
                            tokio::time::sleep(pause).await;
                            job
                        });
                    }
                }
                // It stays busy until it is closed.
                Some(Left::Closing) => {
                    let (settler, closed) = (self.clone(), closed.clone());
                    let limit = self.limit_of(&limits, job);
                    tasks.spawn("close", async move {
                        let _slot = limit.acquire().await;
                        let left = retry_later(job, settler.close(job).await);
                        // The receiver is gone only when the process stops.
                        let _stopping = closed.send((job, left));
                    });
                }
            }
            lane.start(&self);
        }
    }

    /// How many jobs of a region may be closed at the same time.
    fn closing_limits(&self) -> HashMap<Region, Arc<Semaphore>> {
        let regions = self.stores.keys().cloned();
        regions.map(|region| (region, Arc::new(Semaphore::new(CLOSING)))).collect()
    }

    fn limit_of(&self, limits: &HashMap<Region, Arc<Semaphore>>, job: JobId) -> Arc<Semaphore> {
        let region = self.view.records().job(&job).map(|entry| entry.value.region.clone());
        let limit = region.and_then(|region| limits.get(&region).cloned());
        limit.unwrap_or_else(|| Arc::new(Semaphore::new(1)))
    }
}

/// What failed is tried again after a pause.
fn retry_later(job: JobId, outcome: Result<Left, Error>) -> Left {
    outcome.unwrap_or_else(|error| {
        let error = telemetry::chain(&error);
        tracing::warn!(job.id = %job, error, "settling a job failed, trying again");
        Left::LookAgain(RETRY)
    })
}

/// Jobs that are being settled, each once at a time.
#[derive(Default)]
struct Lane {
    running: FuturesUnordered<BoxFuture<'static, (JobId, Left)>>,
    busy: HashSet<JobId>,
    again: HashSet<JobId>,
    queue: VecDeque<JobId>,
}

impl Lane {
    /// Has a job settled, once more if it is being settled now.
    fn add(&mut self, job: JobId) {
        if self.busy.insert(job) {
            self.queue.push_back(job);
        } else {
            self.again.insert(job);
        }
    }

    fn done(&mut self, job: JobId) {
        self.busy.remove(&job);
        if self.again.remove(&job) {
            self.add(job);
        }
    }

    /// Starts what waits, as far as there is room.
    fn start(&mut self, settler: &Arc<Settler>) {
        while self.running.len() < CONCURRENT {
            let Some(job) = self.queue.pop_front() else { return };
            let settler = settler.clone();
            let settle = async move { (job, retry_later(job, settler.settle(job).await)) };
            self.running.push(settle.boxed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_busy_is_settled_once_more_and_not_twice_at_a_time() {
        let mut lane = Lane::default();
        let job = JobId::from_uuid(uuid::Uuid::from_u128(1));
        lane.add(job);
        assert_eq!(lane.queue.pop_front(), Some(job));
        // While it is settled or closed.
        lane.add(job);
        lane.add(job);
        assert!(lane.queue.is_empty());
        lane.done(job);
        assert_eq!(lane.queue, [job]);
        assert_eq!(lane.queue.pop_front(), Some(job));
        lane.done(job);
        assert!(lane.queue.is_empty() && lane.busy.is_empty());
    }
}
