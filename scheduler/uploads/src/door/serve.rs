//! The door as a server: with TLS of its own, or behind something that has it.

use std::net::SocketAddr;

use slipway_tls::{Identity, TlsListener};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Door;
use crate::config;

/// Why the door cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen for uploads on `{address}`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key are of no use.
    #[error("uploads cannot be served over TLS")]
    Tls(#[source] slipway_tls::Error),
}

/// A door that listens.
#[derive(Debug)]
pub struct Listening {
    listener: Listener,
    address: SocketAddr,
    url: Url,
    bucket: String,
}

#[derive(Debug)]
enum Listener {
    Plain(TcpListener),
    Tls(TlsListener),
}

impl Listening {
    /// Listens as configured.
    ///
    /// # Errors
    /// The address is taken, or the identity cannot be used.
    pub async fn open(config: &config::Door) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: config.listen, source };
        let (listener, address) = match &config.tls {
            None => {
                let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                (Listener::Plain(listener), address)
            }
            Some(tls) => {
                let identity = Identity::load(&tls.cert, &tls.key).map_err(Error::Tls)?;
                let listener = identity.listen(config.listen).await.map_err(Error::Tls)?;
                let address = listener.address().map_err(failed)?;
                (Listener::Tls(listener), address)
            }
        };
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let own = || format!("{scheme}://{address}").parse().expect("an address is a host");
        let url = config.url.clone().unwrap_or_else(own);
        Ok(Self { listener, address, url, bucket: config.bucket.clone() })
    }

    /// Where clients reach it, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }

    /// Serves until `stop`, and until the last request is answered.
    ///
    /// # Errors
    /// What the system says.
    pub async fn serve(self, door: Door, stop: CancellationToken) -> std::io::Result<()> {
        let routes = super::router(door, &self.bucket);
        tracing::info!(address = %self.address, url = self.url(), "uploads are served");
        let stop = stop.cancelled_owned();
        match self.listener {
            Listener::Plain(listener) => {
                axum::serve(listener, routes).with_graceful_shutdown(stop).await
            }
            Listener::Tls(listener) => {
                axum::serve(listener, routes).with_graceful_shutdown(stop).await
            }
        }
    }
}
