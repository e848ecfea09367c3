//! The NATS server of the system, for scenarios that listen or write there.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::Error;

/// Where it is.
#[derive(Debug, Args)]
pub(super) struct Nats {
    /// NATS server of the system
    #[arg(long, env = "NATS_URL", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// NATS credentials file (JWT and nkey seed)
    #[arg(long, value_name = "FILE")]
    nats_credentials: Option<PathBuf>,
}

impl Nats {
    pub(super) async fn bus(&self) -> Result<slipway_bus::Bus, Error> {
        let credentials = self.nats_credentials.clone();
        let credentials =
            credentials.map_or(slipway_bus::Credentials::None, slipway_bus::Credentials::File);
        let config = slipway_bus::Config {
            credentials,
            patience: Duration::from_secs(5),
            ..slipway_bus::Config::new(&*self.nats, "slipway-loadtest")
        };
        slipway_bus::connect(&config).await.map_err(Error::Nats)
    }
}
