//! The scheduler: the API, the records, and the decisions about jobs.
//!
//! Owns what a snapshot and a job are and where they stand. Refuses to touch
//! layers or BuildKit: that is the workers' part. Any number of replicas may run
//! at once; every change is a compare-and-set. Invariant: what was answered with
//! success is stored.

mod accounts;
mod activity;
pub mod api;
mod bootstrap;
mod calm;
pub mod config;
mod credentials;
mod drain;
mod events;
mod follow;
mod general;
mod images;
mod ledger;
mod limits;
mod logs;
mod metrics;
mod operate;
mod queue;
mod reconcile;
mod registry;
mod replay;
mod service;
mod settle;
mod submit;
mod trace;
mod validate;
mod view;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_blobstore::Store;
use slipway_bus::connection::FOR_EVER;
use slipway_bus::topology::{BucketName, LOGS_MAX_BYTES, RegionTopology, Topology};
use slipway_bus::{Bus, Credentials, bucket};
use slipway_domain::{JobId, Region};
use slipway_runtime::telemetry::http::Requests;
use slipway_runtime::telemetry::{ScrapeError, Telemetry};
use slipway_runtime::{Tasks, telemetry};
use slipway_uploads::config::Config as Uploads;
use slipway_uploads::door::{self, Door, Listening};
use slipway_uploads::{Access, Contexts, Keys};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use accounts::Accounts;
use activity::Activity;
use api::{App, Limiter};
use config::Config;
use credentials::Registries;
use drain::Drains;
use general::General;
use images::Images;
use ledger::Ledger;
use logs::Logs;
use metrics::Metrics;
use queue::Queue;
use settle::Settler;
use view::View;

/// Pause before streams and buckets are set up again that could not be now.
const ENSURE_AGAIN: Duration = Duration::from_secs(1);

/// Why the scheduler cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS cannot be used.
    #[error("cannot connect to NATS")]
    Connect(#[source] slipway_bus::connection::Error),
    /// Streams and buckets cannot be set up.
    #[error("cannot set up streams and buckets")]
    Ensure(#[source] slipway_bus::ensure::Error),
    /// The first API key cannot be stored.
    #[error("cannot store the bootstrap key")]
    Bootstrap(#[source] bucket::Error),
    /// The owner of the default snapshots cannot be stored.
    #[error("cannot store the organization of the default snapshots")]
    Owner(#[source] accounts::Error),
    /// An object store cannot be opened.
    #[error("cannot open an object store")]
    Store(#[source] slipway_blobstore::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The secret behind the keys for uploads cannot be read or stored.
    #[error("cannot prepare keys for uploads")]
    UploadKeys(#[source] bucket::Error),
    /// The door for uploads cannot be opened.
    #[error("cannot open the door for uploads")]
    Door(#[source] door::Error),
    /// AWS cannot be called.
    #[error("cannot call AWS for keys of uploads")]
    Aws(#[source] slipway_aws::TlsError),
    /// The NATS services cannot be offered.
    #[error("cannot offer the NATS services")]
    Services(#[source] slipway_bus::services::Error),
    /// Metrics cannot be served.
    #[error("cannot serve metrics")]
    Metrics(#[source] ScrapeError),
    /// The first look at the records failed.
    #[error("the records could not be read")]
    Records,
}

/// Runs the scheduler until `tasks` are shut down. Returns after the last
/// request was answered.
///
/// # Errors
/// It cannot start.
pub async fn run(config: Config, tasks: &Tasks, telemetry: &Telemetry) -> Result<(), Error> {
    let stores = open_stores(&config)?;
    let context_store = open_store(&config.contexts)?;
    let bus = tasks.shutdown().run_until_cancelled(Box::pin(connect(&config))).await;
    let Some(bus) = bus else { return Ok(()) };
    let bus = bus?;
    if let Some(key) = &config.bootstrap_key {
        bootstrap::ensure_key(&bus, key).await.map_err(Error::Bootstrap)?;
    }
    let view = Arc::new(View::default());
    let metrics = Metrics::new(telemetry.meter(), config.regions.keys());
    metrics::observe(telemetry.meter(), &view, queues(&config), &bus);
    let images = Images::new(stores.clone());
    let (ledger, work) = Ledger::new(
        &bus,
        view.clone(),
        config.retry,
        config.limits,
        metrics.clone(),
        images.clone(),
    );
    let ledger = Arc::new(ledger);
    let logs = Arc::new(Logs::new(bus.clone(), view.clone(), stores.clone(), tasks.clone()));
    let calm = follow::start(&bus, &view, &ledger, &config, tasks).await?;

    let general = Arc::new(General::new(stores.clone(), view.clone()));
    let accounts = Accounts::new(&bus, view.clone());
    general::ensure_owner(&accounts, &config.default_snapshots).await.map_err(Error::Owner)?;
    let activity = Activity { images: images.clone(), view: view.clone(), ledger: ledger.clone() };
    let activity = Arc::new(activity);
    let queue = Arc::new(Queue::new(view.clone(), ledger.clone()));
    let settler = Arc::new(Settler {
        bus: bus.clone(),
        view: view.clone(),
        ledger: ledger.clone(),
        queue: queue.clone(),
        logs: logs.clone(),
        stores,
        time_limit: config.build_time_limit,
        metrics: metrics.clone(),
        calm,
    });
    start_work(settler, work, &config, tasks);
    let regions = config.regions.keys().cloned().collect();
    let registries = Arc::new(Registries::new(&bus, view.clone(), regions));
    let keys = registries.clone().run(config.reconcile_interval, tasks.shutdown().clone());
    tasks.spawn("keys", keys);
    queue.start();
    tasks.spawn_essential("queue", queue.clone().run(tasks.shutdown().clone()));
    let drains = Drains::new(&bus, view.clone());
    let remind = drains.clone().run(config.reconcile_interval, tasks.shutdown().clone());
    tasks.spawn("drains", remind);
    let open: Vec<JobId> = view.records().open_jobs().map(|job| job.value.id).collect();
    open.into_iter().for_each(|job| ledger.announce(job));

    if let Some(address) = config.metrics_listen {
        telemetry.serve_metrics(address, tasks).await.map_err(Error::Metrics)?;
    }
    let listener = listen(config.listen).await?;
    let address =
        listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let config = Arc::new(config);
    let contexts = Contexts::new(context_store, &bus);
    let app = App {
        config: config.clone(),
        public_url: public_url.into(),
        view,
        ledger,
        queue,
        logs,
        registries,
        uploads: uploads(&config, &contexts, &bus, tasks).await?,
        contexts,
        accounts,
        drains,
        general,
        activity: activity.clone(),
        limiter: config.rate_limit.map(Limiter::new),
        started_at: Timestamp::now(),
        push_tokens: bus.bucket(&BucketName::PushTokens),
        requests_made: bus.bucket(&BucketName::Requests),
        shutdown: tasks.shutdown().clone(),
        requests: Requests::new(telemetry.meter()),
    };
    let services = Box::pin(service::start(&bus, &app)).await.map_err(Error::Services)?;
    let uses = registry::start(&bus, &app).await.map_err(Error::Services)?;
    let look = general::run(app.clone(), config.reconcile_interval, tasks.shutdown().clone());
    tasks.spawn("general", look);
    let look = activity.run(config.reconcile_interval, tasks.shutdown().clone());
    tasks.spawn("activity", look);
    tracing::info!(%address, "the API serves");
    serve(app, listener, address, tasks).await?;
    for service in services.into_iter().chain([uses]) {
        service.stop().await;
    }
    Ok(())
}

/// Where clients of S3 bring build contexts; starts the door, if there is to be one.
async fn uploads(
    config: &Config,
    contexts: &Contexts,
    bus: &Bus,
    tasks: &Tasks,
) -> Result<Access, Error> {
    let settings = match &config.uploads {
        Uploads::None => return Ok(Access::None),
        Uploads::Sts(sts) => {
            let aws = slipway_aws::Client::new().map_err(Error::Aws)?;
            return Ok(Access::Sts { sts: sts.clone(), aws });
        }
        Uploads::Door(settings) => settings,
    };
    let keys = Arc::new(Keys::load(bus).await.map_err(Error::UploadKeys)?);
    let listening = Listening::open(settings).await.map_err(Error::Door)?;
    let url = listening.url();
    let door = Door::new(contexts.clone(), keys.clone(), config.limits.context_bytes);
    let stop = tasks.shutdown().clone();
    tasks.spawn_essential("uploads", async move {
        if let Err(error) = listening.serve(door, stop).await {
            tracing::error!(%error, "uploads are no longer served");
        }
    });
    Ok(Access::Door { url, bucket: settings.bucket.clone(), keys })
}

/// Waits for NATS, however long it takes, and sets up what is missing there.
async fn connect(config: &Config) -> Result<Bus, Error> {
    let servers = config.nats.clone();
    let credentials = config.nats_credentials.clone().map_or(Credentials::None, Credentials::File);
    let nats = slipway_bus::Config::new("", "slipway-scheduler");
    let nats = slipway_bus::Config { servers, credentials, patience: FOR_EVER, ..nats };
    let bus = slipway_bus::connect(&nats).await.map_err(Error::Connect)?;
    let topology = topology(config);
    loop {
        match bus.ensure(&topology).await {
            Err(error) if error.is_retryable() => {
                let error = telemetry::chain(&error);
                tracing::warn!(error, "waiting for JetStream to set up streams and buckets");
                tokio::time::sleep(ENSURE_AGAIN).await;
            }
            ensured => return ensured.map(|()| bus).map_err(Error::Ensure),
        }
    }
}

fn queues(config: &Config) -> Vec<(Region, slipway_domain::Class)> {
    let of = |(region, settings): (&Region, &config::RegionConfig)| {
        let classes = settings.classes.clone();
        let region = region.clone();
        classes.into_iter().map(move |class| (region.clone(), class))
    };
    config.regions.iter().flat_map(of).collect()
}

fn topology(config: &Config) -> Topology {
    let regions = config.regions.iter().map(|(region, settings)| RegionTopology {
        region: region.clone(),
        classes: settings.classes.clone(),
        placement: None,
    });
    Topology {
        regions: regions.collect(),
        replicas: config.replicas,
        logs_max_bytes: LOGS_MAX_BYTES,
    }
}

fn open_stores(config: &Config) -> Result<BTreeMap<Region, Store>, Error> {
    let stores = config.regions.iter();
    stores.map(|(region, settings)| Ok((region.clone(), open_store(&settings.store)?))).collect()
}

fn open_store(config: &slipway_blobstore::Config) -> Result<Store, Error> {
    Store::open(config).map_err(Error::Store)
}

fn start_work(
    settler: Arc<Settler>,
    work: mpsc::UnboundedReceiver<JobId>,
    config: &Config,
    tasks: &Tasks,
) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn_essential("settle", settler.clone().run(work, tasks.clone()));
    for region in config.regions.keys().cloned() {
        let bus = settler.bus.clone();
        let events = events::run(bus, region, settler.clone(), tasks.clone(), shutdown.clone());
        tasks.spawn_essential("events", events);
    }
    let reconciler = reconcile::run(settler, config.reconcile_interval, shutdown);
    tasks.spawn_essential("reconcile", reconciler);
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

async fn serve(
    app: App,
    listener: TcpListener,
    address: SocketAddr,
    tasks: &Tasks,
) -> Result<(), Error> {
    let shutdown = tasks.shutdown().clone();
    let served = axum::serve(listener, api::router(app))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await;
    served.map_err(|source| Error::Listen { address, source })
}
