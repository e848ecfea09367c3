//! The worker's sign of life, and the list of what it runs.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use slipway_bus::Bus;
use slipway_bus::topology::{BucketName, keys};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{JobId, message};
use slipway_runtime::telemetry;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::credentials::Vault;

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
    running: Mutex<BTreeSet<JobId>>,
    changed: Notify,
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
            running: Mutex::default(),
            changed: Notify::new(),
        };
        Self { config, inner: Arc::new(inner) }
    }

    /// Lists a job as running until the guard is dropped.
    #[must_use]
    pub fn run(&self, job: JobId) -> Running {
        self.change(|running| running.insert(job));
        Running { presence: self.clone(), job }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<JobId>) -> bool) {
        let mut running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        if change(&mut running) {
            self.inner.changed.notify_one();
        }
    }

    fn record(&self, draining: bool) -> WorkerRecord {
        let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        WorkerRecord {
            version: 1,
            id: self.config.id.clone(),
            region: self.config.region.clone(),
            classes: self.config.classes.clone(),
            gpu: self.config.gpu.clone(),
            slots: self.config.slots,
            running: running.iter().copied().collect(),
            job_version: message::VERSION,
            software: env!("CARGO_PKG_VERSION").to_owned(),
            buildkit: self.inner.buildkit.clone(),
            registry: self.inner.registry.clone(),
            recipient: self.inner.vault.recipient(),
            draining,
            started_at: self.inner.started_at,
        }
    }

    /// Gives signs of life: until shutdown as one that takes jobs, then as one
    /// that does not, and takes the last one back when nothing runs any more.
    pub async fn announce(self, bus: Bus, shutdown: CancellationToken) {
        let leases = bus.bucket(&BucketName::Leases(self.config.region.clone()));
        let key = keys::worker(&self.config.id);
        let mut ticks = tokio::time::interval(self.config.lease / 3);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            let draining = shutdown.is_cancelled();
            if draining && self.is_idle() {
                break;
            }
            match leases.put(&key, &self.record(draining), Some(self.config.lease)).await {
                Ok(revision) => last = Some(revision),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(error, "the sign of life was not stored");
                }
            }
            // Cancel-safe: nothing is lost here, since the whole record is written
            // each time.
            tokio::select! {
                () = shutdown.cancelled(), if !draining => {}
                _ = ticks.tick() => {}
                () = self.inner.changed.notified() => {}
            }
        }
        if let Some(revision) = last
            && let Err(error) = leases.delete(&key, revision).await
        {
            tracing::debug!(error = telemetry::chain(&error), "the sign of life will expire");
        }
    }

    fn is_idle(&self) -> bool {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
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
        let job = self.job;
        self.presence.change(|running| running.remove(&job));
    }
}
