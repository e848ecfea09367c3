//! Sweeps of the region's object store, by every worker from time to time.
//!
//! Owns when. What may go is [`slipway_registry::sweep`]'s to say, which is safe
//! beside other workers, so that nobody has to agree on who does it.

use std::time::{Duration, SystemTime};

use rand::Rng as _;
use slipway_blobstore::Store;
use slipway_registry::sweep;
use slipway_runtime::{Tasks, telemetry};

use crate::config::Sweep;

/// Sweeps `store` as `config` says, until shutdown.
pub fn start(config: Sweep, store: Store, tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("sweep", async move {
        shutdown.run_until_cancelled(run(config, store)).await;
    });
}

async fn run(config: Sweep, store: Store) {
    loop {
        // Workers that were started together do not sweep together.
        tokio::time::sleep(spread(config.interval)).await;
        match sweep::sweep(&store, config.grace, SystemTime::now()).await {
            Ok(swept) => tracing::info!(
                links = swept.links,
                condemned = swept.condemned,
                blobs = swept.blobs,
                bytes = swept.bytes,
                uploads = swept.uploads,
                "the object store was swept"
            ),
            Err(error) => {
                let error = telemetry::chain(&error);
                tracing::warn!(error, "the object store was not swept");
            }
        }
    }
}

/// Between half and one and a half of it.
fn spread(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.5..1.5))
}
