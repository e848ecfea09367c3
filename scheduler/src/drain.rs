//! Orders to workers to take no new jobs.
//!
//! Owns the order, a key in the lease bucket of the worker's region, and seeing to it
//! that the worker hears of it. Refuses to know how a worker finishes its jobs.
//! Invariants: an order stays until it is taken back, whatever becomes of the worker;
//! a worker whose sign of life says otherwise is told again until it agrees.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bus, bucket};
use slipway_domain::message::ControlMessage;
use slipway_domain::worker::{DrainRecord, WorkerRecord};
use slipway_domain::{Region, WorkerId};
use slipway_runtime::telemetry;
use tokio_util::sync::CancellationToken;

use crate::view::View;

/// How long whoever orders waits for the worker to say that it has heard.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why an order was not given or taken back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such worker.
    #[error("there is no live worker `{0}`: GET /api/v1/workers lists them")]
    NotFound(String),
    /// Workers of several regions have the name.
    #[error("there is a worker `{id}` in each of {regions}: name the region")]
    Ambiguous {
        /// The name.
        id: String,
        /// The regions.
        regions: String,
    },
    /// NATS cannot be written now.
    #[error("cannot write the order to worker `{worker}`")]
    Write {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: bucket::Error,
    },
}

/// Orders to the workers of all regions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drains {
    bus: Bus,
    view: Arc<View>,
}

impl Drains {
    /// Orders over `bus`.
    #[must_use]
    pub fn new(bus: &Bus, view: Arc<View>) -> Self {
        Self { bus: bus.clone(), view }
    }

    /// Orders a live worker to take no new jobs. Returns when it has heard, or after
    /// a few seconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn order(&self, id: &str, region: Option<&str>) -> Result<(Region, WorkerId), Error> {
        let (region, worker) = self.find(id, region, false)?;
        let leases = self.bus.bucket(&BucketName::Leases(region.clone()));
        let order = DrainRecord { version: 1, ordered_at: Timestamp::now() };
        let stored = leases.put(&keys::drain(&worker), &order, None).await;
        stored.map_err(|source| Error::Write { worker: worker.clone(), source })?;
        tracing::info!(worker.id = %worker, %region, "a worker is to take no new jobs");
        self.view.change_fleet(|fleet| fleet.set_drained(&region, worker.clone(), true));
        self.told(&region, &worker).await;
        Ok((region, worker))
    }

    /// Takes an order back, also one to a worker that is gone. Returns when the worker
    /// has heard, or after a few seconds.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn take_back(&self, id: &str, region: Option<&str>) -> Result<(), Error> {
        let (region, worker) = self.find(id, region, true)?;
        let leases = self.bus.bucket(&BucketName::Leases(region.clone()));
        let (key, failed) = (keys::drain(&worker), |source| {
            let worker = worker.clone();
            Error::Write { worker, source }
        });
        while let Some(order) = leases.get(&key).await.map_err(failed)? {
            match leases.delete(&key, order.revision).await {
                // Somebody else was faster, or ordered it anew.
                Err(error) if error.is_conflict() => {}
                deleted => {
                    deleted.map_err(failed)?;
                    break;
                }
            }
        }
        tracing::info!(worker.id = %worker, %region, "a worker may take jobs again");
        self.view.change_fleet(|fleet| fleet.set_drained(&region, worker.clone(), false));
        self.told(&region, &worker).await;
        Ok(())
    }

    /// The worker that is meant, by its name and maybe its region; `gone` ones with an
    /// order, too.
    fn find(
        &self,
        id: &str,
        region: Option<&str>,
        gone: bool,
    ) -> Result<(Region, WorkerId), Error> {
        let fleet = self.view.fleet();
        let live = fleet.workers().map(|worker| (worker.region.clone(), worker.id.clone()));
        let ordered = fleet.drains().iter().filter(|_| gone).cloned();
        let is_meant = |(of, worker): &(Region, WorkerId)| {
            worker.as_str() == id && region.is_none_or(|region| region == of.as_str())
        };
        let mut found: Vec<_> = live.chain(ordered).filter(is_meant).collect();
        found.sort();
        found.dedup();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some((last, _)), false) => {
                let others = found.iter().map(|(region, _)| region.as_str());
                let regions: Vec<&str> = others.chain([last.as_str()]).collect();
                Err(Error::Ambiguous { id: id.to_owned(), regions: regions.join(", ") })
            }
            (None, _) => Err(Error::NotFound(id.to_owned())),
        }
    }

    /// Tells a worker to look at its order, and waits until its sign of life agrees.
    async fn told(&self, region: &Region, worker: &WorkerId) {
        let mut changes = self.view.changes();
        self.tell(region, worker).await;
        let agrees = async {
            loop {
                changes.borrow_and_update();
                let differs = {
                    let fleet = self.view.fleet();
                    let live = fleet.worker(region, worker);
                    live.is_some_and(|live| differs(live, fleet.is_drained(live)))
                };
                if !differs || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, agrees).await.is_err() {
            tracing::warn!(worker.id = %worker, %region, "a worker does not heed its order yet");
        }
    }

    async fn tell(&self, region: &Region, worker: &WorkerId) {
        let (control, word) = (self.bus.control(), ControlMessage::CheckDrain);
        if let Err(error) = control.publish(region, worker, "drain", &word).await {
            let error = telemetry::chain(&error);
            tracing::debug!(worker.id = %worker, error, "the worker was not told");
        }
    }

    /// Tells workers again that have not heard, every `interval` until shutdown.
    pub async fn run(self, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let remind = async {
            loop {
                ticks.tick().await;
                for (region, worker) in self.deaf() {
                    self.tell(&region, &worker).await;
                }
            }
        };
        shutdown.run_until_cancelled(remind).await;
    }

    /// Live workers that do not do as they are ordered.
    fn deaf(&self) -> Vec<(Region, WorkerId)> {
        let fleet = self.view.fleet();
        let deaf = fleet.workers().filter(|worker| differs(worker, fleet.is_drained(worker)));
        deaf.map(|worker| (worker.region.clone(), worker.id.clone())).collect()
    }
}

/// Whether a worker says of itself something else than it is ordered. One that is
/// about to stop takes no jobs, whatever the order.
const fn differs(worker: &WorkerRecord, drained: bool) -> bool {
    worker.draining != drained && !worker.stopping
}
