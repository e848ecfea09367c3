//! Tells the scheduler which manifests the registry gives out, so that a
//! snapshot shows when it was last used.
//!
//! Owns saying so at most once a minute for each manifest. Refuses to hold up a
//! client: what cannot be told now is told with the next use.

use std::collections::HashMap;
use std::time::Duration;

use slipway_api::own::{UsedRequest, UsedResponse};
use slipway_blobstore::Repository;
use slipway_bus::{Bus, topology};
use slipway_domain::Region;
use slipway_oci::Digest;
use slipway_registry::UseObserver;
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uuid::Uuid;

/// Within this time one manifest is reported once.
const QUIET: Duration = Duration::from_secs(60);
/// Manifests remembered before the old ones are looked through.
const REMEMBERED: usize = 10_000;
/// Uses that wait to be told of; more are forgotten.
const WAITING: usize = 1_000;
/// How long to wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Whose, and which manifest.
type Use = (Uuid, Digest);

/// Hears of uses, and passes them on in the background.
#[derive(Debug)]
pub struct Uses {
    sender: mpsc::Sender<Use>,
}

impl Uses {
    /// Tells the scheduler over `bus` of uses in a region, until shutdown.
    #[must_use]
    pub fn start(bus: Bus, region: Region, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let shutdown = tasks.shutdown().clone();
        tasks.spawn("uses", async move {
            shutdown.run_until_cancelled(tell(bus, region, receiver)).await;
        });
        Self { sender }
    }
}

impl UseObserver for Uses {
    fn served(&self, repository: &Repository, digest: &Digest) {
        // Full or closed: this use is not told of.
        let _forgotten = self.sender.try_send((repository.organization, *digest));
    }
}

async fn tell(bus: Bus, region: Region, mut uses: mpsc::Receiver<Use>) {
    let mut told = Told::default();
    while let Some(one) = uses.recv().await {
        if !told.is_due(one, Instant::now()) {
            continue;
        }
        let request = UsedRequest {
            organization_id: one.0.to_string(),
            region: region.to_string(),
            digest: one.1.to_string(),
        };
        let answer = bus.call::<_, UsedResponse>(topology::USED, &request, DEADLINE).await;
        if let Err(error) = answer {
            told.at.remove(&one);
            let error = telemetry::chain(&error);
            tracing::debug!(blob.digest = %one.1, error, "a use could not be told of");
        }
    }
}

#[derive(Default)]
struct Told {
    at: HashMap<Use, Instant>,
}

impl Told {
    /// Whether to tell of a use now; if so, it counts as told.
    fn is_due(&mut self, one: Use, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < QUIET;
        if self.at.get(&one).is_some_and(is_recent) {
            return false;
        }
        if self.at.len() >= REMEMBERED {
            self.at.retain(|_, at| is_recent(at));
        }
        // Still full: tell, and do not remember.
        if self.at.len() < REMEMBERED {
            self.at.insert(one, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_told_of_once_a_minute() {
        let (mut told, now) = (Told::default(), Instant::now());
        let one = |number| (Uuid::from_u128(number), Digest::sha256("x"));
        assert!(told.is_due(one(1), now) && !told.is_due(one(1), now + QUIET / 2));
        assert!(told.is_due(one(2), now) && told.is_due(one(1), now + QUIET));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut told, now) = (Told::default(), Instant::now());
        for number in 0..2 * REMEMBERED as u128 {
            assert!(told.is_due((Uuid::from_u128(number), Digest::sha256("x")), now));
        }
        assert_eq!(told.at.len(), REMEMBERED);
        assert!(told.is_due((Uuid::nil(), Digest::sha256("x")), now + QUIET));
        assert_eq!(told.at.len(), 1);
    }
}
