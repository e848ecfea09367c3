//! One snapshot of a run, followed over NATS from the request to its end.
//!
//! Invariant: every time counts from when the request was due.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_api::types::Snapshot;
use tokio::time::Instant;

use crate::failures::Failure;
use crate::job;
use crate::observer::Observer;
use crate::run::Run;

/// The beginning of a run, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    pub(crate) begun: Instant,
    begun_at: Timestamp,
}

impl Clock {
    /// A run that begins now.
    pub(crate) fn start() -> Self {
        Self { begun: Instant::now(), begun_at: Timestamp::now() }
    }
}

/// What became of one request.
#[derive(Debug, Default)]
pub(crate) struct Job {
    /// After the beginning.
    pub(crate) due: Duration,
    /// From when it was due to when it was made.
    pub(crate) late: Duration,
    pub(crate) snapshot: Option<String>,
    /// From when it was due to the answer.
    pub(crate) submit: Option<Duration>,
    /// The same until a worker had claimed the job.
    pub(crate) worker: Option<Duration>,
    /// The same until the active snapshot was seen.
    pub(crate) active: Option<Duration>,
    pub(crate) failure: Option<Failure>,
}

/// Who follows: the run, what it sees, and how long it waits.
#[derive(Clone)]
pub(crate) struct Follower {
    pub(crate) run: Run,
    pub(crate) observer: Arc<Observer>,
    /// After this long a job counts as failed.
    pub(crate) limit: Duration,
    pub(crate) clock: Clock,
}

impl Follower {
    /// Makes a request that is due, and returns when its snapshot is over or the run
    /// is stopped.
    pub(crate) async fn follow(
        &self,
        due: Instant,
        request: impl Future<Output = Result<Snapshot, Failure>>,
    ) -> Job {
        let mut job = Job { due: due - self.clock.begun, late: due.elapsed(), ..Job::default() };
        let snapshot = match request.await {
            Ok(snapshot) => snapshot,
            Err(failure) => {
                job.failure = Some(failure);
                return job;
            }
        };
        job.submit = Some(due.elapsed());
        job.snapshot = Some(snapshot.id.clone());
        // Cancel-safe: what is dropped only waits.
        let end = tokio::select! {
            end = tokio::time::timeout(self.limit, self.observer.end(&snapshot.id)) => end.ok(),
            () = self.run.stop().cancelled() => return job,
        };
        match end {
            Some(end) if end.state == "active" => job.active = Some(end.at - due),
            Some(end) => {
                let message = end.message.unwrap_or_else(|| format!("snapshot {}", snapshot.id));
                job.failure = Some(Failure::new("job", &end.state, message));
            }
            None => {
                let message = format!("snapshot {} is not over", snapshot.id);
                job.failure = Some(Failure::new("job", "too slow", message));
            }
        }
        if let (Some(_), Some(id)) = (job.active, &snapshot.job_id) {
            job.worker = self.claimed(id, job.due).await;
        }
        job
    }

    /// By the clocks of worker and client; on one machine they are one.
    async fn claimed(&self, job: &str, due: Duration) -> Option<Duration> {
        let due = self.clock.begun_at + SignedDuration::try_from(due).ok()?;
        Some(job::between(due, self.observer.started(job).await?))
    }
}
