//! `slipway registry`: the registry routes of a region, without a worker.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use slipway_registry::{Authorizer, Limits, Registry};
use slipway_runtime::telemetry::{self, Format};

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
}

/// `slipway registry`.
pub fn run(args: RegistryArgs) -> ExitCode {
    telemetry::init(Format::Text);
    super::roles::serve(|tasks| async move {
        let config = slipway_blobstore::Config::new(args.store);
        let store = slipway_blobstore::Store::open(&config).map_err(Error::Store)?;
        let nats = slipway_bus::Config {
            check: slipway_bus::connection::VersionCheck::ServerVersion,
            ..slipway_bus::Config::new(args.nats, "slipway-registry")
        };
        let bus = slipway_bus::connect(&nats).await.map_err(Error::Connect)?;
        let keys: Arc<dyn Authorizer> = Arc::new(slipway_worker::ApiKeys::new(bus));
        let registry = Registry::new(store, keys, Limits::default());
        let failed = |source| Error::Listen(args.listen, source);
        let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(failed)?;
        tracing::info!(address = %args.listen, "the registry serves");
        let served = axum::serve(listener, slipway_registry::router(registry.clone()))
            .with_graceful_shutdown(tasks.shutdown().clone().cancelled_owned());
        served.await.map_err(failed)?;
        registry.close().await;
        Ok::<_, Error>(())
    })
}
