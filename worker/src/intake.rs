//! Whether the worker takes new jobs.
//!
//! Owns the two reasons not to: its process is about to stop, or an operator
//! drains it. The operator's order stands under a key of the region's lease bucket,
//! so it outlives the worker; a word from the scheduler only makes the worker look
//! sooner. Refuses to know what runs. Invariant: nothing is taken before the order
//! was looked for.

use std::sync::Arc;
use std::time::Duration;

use slipway_bus::Bucket;
use slipway_bus::topology::keys;
use slipway_domain::WorkerId;
use slipway_runtime::telemetry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Pause before an order that could not be looked for is looked for again.
const RETRY: Duration = Duration::from_secs(1);

/// The gate for new jobs. Clones share it.
#[derive(Debug, Clone)]
pub struct Intake {
    stopping: CancellationToken,
    ordered: Arc<watch::Sender<bool>>,
    look: Arc<Notify>,
}

impl Intake {
    /// Open, until `stopping` or an operator's order closes it.
    #[must_use]
    pub fn new(stopping: CancellationToken) -> Self {
        Self { stopping, ordered: Arc::default(), look: Arc::default() }
    }

    /// Whether jobs may be taken at this moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.is_stopping() && !*self.ordered.borrow()
    }

    /// Whether the process is about to stop: it will not open again.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_cancelled()
    }

    /// Waits until jobs may be taken; false if that will not be.
    pub async fn opened(&self) -> bool {
        let mut ordered = self.ordered.subscribe();
        let open = async { ordered.wait_for(|ordered| !ordered).await.is_ok() };
        self.stopping.run_until_cancelled(open).await.unwrap_or(false)
    }

    /// Waits until no job may be taken.
    pub async fn closed(&self) {
        let mut ordered = self.ordered.subscribe();
        // Cancel-safe: neither loses anything. The sender cannot be gone.
        tokio::select! {
            () = self.stopping.cancelled() => {}
            _ = ordered.wait_for(|ordered| *ordered) => {}
        }
    }

    /// Wakes at every order and its end.
    #[must_use]
    pub fn orders(&self) -> watch::Receiver<bool> {
        self.ordered.subscribe()
    }

    /// Completes when the process is about to stop.
    pub async fn stops(&self) {
        self.stopping.cancelled().await;
    }

    /// Has the order looked for again.
    pub fn check(&self) {
        self.look.notify_one();
    }

    /// Looks for the order whenever [`check`](Self::check) asks for it, for ever.
    pub async fn follow(self, leases: Bucket, worker: WorkerId) {
        loop {
            self.look.notified().await;
            self.read(&leases, &worker).await;
        }
    }

    /// Looks for the order, until it is known.
    pub async fn read(&self, leases: &Bucket, worker: &WorkerId) {
        let ordered = loop {
            match leases.get(&keys::drain(worker)).await {
                Ok(order) => break order.is_some(),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(error, "it is not known whether this worker is drained");
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let has_changed = self.ordered.send_if_modified(|known| {
            let has_changed = *known != ordered;
            *known = ordered;
            has_changed
        });
        match (has_changed, ordered) {
            (true, true) => tracing::info!("drained by order: no new jobs are taken"),
            (true, false) => tracing::info!("the order to drain is over: jobs are taken again"),
            (false, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::FutureExt as _;
    use slipway_bus::topology::{BucketName, Topology};
    use slipway_domain::worker::DrainRecord;
    use slipway_testkit::NatsServer;

    use super::*;

    #[tokio::test]
    async fn an_order_closes_it_until_it_is_taken_back() {
        let server = NatsServer::start().await;
        let bus = slipway_bus::Config::new(server.url(), "intake-test");
        let bus = slipway_bus::connect(&bus).await.unwrap();
        let region: slipway_domain::Region = "us".parse().unwrap();
        bus.ensure(&Topology::single(region.clone())).await.unwrap();
        let leases = bus.bucket(&BucketName::Leases(region));
        let (one, other): (WorkerId, WorkerId) = ("w1".parse().unwrap(), "w2".parse().unwrap());

        let intake = Intake::new(CancellationToken::new());
        intake.read(&leases, &one).await;
        assert!(intake.is_open() && intake.opened().await);
        assert_eq!(intake.closed().now_or_never(), None);

        let order = DrainRecord { version: 1, ordered_at: jiff::Timestamp::now() };
        let revision = leases.put(&keys::drain(&one), &order, None).await.unwrap();
        intake.read(&leases, &other).await;
        assert!(intake.is_open(), "it is the order of another worker");
        intake.read(&leases, &one).await;
        assert!(!intake.is_open() && !intake.is_stopping());
        intake.closed().await;
        assert_eq!(intake.opened().now_or_never(), None);

        leases.delete(&keys::drain(&one), revision).await.unwrap();
        intake.read(&leases, &one).await;
        assert!(intake.opened().await);
    }

    #[tokio::test]
    async fn a_process_that_stops_never_opens_again() {
        let stopping = CancellationToken::new();
        let intake = Intake::new(stopping.clone());
        stopping.cancel();
        intake.closed().await;
        assert!(!intake.opened().await && !intake.is_open());
    }
}
