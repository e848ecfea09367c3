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
pub mod config;
mod credentials;
mod events;
mod general;
mod images;
mod ledger;
mod limits;
mod logs;
mod metrics;
mod operate;
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

use jiff::Timestamp;
use slipway_blobstore::Store;
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
use tokio::sync::{mpsc, oneshot};

use accounts::Accounts;
use activity::Activity;
use api::{App, Limiter};
use config::Config;
use credentials::Registries;
use general::General;
use images::Images;
use ledger::Ledger;
use logs::Logs;
use metrics::Metrics;
use settle::Settler;
use view::View;

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
    let bus = connect(&config).await?;
    bus.ensure(&topology(&config)).await.map_err(Error::Ensure)?;
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
    start_watches(&bus, &view, &ledger, &config, tasks).await?;

    let general = Arc::new(General::new(stores.clone(), view.clone()));
    let accounts = Accounts::new(&bus, view.clone());
    general::ensure_owner(&accounts, &config.default_snapshots).await.map_err(Error::Owner)?;
    let activity = Activity { images: images.clone(), view: view.clone(), ledger: ledger.clone() };
    let activity = Arc::new(activity);
    let settler = Arc::new(Settler {
        bus: bus.clone(),
        view: view.clone(),
        ledger: ledger.clone(),
        logs: logs.clone(),
        stores,
        time_limit: config.build_time_limit,
        metrics: metrics.clone(),
    });
    start_work(settler, work, &config, tasks);
    let regions = config.regions.keys().cloned().collect();
    let registries = Arc::new(Registries::new(&bus, view.clone(), regions));
    let keys = registries.clone().run(config.reconcile_interval, tasks.shutdown().clone());
    tasks.spawn("keys", keys);
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
        logs,
        registries,
        uploads: uploads(&config, &contexts, &bus, tasks).await?,
        contexts,
        accounts,
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

async fn connect(config: &Config) -> Result<Bus, Error> {
    let servers = config.nats.clone();
    let credentials = config.nats_credentials.clone().map_or(Credentials::None, Credentials::File);
    let nats = slipway_bus::Config::new("", "slipway-scheduler");
    let nats = slipway_bus::Config { servers, credentials, ..nats };
    slipway_bus::connect(&nats).await.map_err(Error::Connect)
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

/// Starts to follow every bucket and returns when the view is complete.
async fn start_watches(
    bus: &Bus,
    view: &Arc<View>,
    ledger: &Arc<Ledger>,
    config: &Config,
    tasks: &Tasks,
) -> Result<(), Error> {
    let mut complete = vec![];
    let mut follow = |bucket: BucketName, apply: Box<dyn FnMut(bucket::Change) + Send>| {
        let (ready, wait) = oneshot::channel();
        complete.push(wait);
        let (bucket, shutdown) = (bus.bucket(&bucket), tasks.shutdown().clone());
        tasks.spawn_essential("watch", async move {
            let followed = shutdown.run_until_cancelled(watch::follow(bucket, ready, apply));
            if let Some(Err(error)) = followed.await {
                tracing::error!(error = telemetry::chain(&error), "a bucket cannot be followed");
            }
        });
    };
    let v = view.clone();
    follow(
        BucketName::Organizations,
        Box::new(move |change| watch::apply_organization(&v, change)),
    );
    let v = view.clone();
    follow(BucketName::ApiKeys, Box::new(move |change| watch::apply_api_key(&v, change)));
    let v = view.clone();
    follow(
        BucketName::RegistryCredentials,
        Box::new(move |change| watch::apply_credential(&v, change)),
    );
    for region in config.regions.keys() {
        let (lost, mut losses) = mpsc::unbounded_channel();
        let (v, region) = (view.clone(), region.clone());
        let bucket = BucketName::Leases(region.clone());
        follow(
            bucket,
            Box::new(move |change| {
                if let Some(loss) = watch::apply_lease(&v, &region, change) {
                    // The receiver is gone only when the process stops.
                    let _stopping = lost.send(loss);
                }
            }),
        );
        let (bus, ledger, view) = (bus.clone(), ledger.clone(), view.clone());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn_essential("lost-leases", async move {
            let look = async {
                while let Some(loss) = losses.recv().await {
                    watch::lease_lost(&bus, &ledger, &view, &loss).await;
                }
            };
            shutdown.run_until_cancelled(look).await;
        });
    }
    let (ready, wait) = oneshot::channel();
    complete.push(wait);
    let (bucket, v, l) = (bus.bucket(&BucketName::Records), view.clone(), ledger.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.spawn_essential("watch", async move {
        let records = replay::follow(bucket, v, ready, |job| l.announce(job));
        if let Some(Err(error)) = shutdown.run_until_cancelled(records).await {
            tracing::error!(error = telemetry::chain(&error), "a bucket cannot be followed");
        }
    });
    for wait in complete {
        wait.await.map_err(|_| Error::Records)?;
    }
    Ok(())
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
