//! The NATS server of the system, for scenarios that listen or write there, and what
//! those have in common that time many organizations.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slipway_loadtest::{Report, Run};

use super::super::interrupt::Interrupt;
use super::{Error, Out, plotted, stoppable, time};

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

/// Options of scenarios over several organizations.
#[derive(Debug, Args)]
pub(super) struct Watched {
    /// How long a job may take before it counts as failed
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = time)]
    pub(super) timeout: Duration,
    /// Draw the latencies over time into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the report to this file as JSON, too; `-` writes it instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    nats: Nats,
}

impl Watched {
    /// Runs a scenario over the system's NATS, and shows what it found.
    pub(super) async fn run<F>(
        self,
        run: &Run,
        interrupt: &Interrupt,
        scenario: impl FnOnce(slipway_bus::Bus) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Report, slipway_loadtest::Error>>,
    {
        let out = Out::open(self.json)?;
        let scenario = Box::pin(scenario(self.nats.bus().await?));
        let report = stoppable(run.stop(), interrupt, scenario).await?;
        plotted(self.plot, &report)?;
        out.show(&report)
    }
}
