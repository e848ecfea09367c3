//! Following every bucket, for as long as the process lives.
//!
//! Owns the tasks that keep the view up to date and that look into lost leases. What a
//! change means is in [`crate::watch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use slipway_bus::bucket::Watch;
use slipway_bus::topology::BucketName;
use slipway_bus::{Bus, bucket};
use slipway_domain::Region;
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::{mpsc, oneshot};

use crate::Error;
use crate::calm::{Calm, Contact, Graces};
use crate::config::Config;
use crate::ledger::Ledger;
use crate::replay;
use crate::view::View;
use crate::watch::{self, Loss};

/// Starts to follow every bucket and returns when the view is complete, with what tells
/// when the end of a lease means something.
///
/// # Errors
/// [`Error::Records`].
pub async fn start(
    bus: &Bus,
    view: &Arc<View>,
    ledger: &Arc<Ledger>,
    config: &Config,
    tasks: &Tasks,
) -> Result<Calm, Error> {
    let mut following = Following { bus, view, tasks, complete: vec![] };
    following.bucket(BucketName::Organizations, watch::apply_organization);
    following.bucket(BucketName::ApiKeys, watch::apply_api_key);
    following.bucket(BucketName::RegistryCredentials, watch::apply_credential);
    let graces = Arc::new(Graces::new(config.outage_grace));
    let mut contacts = BTreeMap::new();
    let mut lost_in = vec![];
    for region in config.regions.keys() {
        let (contact, losses) = following.leases(region.clone(), graces.clone());
        contacts.insert(region.clone(), contact);
        lost_in.push((region.clone(), losses));
    }
    let calm = Calm::new(graces, contacts);
    for (region, losses) in lost_in {
        let (bus, ledger, view) = (bus.clone(), ledger.clone(), view.clone());
        let (calm, shutdown) = (calm.clone(), tasks.shutdown().clone());
        tasks.spawn_essential("lost-leases", async move {
            let look = watch::lose_leases(&bus, &ledger, &view, &calm, &region, losses);
            shutdown.run_until_cancelled(look).await;
        });
    }
    following.records(ledger.clone());
    for wait in following.complete {
        wait.await.map_err(|_| Error::Records)?;
    }
    Ok(calm)
}

struct Following<'a> {
    bus: &'a Bus,
    view: &'a Arc<View>,
    tasks: &'a Tasks,
    /// Told when the first state of each bucket is there.
    complete: Vec<oneshot::Receiver<()>>,
}

impl Following<'_> {
    fn bucket(
        &mut self,
        bucket: BucketName,
        mut apply: impl FnMut(&View, bucket::Change) + Send + 'static,
    ) -> Contact {
        let view = self.view.clone();
        self.spawn(&bucket, async move |watch, ready| {
            watch::follow(watch, ready, |change| apply(&view, change)).await
        })
    }

    fn records(&mut self, ledger: Arc<Ledger>) {
        let view = self.view.clone();
        self.spawn(&BucketName::Records, async move |watch, ready| {
            replay::follow(watch, view, ready, |job| ledger.announce(job)).await
        });
    }

    /// Follows a bucket in a task of its own, until shutdown.
    fn spawn<F>(
        &mut self,
        bucket: &BucketName,
        follow: impl FnOnce(Watch, oneshot::Sender<()>) -> F,
    ) -> Contact
    where
        F: Future<Output = Result<(), bucket::Error>> + Send + 'static,
    {
        let (ready, complete) = oneshot::channel();
        self.complete.push(complete);
        let watch = self.bus.bucket(bucket).watch(None);
        let contact = watch.contact();
        let (follow, shutdown) = (follow(watch, ready), self.tasks.shutdown().clone());
        self.tasks.spawn_essential("watch", async move {
            if let Some(Err(error)) = shutdown.run_until_cancelled(follow).await {
                tracing::error!(error = telemetry::chain(&error), "a bucket cannot be followed");
            }
        });
        contact
    }

    fn leases(
        &mut self,
        region: Region,
        graces: Arc<Graces>,
    ) -> (Contact, mpsc::UnboundedReceiver<Loss>) {
        let (lost, losses) = mpsc::unbounded_channel();
        let contact = self.bucket(BucketName::Leases(region.clone()), move |view, change| {
            if let Some(loss) = watch::apply_lease(view, &graces, &region, change) {
                // The receiver is gone only when the process stops.
                let _stopping = lost.send(loss);
            }
        });
        (contact, losses)
    }
}
