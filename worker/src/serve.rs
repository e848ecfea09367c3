//! What the worker serves: registry routes and build contexts on loopback, and
//! the registry routes alone over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry::metrics::Meter;
use slipway_blobstore::Store;
use slipway_bus::Bus;
use slipway_registry::tls::{Identity, TlsListener};
use slipway_registry::{Authorizer, Options, REDIRECT_TTL, Registry, StaticAuthorizer};
use slipway_runtime::Tasks;
use slipway_runtime::telemetry::http::Requests;
use tokio::net::TcpListener;

use crate::Error;
use crate::authorize::ApiKeys;
use crate::config::Config;
use crate::contexts::{self, Contexts};
use crate::usage::Uses;

/// The running server.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Rights of running builds, beside those of API keys.
    pub grants: Arc<StaticAuthorizer>,
    /// The registry behind the routes.
    pub registry: Registry,
}

/// Starts to serve until shutdown.
///
/// # Errors
/// The address cannot be listened on.
pub async fn start(
    config: &Config,
    bus: &Bus,
    store: &Store,
    contexts: Contexts,
    meter: &Meter,
    tasks: &Tasks,
) -> Result<Server, Error> {
    let failed = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let keys: Arc<dyn Authorizer> =
        Arc::new(ApiKeys::new(bus.clone(), Some(config.region.clone())));
    let grants = Arc::new(StaticAuthorizer::new().or_else(keys));
    let options = Options {
        redirect_blobs: config.redirect_blobs.then_some(REDIRECT_TTL),
        observer: Some(Arc::new(Uses::start(bus.clone(), config.region.clone(), tasks))),
        requests: Some(Requests::new(meter)),
        ..Options::default()
    };
    let registry = Registry::new(store.clone(), grants.clone(), options);
    registry.metrics().observe(meter);
    if let Some(tls) = &config.tls {
        let identity = Identity::load(&tls.cert, &tls.key).map_err(Error::Tls)?;
        let listener = identity.listen(tls.listen).await.map_err(Error::Tls)?;
        serve_tls(listener, &registry, tasks);
    }
    let routes = slipway_registry::router(registry.clone()).merge(contexts::router(contexts));
    let (shutdown, served) = (tasks.shutdown().clone(), registry.clone());
    tasks.spawn_essential("registry", async move {
        let ended =
            axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the registry routes stopped");
        }
        served.close().await;
    });
    Ok(Server { address, grants, registry })
}

/// Contexts are BuildKit's alone, and stay on loopback.
fn serve_tls(listener: TlsListener, registry: &Registry, tasks: &Tasks) {
    let routes = slipway_registry::router(registry.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("registry-tls", async move {
        let served =
            axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the registry routes stopped");
        }
    });
}
