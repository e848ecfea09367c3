//! `slipway registry`: the registry routes of a region, without a worker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use slipway_domain::Region;
use slipway_registry::tls::{self, Identity};
use slipway_registry::{Authorizer, Options, REDIRECT_TTL, Registry, UseObserver};
use slipway_runtime::Tasks;
use slipway_runtime::telemetry::http::Requests;
use slipway_runtime::telemetry::{Format, ScrapeError, Telemetry};

/// Options of the registry.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The region's object store: file:///DIR or s3://BUCKET/PREFIX
    #[arg(long, value_name = "URL")]
    store: url::Url,
    /// NATS server over which API keys are checked
    #[arg(long, env = "NATS_URL", value_name = "URL")]
    nats: String,
    /// The region; without it, push tokens are refused and uses not counted
    #[arg(long, value_name = "REGION")]
    region: Option<Region>,
    /// Address of the metrics for scrapers, by GET /metrics
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    /// Let clients fetch blobs from the bucket by themselves, by URLs good for 15 min
    #[arg(long)]
    redirect: bool,
    /// Certificate for TLS (PEM), with those that link it to its authority after it
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Why the registry does not run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot open the object store")]
    Store(#[source] slipway_blobstore::Error),
    #[error("cannot connect to NATS")]
    Connect(#[source] slipway_bus::connection::Error),
    #[error("cannot listen on `{0}`")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("cannot serve metrics")]
    Metrics(#[source] ScrapeError),
    #[error("cannot serve over TLS")]
    Tls(#[source] tls::Error),
}

/// `slipway registry`.
pub fn run(args: RegistryArgs) -> ExitCode {
    let telemetry = super::roles::start(Format::Text, "slipway-registry");
    let shared = telemetry.clone();
    let code = super::roles::serve(std::time::Duration::ZERO, |tasks| async move {
        let config = slipway_blobstore::Config::new(args.store.clone());
        let store = slipway_blobstore::Store::open(&config).map_err(Error::Store)?;
        let nats = slipway_bus::Config {
            check: slipway_bus::connection::VersionCheck::ServerVersion,
            patience: slipway_bus::connection::FOR_EVER,
            ..slipway_bus::Config::new(args.nats.clone(), "slipway-registry")
        };
        let connect = Box::pin(slipway_bus::connect(&nats));
        let bus = tasks.shutdown().run_until_cancelled(connect).await;
        let Some(bus) = bus else { return Ok(()) };
        let bus = bus.map_err(Error::Connect)?;
        if let Some(address) = args.metrics_listen {
            shared.serve_metrics(address, &tasks).await.map_err(Error::Metrics)?;
        }
        let registry = registry(&args, store, bus, &shared, &tasks);
        let files = args.tls_cert.as_deref().zip(args.tls_key.as_deref());
        serve(args.listen, files, &registry, &tasks).await?;
        registry.close().await;
        Ok::<_, Error>(())
    });
    telemetry.finish();
    code
}

fn registry(
    args: &RegistryArgs,
    store: slipway_blobstore::Store,
    bus: slipway_bus::Bus,
    telemetry: &Telemetry,
    tasks: &Tasks,
) -> Registry {
    let region = args.region.clone();
    let observer = region.clone().map(|region| -> Arc<dyn UseObserver> {
        Arc::new(slipway_worker::Uses::start(bus.clone(), region, tasks))
    });
    let options = Options {
        redirect_blobs: args.redirect.then_some(REDIRECT_TTL),
        observer,
        requests: Some(Requests::new(telemetry.meter())),
        ..Options::default()
    };
    let keys: Arc<dyn Authorizer> = Arc::new(slipway_worker::ApiKeys::new(bus, region));
    let registry = Registry::new(store, keys, options);
    registry.metrics().observe(telemetry.meter());
    registry
}

/// Serves until shutdown, over TLS if there are files of a certificate and key.
async fn serve(
    address: SocketAddr,
    files: Option<(&Path, &Path)>,
    registry: &Registry,
    tasks: &Tasks,
) -> Result<(), Error> {
    let failed = |source| Error::Listen(address, source);
    let routes = slipway_registry::router(registry.clone());
    let stop = tasks.shutdown().clone().cancelled_owned();
    let Some((certificate, key)) = files else {
        let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(%address, "the registry serves");
        return axum::serve(listener, routes).with_graceful_shutdown(stop).await.map_err(failed);
    };
    let identity = Identity::load(certificate, key).map_err(Error::Tls)?;
    let listener = identity.listen(address).await.map_err(Error::Tls)?;
    let address = listener.address().map_err(failed)?;
    tracing::info!(%address, tls = true, "the registry serves");
    axum::serve(listener, routes).with_graceful_shutdown(stop).await.map_err(failed)
}
