//! What a region's streams need from time to time, beside the jobs.
//!
//! Owns when archived logs are removed, those included that a scheduler which died had
//! archived and not removed.
//! Invariant: of a job's log nothing is removed that was stored after it was looked at,
//! for the job may have been redriven meanwhile.

use std::sync::Arc;
use std::time::Duration;

use slipway_domain::job::LogState;
use slipway_domain::{JobId, Region};
use slipway_runtime::telemetry;
use tokio_util::sync::CancellationToken;

use super::{Error, Settler};
use crate::logs;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long an archived log waits for what lies before it in the stream.
const PATIENCE: Duration = Duration::from_secs(5);

impl Settler {
    /// Looks after the streams of a region, until the shutdown.
    pub async fn tend(self: Arc<Self>, region: Region, shutdown: CancellationToken) {
        let (mut is_tidy, mut goes_on) = (false, true);
        while goes_on {
            let tended = async {
                is_tidy = is_tidy || noted(&region, self.tidy(&region).await);
                tokio::time::sleep(PERIOD).await;
            };
            goes_on = shutdown.run_until_cancelled(tended).await.is_some();
            if !goes_on && !self.bus.is_connected() {
                return;
            }
            let patience = if goes_on { PATIENCE } else { Duration::ZERO };
            let swept = self.logs.sweep(&region, patience).await;
            noted(&region, swept.map_err(Error::Log));
        }
    }

    /// Removes from the stream of a region what is archived.
    ///
    /// # Errors
    /// The stream or the records cannot be reached.
    pub async fn tidy(&self, region: &Region) -> Result<(), Error> {
        let stream = self.bus.logs();
        let failed = |source| Error::Log(logs::Error::Sweep { region: region.clone(), source });
        // Before the records: a log that they say is archived is so up to here.
        let last = stream.lying(region).await.map_err(failed)?.last;
        for job in stream.jobs(region).await.map_err(failed)? {
            if !self.is_archived(job) {
                continue;
            }
            // What is known here may be older than that.
            self.ledger.refresh(job).await.map_err(Error::Ledger)?;
            if self.is_archived(job) {
                self.logs.purge(job, region, last).await.map_err(Error::Log)?;
            }
        }
        Ok(())
    }

    fn is_archived(&self, job: JobId) -> bool {
        let records = self.view.records();
        records.job(&job).is_some_and(|entry| entry.value.log == LogState::Archived)
    }
}

/// Whether something was done; if not, it says so, and is to be done later.
fn noted(region: &Region, outcome: Result<(), Error>) -> bool {
    let Err(error) = outcome else { return true };
    let error = telemetry::chain(&error);
    tracing::warn!(%region, error, "a stream is not tended now");
    false
}
