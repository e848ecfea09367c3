//! Whether the end of a lease means that its holder is gone.
//!
//! A lease also ends when NATS is away and nobody can renew it. So after the bucket of
//! a region was not heard for whatever reason, and after the start, holders have a
//! grace to renew, or to take again, what is theirs. Owns that wait, and how long it is
//! in each region. Refuses to know single leases. Invariant: what is judged in calm had
//! its grace since the bucket was last not heard.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use slipway_domain::Region;
use slipway_domain::worker::WorkerRecord;
use tokio::sync::watch;
use tokio::time::Instant;

/// Since when a bucket is heard; `None` while it is not.
pub type Contact = watch::Receiver<Option<Instant>>;

/// How long a worker takes to come back to NATS, at most.
const WAY_BACK: Duration = Duration::from_secs(5);

/// How long the holders of a region have: as long as is configured, or longer where a
/// worker was seen whose leases are.
#[derive(Debug, Default)]
pub struct Graces {
    least: Duration,
    longest: Mutex<HashMap<Region, Duration>>,
}

impl Graces {
    /// At least so long.
    #[must_use]
    pub fn new(least: Duration) -> Self {
        Self { least, longest: Mutex::default() }
    }

    /// Takes note of how long the leases of a worker last.
    pub fn learn(&self, worker: &WorkerRecord) {
        let Some(lease) = worker.lease_seconds.map(Duration::from_secs) else { return };
        let grace = lease.saturating_add(WAY_BACK);
        if grace <= self.of(&worker.region) {
            return;
        }
        let (region, seconds) = (&worker.region, grace.as_secs());
        tracing::info!(worker.id = %worker.id, %region, "for its leases holders have {seconds} s after an outage");
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        longest.insert(worker.region.clone(), grace);
    }

    fn of(&self, region: &Region) -> Duration {
        let longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        longest.get(region).copied().unwrap_or_default().max(self.least)
    }
}

/// The calm of every region. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Calm {
    graces: Arc<Graces>,
    regions: BTreeMap<Region, Contact>,
}

impl Calm {
    /// Calm is what has lasted for a region's grace.
    #[must_use]
    pub fn new(graces: Arc<Graces>, regions: BTreeMap<Region, Contact>) -> Self {
        Self { graces, regions }
    }

    /// Whether holders of the region's leases have had their grace. Where nobody
    /// listens there is nothing to wait for.
    #[must_use]
    pub fn is_calm(&self, region: &Region) -> bool {
        let Some(contact) = self.regions.get(region) else { return true };
        contact.borrow().is_some_and(|since| since.elapsed() >= self.graces.of(region))
    }

    /// Waits until they have.
    pub async fn wait(&self, region: &Region) {
        let Some(mut contact) = self.regions.get(region).cloned() else { return };
        loop {
            let heard = *contact.borrow_and_update();
            if self.is_calm(region) {
                return;
            }
            let over = async {
                match heard {
                    Some(since) => tokio::time::sleep_until(since + self.graces.of(region)).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: whichever comes first, all is looked at again.
            tokio::select! {
                changed = contact.changed() => if changed.is_err() { return },
                () = over => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn every_interruption_begins_a_new_grace() {
        let us: Region = "us".parse().expect("a region");
        let (contact, heard) = watch::channel(None);
        let graces = Arc::new(Graces::new(GRACE));
        let calm = Calm::new(graces, BTreeMap::from([(us.clone(), heard)]));
        assert!(!calm.is_calm(&us), "nothing was heard yet");
        let start = Instant::now();
        contact.send_replace(Some(start));
        let interrupted = async {
            tokio::time::sleep(GRACE / 2).await;
            contact.send_replace(None);
            tokio::time::sleep(GRACE).await;
            assert!(!calm.is_calm(&us), "it is away");
            contact.send_replace(Some(Instant::now()));
        };
        tokio::join!(calm.wait(&us), interrupted);
        assert_eq!(start.elapsed(), GRACE / 2 + GRACE + GRACE);
        assert!(calm.is_calm(&us));
        calm.wait(&us).await;
        assert_eq!(start.elapsed(), GRACE / 2 + GRACE + GRACE, "calm is not waited for");
        assert!(calm.is_calm(&"eu".parse().expect("a region")), "nobody listens there");
    }
    #[tokio::test(start_paused = true)]
    async fn a_worker_whose_leases_are_longer_gives_all_of_its_region_more_time() {
        let us: Region = "us".parse().expect("a region");
        let (contact, heard) = watch::channel(Some(Instant::now()));
        let graces = Arc::new(Graces::new(GRACE));
        let calm = Calm::new(graces.clone(), BTreeMap::from([(us.clone(), heard)]));
        let worker = |lease: Option<u64>| -> WorkerRecord {
            serde_json::from_value(serde_json::json!({
                "version": 1, "id": "w", "region": "us", "classes": ["cpu"], "slots": 1,
                "running": [], "software": "", "buildkit": "", "registry": "", "draining": false,
                "lease_seconds": lease, "started_at": "2026-01-01T00:00:00Z",
            }))
            .expect("a worker")
        };
        let start = Instant::now();
        let learning = async {
            // Its sign of life comes while all wait already.
            tokio::time::sleep(GRACE / 2).await;
            for lease in [None, Some(60), Some(10)] {
                graces.learn(&worker(lease));
            }
        };
        tokio::join!(calm.wait(&us), learning);
        assert_eq!(start.elapsed(), Duration::from_secs(65));
        drop(contact);
    }
}
