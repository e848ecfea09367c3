//! Whether the end of a lease means that its holder is gone.
//!
//! A lease also ends when NATS is away and nobody can renew it. So after the bucket of
//! a region was not heard for whatever reason, and after the start, holders have a
//! grace to renew, or to take again, what is theirs. Owns that wait. Refuses to know
//! leases. Invariant: what is judged in calm had its grace since the bucket was last
//! not heard.

use std::collections::BTreeMap;
use std::time::Duration;

use slipway_domain::Region;
use tokio::sync::watch;
use tokio::time::Instant;

/// Since when a bucket is heard; `None` while it is not.
pub type Contact = watch::Receiver<Option<Instant>>;

/// The calm of every region. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Calm {
    grace: Duration,
    regions: BTreeMap<Region, Contact>,
}

impl Calm {
    /// Calm is what has lasted for `grace`.
    #[must_use]
    pub fn new(grace: Duration, regions: BTreeMap<Region, Contact>) -> Self {
        Self { grace, regions }
    }

    /// Whether holders of the region's leases have had their grace. Where nobody
    /// listens there is nothing to wait for.
    #[must_use]
    pub fn is_calm(&self, region: &Region) -> bool {
        let Some(contact) = self.regions.get(region) else { return true };
        contact.borrow().is_some_and(|since| since.elapsed() >= self.grace)
    }

    /// Waits until they have.
    pub async fn wait(&self, region: &Region) {
        let Some(mut contact) = self.regions.get(region).cloned() else { return };
        loop {
            let heard = *contact.borrow_and_update();
            let over = async {
                match heard {
                    Some(since) => tokio::time::sleep_until(since + self.grace).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: whichever comes first, all is looked at again.
            tokio::select! {
                changed = contact.changed() => if changed.is_err() { return },
                () = over => return,
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
        let calm = Calm::new(GRACE, BTreeMap::from([(us.clone(), heard)]));
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
}
