//! Which executor does which kind of job.

use std::sync::Arc;

use async_trait::async_trait;
use slipway_domain::message::JobMessage;
use slipway_domain::spec::JobSpec;
use slipway_domain::{BuiltImage, Failure};

use crate::attempt::Executor;
use crate::build::Builder;
use crate::credentials::{JobCredentials, Vault};
use crate::log::LogSink;
use crate::pull::Puller;
use crate::simulated::Simulated;

/// All executors of a worker.
pub(crate) struct Executors {
    pub(crate) builder: Builder,
    pub(crate) puller: Puller,
    pub(crate) vault: Arc<Vault>,
}

#[async_trait]
impl Executor for Executors {
    async fn recovered(&self) {
        self.builder.recovered().await;
    }

    async fn execute(&self, job: &JobMessage, log: LogSink) -> Result<BuiltImage, Failure> {
        match &job.spec {
            JobSpec::Build(_) => self.builder.execute(job, log).await,
            JobSpec::Pull(spec) => {
                let credentials = JobCredentials::new(self.vault.clone(), job.job);
                let names = &job.registries;
                self.puller.pull(job.organization, spec, names, &credentials, log).await
            }
        }
    }
}

/// Builds are simulated, pulls are real: a worker without BuildKit.
pub(crate) struct SimulatedBuilds {
    pub(crate) simulated: Simulated,
    pub(crate) puller: Puller,
    pub(crate) vault: Arc<Vault>,
}

#[async_trait]
impl Executor for SimulatedBuilds {
    async fn recovered(&self) {}

    async fn execute(&self, job: &JobMessage, log: LogSink) -> Result<BuiltImage, Failure> {
        match &job.spec {
            JobSpec::Build(_) => self.simulated.execute(job, log).await,
            JobSpec::Pull(spec) => {
                let credentials = JobCredentials::new(self.vault.clone(), job.job);
                let names = &job.registries;
                self.puller.pull(job.organization, spec, names, &credentials, log).await
            }
        }
    }
}
