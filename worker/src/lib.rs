//! The worker: takes its region's jobs, runs them, and serves its registry.
//!
//! Owns the life of an attempt, from the claim to the last event, and everything
//! that BuildKit needs on loopback: contexts to read, a registry to push to.
//! Refuses decisions about jobs: it reports, the scheduler decides. Invariant:
//! without a lease nothing is reported, and a worker can be killed at any
//! instant without harm.

mod agent;
mod attempt;
mod authorize;
mod build;
pub mod config;
mod contexts;
mod credentials;
mod drain;
mod executors;
mod intake;
mod lease;
mod log;
mod metrics;
mod names;
mod presence;
mod pull;
mod serve;
mod simulated;
mod slots;
mod sweep;
mod unread;
mod usage;

use std::sync::Arc;

pub use authorize::ApiKeys;
pub use usage::Uses;

use slipway_blobstore::Store;
use slipway_buildkit::{Client, Endpoint, Kind};
use slipway_bus::Credentials;
use slipway_bus::connection::{FOR_EVER, VersionCheck};
use slipway_runtime::Tasks;
use slipway_runtime::telemetry::{ScrapeError, Telemetry};

use agent::Agent;
use attempt::Executor;
use build::Builder;
use config::Config;
use contexts::Contexts;
use credentials::Vault;
use executors::{Executors, SimulatedBuilds};
use metrics::Metrics;
use names::RegistryNames;
use presence::Presence;
use pull::{Limits, Puller};
use simulated::Simulated;

/// Why the worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS cannot be used.
    #[error("cannot connect to NATS")]
    Connect(#[source] slipway_bus::connection::Error),
    /// BuildKit cannot be used.
    #[error("cannot use BuildKit at `{endpoint}`")]
    Buildkit {
        /// Where it should be.
        endpoint: Endpoint,
        /// Why not.
        #[source]
        source: Box<slipway_buildkit::Error>,
    },
    /// An object store cannot be opened.
    #[error("cannot open an object store")]
    Store(#[source] slipway_blobstore::Error),
    /// The registry's address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The identities cannot be read.
    #[error("cannot read the worker's identities")]
    Identities(#[source] slipway_seal::Error),
    /// AWS cannot be spoken to.
    #[error("cannot set up the client of Amazon ECR")]
    Ecr(#[source] slipway_ecr::ConfigError),
    /// Source registries cannot be spoken to.
    #[error("cannot set up the client of source registries")]
    Source(#[source] slipway_source::ConfigError),
    /// The worker cannot be asked to use its identities.
    #[error("cannot offer the service of the worker's identities")]
    Vault(#[source] slipway_bus::services::Error),
    /// Metrics cannot be served.
    #[error("cannot serve metrics")]
    Metrics(#[source] ScrapeError),
    /// The registry cannot be served over TLS.
    #[error("cannot serve the registry over TLS")]
    Tls(#[source] slipway_registry::tls::Error),
    /// Words from the scheduler cannot be heard.
    #[error("cannot listen to the scheduler")]
    Control(#[source] slipway_bus::control::Error),
}

/// Runs the worker until `tasks` drain or are shut down. Returns after what ran was
/// finished, or handed back at the shutdown.
///
/// # Errors
/// It cannot start.
pub async fn run(config: Config, tasks: &Tasks, telemetry: &Telemetry) -> Result<(), Error> {
    let config = Arc::new(config);
    let nats = slipway_bus::Config {
        servers: config.nats.clone(),
        credentials: config.nats_credentials.clone().map_or(Credentials::None, Credentials::File),
        // A worker's permissions name this prefix, and nothing but its region.
        inbox_prefix: Some(format!("_INBOX.{}", config.id)),
        check: VersionCheck::ServerVersion,
        patience: FOR_EVER,
        ..slipway_bus::Config::new("", format!("slipway-worker-{}", config.id))
    };
    let bus = tasks.draining().run_until_cancelled(Box::pin(slipway_bus::connect(&nats))).await;
    let Some(bus) = bus else { return Ok(()) };
    let bus = bus.map_err(Error::Connect)?;
    let metrics = Metrics::new(telemetry.meter());
    Metrics::observe(telemetry.meter(), config.slots, &bus);
    if let Some(address) = config.metrics_listen {
        telemetry.serve_metrics(address, tasks).await.map_err(Error::Metrics)?;
    }
    let store = Store::open(&config.store).map_err(Error::Store)?;
    let contexts = Contexts::new(Store::open(&config.contexts).map_err(Error::Store)?);
    let ecr = slipway_ecr::Ecr::new(config.ecr.clone()).map_err(Error::Ecr)?;
    let vault = Arc::new(Vault::open(&config, &bus, ecr).map_err(Error::Identities)?);
    let registries = slipway_source::Client::new(config.source.clone());
    let registries = registries.map_err(Error::Source)?;
    let server =
        serve::start(&config, &bus, &store, contexts.clone(), telemetry.meter(), tasks).await?;
    let address = server.address;
    sweep::start(config.sweep, store.clone(), tasks);
    let (executor, buildkit): (Arc<dyn Executor>, _) = match &config.executor {
        config::Executor::Buildkit(endpoint) => {
            let (client, buildkit) = connect_buildkit(endpoint).await?;
            let (registries, metrics) = (registries.clone(), metrics.clone());
            let parts = Parts { client, store, contexts, registries, metrics };
            (Arc::new(executors(&config, parts, server, vault.clone())), buildkit)
        }
        config::Executor::Simulated(plan) => {
            let (plan, registry) = (plan.clone(), server.registry);
            let names = RegistryNames::new(&config, address);
            let puller = puller(&config, registries.clone(), &store, &registry, &metrics, names);
            let simulated = Simulated { plan, store, registry };
            let executor = simulating(simulated, puller, vault.clone());
            (executor, "simulated".to_owned())
        }
    };
    tracing::info!(
        worker.id = %config.id,
        region = %config.region,
        buildkit,
        registry = %address,
        "the worker serves"
    );
    // Before the sign of life that announces the key.
    let answers =
        credentials::serve(&bus, &config.region, &config.id, vault.clone(), registries).await;
    let answers = answers.map_err(Error::Vault)?;
    let presence = Presence::new(config.clone(), buildkit, address, vault);
    let agent = Agent::new(config, bus, executor, presence, tasks.clone(), metrics);
    let ended = agent.run().await.map_err(Error::Control);
    answers.stop().await;
    ended
}

/// What the executors of a worker with BuildKit are made of.
struct Parts {
    client: Client,
    store: Store,
    contexts: Contexts,
    registries: slipway_source::Client,
    metrics: Metrics,
}

fn executors(config: &Config, parts: Parts, server: serve::Server, vault: Arc<Vault>) -> Executors {
    let source = parts.registries.clone();
    let names = RegistryNames::new(config, server.address);
    let (store, registry, metrics) = (&parts.store, &server.registry, &parts.metrics);
    let puller = puller(config, parts.registries, store, registry, metrics, names.clone());
    let builder = Builder {
        client: parts.client,
        contexts: parts.contexts,
        store: parts.store,
        address: server.address,
        registry: server.registry,
        names,
        grants: server.grants,
        source,
        vault: vault.clone(),
        metrics: parts.metrics,
    };
    Executors { builder, puller, vault }
}

/// The executor of a worker without BuildKit.
fn simulating(simulated: Simulated, puller: Puller, vault: Arc<Vault>) -> Arc<dyn Executor> {
    if simulated.plan.pulls {
        Arc::new(simulated)
    } else {
        Arc::new(SimulatedBuilds { simulated, puller, vault })
    }
}

fn puller(
    config: &Config,
    source: slipway_source::Client,
    store: &Store,
    registry: &slipway_registry::Registry,
    metrics: &Metrics,
    names: RegistryNames,
) -> Puller {
    let limits = Limits { at_once: config.layers_at_once, ..Limits::default() };
    let (store, registry, metrics) = (store.clone(), registry.clone(), metrics.clone());
    Puller { source, store, registry, names, limits, metrics }
}

async fn connect_buildkit(endpoint: &Endpoint) -> Result<(Client, String), Error> {
    let failed = |source| Error::Buildkit { endpoint: endpoint.clone(), source: Box::new(source) };
    let client = Client::connect(endpoint, None).await.map_err(failed)?;
    let info = client.info().await.map_err(failed)?;
    let kind = match info.kind {
        Kind::Engine => "engine",
        Kind::Standalone => "buildkitd",
    };
    let version = info.version.as_deref().unwrap_or("of unknown version");
    Ok((client, format!("{kind} {version}")))
}
