//! What the log says while a worker finishes what it runs.

use std::collections::BTreeMap;

use slipway_domain::JobId;
use slipway_runtime::Tasks;
use tokio::sync::watch;

use crate::config::Config;

/// Waits until the process is to stop, and then says what is still to be finished.
pub fn tell(
    tasks: Tasks,
    mut running: watch::Receiver<BTreeMap<JobId, u32>>,
    config: &Config,
) -> impl Future<Output = ()> + Send + use<> {
    let grace = humantime_serde::re::humantime::format_duration(config.drain_grace);
    async move {
        tasks.draining().cancelled().await;
        if tasks.shutdown().is_cancelled() {
            return;
        }
        let jobs = jobs(running.borrow_and_update().len());
        tracing::info!("draining: {jobs}, up to {grace}; again to stop at once");
        let rest = async {
            while running.changed().await.is_ok() {
                let left = self::jobs(running.borrow_and_update().len());
                tracing::info!("draining: {left}");
            }
        };
        tasks.shutdown().run_until_cancelled(rest).await;
    }
}

fn jobs(count: usize) -> String {
    match count {
        0 => "no job runs".to_owned(),
        1 => "1 job runs".to_owned(),
        more => format!("{more} jobs run"),
    }
}
