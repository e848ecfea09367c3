//! An executor that only pretends to work: for load tests, for tests of
//! failures, and to try a fleet out before it has machines.
//!
//! Owns what BuildKit does elsewhere: it takes time, writes a log, fails as
//! often as it is told, and brings a small real image into the region's store
//! by the registry's own code, so that it can be pulled. Everything else (claim,
//! lease, log, reports) is the real worker's. Refuses chance: how a job goes
//! follows from its id and the number of its attempt, so a run can be repeated.

mod config;
mod image;
#[cfg(test)]
mod tests;

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_domain::failure::FailureKind;
use slipway_domain::log::{LogSource, Step, StepStatus};
use slipway_domain::message::JobMessage;
use slipway_domain::spec::JobSpec;
use slipway_domain::{BuiltImage, Failure};
use slipway_oci::Platform;
use slipway_registry::Registry;
use slipway_runtime::telemetry::chain;
use tokio::time::Instant;

use crate::attempt::Executor;
use crate::log::LogSink;

pub use config::{ExecutorFile, File, Plan};
use image::{Image, Parts};

/// Lines that are written between two looks at the clock.
const BURST: Duration = Duration::from_millis(1);

/// Simulates jobs.
#[derive(Debug, Clone)]
pub(crate) struct Simulated {
    pub(crate) plan: Plan,
    /// The region's object store.
    pub(crate) store: Store,
    /// The region's registry over that store.
    pub(crate) registry: Registry,
}

#[async_trait]
impl Executor for Simulated {
    async fn recovered(&self) {}

    async fn execute(&self, job: &JobMessage, log: LogSink) -> Result<BuiltImage, Failure> {
        let fate = Fate::of(&self.plan, job);
        let begun = Instant::now();
        step(&log, StepStatus::Running).await;
        self.write_log(&log, fate.duration).await;
        tokio::time::sleep_until(begun + fate.duration).await;
        if let Some(kind) = fate.failure {
            step(&log, StepStatus::Failed).await;
            return Err(Failure::new(kind, "the simulation was told that some jobs fail"));
        }
        let image = self.publish(job).await?;
        step(&log, StepStatus::Done).await;
        Ok(image)
    }
}

/// How an attempt goes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Fate {
    duration: Duration,
    failure: Option<FailureKind>,
}

impl Fate {
    fn of(plan: &Plan, job: &JobMessage) -> Self {
        // A job that fails does so in every attempt; an outage passes.
        let mut of_job = StdRng::seed_from_u64(seed(job));
        let attempt = u64::from(job.attempt.get());
        let mut of_attempt = StdRng::seed_from_u64(seed(job) ^ (attempt << 32));
        let factor = of_attempt.random_range(-1.0..=1.0);
        let duration = plan.duration.as_secs_f64() + plan.spread.as_secs_f64() * factor;
        let is_outage = of_attempt.random_bool(plan.outages);
        let failure = match of_job.random_bool(plan.failures) {
            _ if is_outage => Some(FailureKind::BuildkitUnavailable),
            true => Some(FailureKind::RunFailed),
            false => None,
        };
        Self { duration: Duration::from_secs_f64(duration.max(0.0)), failure }
    }
}

fn seed(job: &JobMessage) -> u64 {
    let (high, low) = job.job.as_uuid().as_u64_pair();
    high ^ low
}

impl Simulated {
    /// Writes the lines, each when it is due.
    async fn write_log(&self, log: &LogSink, duration: Duration) {
        let (lines, begun) = (self.plan.log_lines, Instant::now());
        let rate = self.plan.log_rate.unwrap_or(lines as f64 / duration.as_secs_f64());
        let mut next = 0;
        while next < lines {
            // Without a duration the rate is infinite, and everything is due.
            let due = (begun.elapsed().as_secs_f64() * rate).floor() as u64;
            let due = if rate.is_finite() { (due + 1).min(lines) } else { lines };
            for number in next..due {
                log.line(LogSource::Stdout, self.line(number)).await;
            }
            next = due.max(next);
            if next < lines {
                let at = Duration::from_secs_f64(next as f64 / rate);
                tokio::time::sleep_until((begun + at).max(Instant::now() + BURST)).await;
            }
        }
    }

    fn line(&self, number: u64) -> String {
        let text = format!("#1 line {number}");
        let missing = self.plan.log_line_bytes.saturating_sub(text.len() + 1);
        if missing == 0 { text } else { format!("{text} {}", ".".repeat(missing)) }
    }

    /// Brings the image into the organization's repository.
    async fn publish(&self, job: &JobMessage) -> Result<BuiltImage, Failure> {
        let (JobSpec::Build(slipway_domain::spec::BuildSpec { platform, .. })
        | JobSpec::Pull(slipway_domain::spec::PullSpec { platform, .. })) = &job.spec;
        let platform: Platform =
            platform.parse().map_err(|error: slipway_oci::error::Platform| {
                Failure::new(FailureKind::JobInvalid, error.to_string())
            })?;
        let labels = [
            ("dev.slipway.job", job.job.to_string()),
            ("dev.slipway.attempt", job.attempt.to_string()),
        ];
        let is_distinct = self.plan.distinct_images;
        let parts = Parts {
            seed: if is_distinct { seed(job) } else { 0 },
            layers: self.plan.layers,
            bytes: self.plan.image_bytes,
            platform: &platform,
            labels: if is_distinct { &labels } else { &[] },
        };
        let image = Image::make(&parts)
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        self.deposit(job, &image).await?;
        Ok(BuiltImage {
            digest: image.digest,
            config_digest: image.manifest.config.digest,
            size: image.manifest.compressed_size(),
            entrypoint: image.config.entrypoint().to_vec(),
            cmd: image.config.cmd().to_vec(),
            layers: self.plan.layers,
            cached_steps: 0,
            total_steps: 1,
        })
    }

    async fn deposit(&self, job: &JobMessage, image: &Image) -> Result<(), Failure> {
        let unavailable = |text| Failure::new(FailureKind::StoreUnavailable, text);
        let repository = Repository {
            organization: *job.organization.as_uuid(),
            name: crate::build::REPOSITORY.parse().expect("the name of the repository is valid"),
        };
        for (blob, bytes) in &image.blobs {
            let known = self.registry.has_blob(&repository, blob).await;
            if known.map_err(|error| unavailable(chain(&error)))? {
                continue;
            }
            let stored = self.store.put_bytes(&ObjectKey::Blob(blob.digest), bytes.clone()).await;
            stored.map_err(|error| unavailable(chain(&error)))?;
            let linked = self.registry.link_blob(&repository, blob).await;
            linked.map_err(|error| unavailable(chain(&error)))?;
        }
        let media_type = slipway_oci::MediaType::OciManifest;
        let bytes = image.manifest_bytes.clone();
        let kept = self.registry.deposit_manifest(&repository, image.digest, media_type, bytes);
        kept.await.map_err(|error| unavailable(chain(&error)))
    }
}

async fn step(log: &LogSink, status: StepStatus) {
    let name = "[1/1] simulated".to_owned();
    log.step(Step { step: 1, name, status, part: None, current: None, total: None }).await;
}
