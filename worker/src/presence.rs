//! The worker's sign of life, and the list of what it runs.
//!
//! Owns when it is written: at intervals, and soon after it changed. Invariants:
//! what is written last is how it stands; a job is listed from before its claim to
//! after its end, so a worker that takes none and lists none is idle.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_bus::Bus;
use slipway_bus::topology::{BucketName, keys};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{JobId, message};
use slipway_runtime::telemetry;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::credentials::Vault;
use crate::intake::Intake;

/// Changes within this time after a write are written as one.
const TOGETHER: Duration = Duration::from_millis(100);

/// What the worker says about itself. Clones share it.
#[derive(Debug, Clone)]
pub struct Presence {
    config: Arc<Config>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    buildkit: String,
    registry: String,
    vault: Arc<Vault>,
    started_at: Timestamp,
    /// Jobs, and how many attempts of each are under way here.
    running: watch::Sender<BTreeMap<JobId, u32>>,
}

impl Presence {
    /// A worker that runs nothing yet.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        buildkit: String,
        address: SocketAddr,
        vault: Arc<Vault>,
    ) -> Self {
        let registry = config.advertise.clone().unwrap_or_else(|| address.to_string());
        let inner = Inner {
            buildkit,
            registry,
            vault,
            started_at: Timestamp::now(),
            running: watch::Sender::default(),
        };
        Self { config, inner: Arc::new(inner) }
    }

    /// Lists a job as running until the guard is dropped.
    #[must_use]
    pub fn run(&self, job: JobId) -> Running {
        self.inner.running.send_modify(|running| *running.entry(job).or_default() += 1);
        Running { presence: self.clone(), job }
    }

    fn ended(&self, job: JobId) {
        self.inner.running.send_modify(|running| {
            if let Some(attempts) = running.get_mut(&job) {
                *attempts -= 1;
                if *attempts == 0 {
                    running.remove(&job);
                }
            }
        });
    }

    /// What runs, as it changes.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<BTreeMap<JobId, u32>> {
        self.inner.running.subscribe()
    }

    fn record(&self, intake: &Intake) -> WorkerRecord {
        // Before the list: what is taken after this is not taken, if it is closed.
        let draining = !intake.is_open();
        let running = self.inner.running.borrow().keys().copied().collect();
        WorkerRecord {
            version: 1,
            id: self.config.id.clone(),
            region: self.config.region.clone(),
            classes: self.config.classes.clone(),
            gpu: self.config.gpu.clone(),
            slots: self.config.slots,
            running,
            job_version: message::VERSION,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            buildkit: self.inner.buildkit.clone(),
            registry: self.inner.registry.clone(),
            recipient: self.inner.vault.recipient(),
            draining,
            stopping: intake.is_stopping(),
            lease_seconds: Some(self.config.lease.as_secs()),
            started_at: self.inner.started_at,
        }
    }

    /// Gives signs of life until `over`, when nothing runs any more, and then takes
    /// the last one back.
    pub async fn announce(self, bus: Bus, intake: Intake, over: CancellationToken) {
        let leases = bus.bucket(&BucketName::Leases(self.config.region.clone()));
        let key = keys::worker(&self.config.id);
        let mut last = None;
        let (mut running, mut orders) = (self.running(), intake.orders());
        while !over.is_cancelled() {
            running.mark_unchanged();
            orders.mark_unchanged();
            let is_stopping = intake.is_stopping();
            if over.run_until_cancelled(bus.connected()).await.is_none() {
                break;
            }
            let record = self.record(&intake);
            match leases.put(&key, &record, Some(self.config.lease)).await {
                Ok(revision) => last = Some(revision),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(error, "the sign of life was not stored");
                }
            }
            let written = Instant::now();
            // Cancel-safe: nothing is lost here, since the whole record is written
            // each time.
            tokio::select! {
                () = tokio::time::sleep(self.config.lease / 3) => {}
                _ = running.changed() => {}
                _ = orders.changed() => {}
                () = intake.stops(), if !is_stopping => {}
                () = over.cancelled() => {}
            }
            over.run_until_cancelled(tokio::time::sleep_until(written + TOGETHER)).await;
        }
        if let Some(revision) = last
            && let Err(error) = leases.delete(&key, revision).await
        {
            tracing::debug!(error = telemetry::chain(&error), "the sign of life will expire");
        }
    }
}

/// A job that is listed as running.
#[derive(Debug)]
pub struct Running {
    presence: Presence,
    job: JobId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.presence.ended(self.job);
    }
}
