//! Metrics for whoever asks: `GET /metrics` in Prometheus' text format.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use prometheus::{Encoder as _, TextEncoder};
use tokio::net::TcpListener;

use super::Telemetry;
use crate::Tasks;

/// Metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{address}` for scrapes of metrics (`metrics_listen`)")]
pub struct Error {
    address: SocketAddr,
    #[source]
    source: std::io::Error,
}

impl Telemetry {
    /// Serves metrics until shutdown; returns where. Nothing else is served
    /// there, and no key is asked for: bind it where only scrapers reach it.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn serve_metrics(
        &self,
        address: SocketAddr,
        tasks: &Tasks,
    ) -> Result<SocketAddr, Error> {
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let routes = Router::new().route("/metrics", get(scrape)).with_state(self.registry.clone());
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("metrics", async move {
            let served = axum::serve(listener, routes)
                .with_graceful_shutdown(shutdown.cancelled_owned())
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "metrics are not served any more");
            }
        });
        tracing::info!(address = %bound, "metrics are served");
        Ok(bound)
    }
}

async fn scrape(State(registry): State<prometheus::Registry>) -> Response {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
