//! `kill -9` of workers, two at a time, each with one job.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Plan, tell, until};
use crate::builds::tiny;
use crate::error::Error;
use crate::failures::Failure;
use crate::job::between;
use crate::latency::Latency;
use crate::own::{Server, Worker};
use crate::progress::Progress;
use crate::report::Report;
use crate::run::Run;

/// Workers killed at the same time; as many are left.
const AT_ONCE: usize = 2;
/// Longer than anybody waits: the job ends by being deleted.
const SETTINGS: &str = "slots = 1\n[executor.simulated]\nduration = \"1h\"\nlog_lines = 1\n";
/// Milliseconds.
const TARGET: f64 = 15_000.0;

/// The workers, with the settings that workers have by default.
pub(super) struct Kills<'a> {
    plan: &'a Plan,
    nats: &'a Server,
    run: &'a Run,
    workers: BTreeMap<String, Worker>,
    began: u64,
}

impl<'a> Kills<'a> {
    pub(super) fn new(plan: &'a Plan, nats: &'a Server, run: &'a Run) -> Self {
        Self { plan, nats, run, workers: BTreeMap::new(), began: 0 }
    }

    /// Kills as many as planned, and adds the times to the report.
    pub(super) async fn run(&mut self, report: &mut Report) -> Result<(), Error> {
        let (mut times, progress) = (Latency::default(), Progress::new(self.plan.kills));
        progress.say("killing workers");
        while self.began < self.plan.kills && !self.run.stop().is_cancelled() {
            self.fill().await?;
            let left = usize::try_from(self.plan.kills - self.began).unwrap_or(usize::MAX);
            for killed in self.round(left.min(AT_ONCE)).await {
                match killed {
                    Ok(time) => times.record(time),
                    Err(failure) => report.failures.add(failure),
                }
                progress.at(self.began);
            }
        }
        report.add_latency("killed to running elsewhere", &times);
        if let Some(summary) = times.summary() {
            tell(report, "killed to elsewhere p99", summary.p99, TARGET);
        }
        Ok(())
    }

    /// Starts the workers that are missing.
    async fn fill(&mut self) -> Result<(), Error> {
        for n in 1..=2 * AT_ONCE {
            let name = format!("worker-{n}");
            if !self.workers.contains_key(&name) {
                let worker =
                    self.plan.own.worker((self.nats, self.run.client()), &name, SETTINGS).await?;
                self.workers.insert(name, worker);
            }
        }
        Ok(())
    }

    async fn round(&mut self, count: usize) -> Vec<Result<std::time::Duration, Failure>> {
        let mut asked = vec![];
        for _ in 0..count {
            asked.push(self.run.submit(self.began, None, tiny()).await);
            self.began += 1;
        }
        let mut hurt = vec![];
        for snapshot in asked {
            hurt.push(match snapshot {
                Ok(snapshot) => self.kill(&snapshot).await.map(|at| (snapshot, at)),
                Err(failure) => Err(failure),
            });
        }
        let mut times = vec![];
        for killed in hurt {
            let time = match killed {
                Ok((snapshot, at)) => {
                    let again = until(self.run, &snapshot, self.plan.limit, "kill", |job| {
                        job.attempts.get(1).and_then(|attempt| attempt.started_at)
                    });
                    let again = again.await;
                    // Whatever came of it, the next round begins without it.
                    let gone = self.run.delete_id(&snapshot.id).await;
                    again.and_then(|again| gone.map(|()| between(at, again)))
                }
                Err(failure) => Err(failure),
            };
            times.push(time);
        }
        times
    }

    /// Kills the worker that runs a snapshot's job; says when.
    async fn kill(
        &mut self,
        snapshot: &slipway_api::types::Snapshot,
    ) -> Result<Timestamp, Failure> {
        let worker = until(self.run, snapshot, self.plan.limit, "start", |job| {
            let attempt = job.attempts.first().filter(|_| job.state == "running")?;
            attempt.worker.clone()
        });
        let name = worker.await?;
        let worker = self.workers.remove(&name);
        let worker = worker.ok_or_else(|| Failure::new("kill", "unknown", name))?;
        let at = Timestamp::now();
        worker.kill().await;
        Ok(at)
    }
}
