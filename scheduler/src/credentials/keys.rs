//! The keys of regions: remembered, spread to what was sealed before them, and
//! replaced.
//!
//! A reconciler: takes no input and is idempotent. It makes true that every
//! secret is sealed, in every region, to exactly the keys that the region has.
//! The scheduler cannot open anything; a worker that can does it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_api::registries::KeyRotation;
use slipway_bus::bucket;
use slipway_bus::topology::keys as names;
use slipway_domain::credential::{
    CredentialKind, Recipient, RegionKeysRecord, RegistryCredentialRecord, Sealed, VaultAnswer,
    VaultVerb,
};
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Region, WorkerId};
use slipway_runtime::telemetry;
use tokio_util::sync::CancellationToken;

use super::{Error, Registries};
use crate::view::Entry;

/// How often a change of keys or credentials that others change, too, is tried.
const TRIES: usize = 10;

impl Registries {
    /// Looks over everything every `interval` until shutdown.
    pub async fn run(self: Arc<Self>, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: an interval loses nothing when dropped, and what is
            // left undone is found again by the next process.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {
                    shutdown.run_until_cancelled(self.look_over()).await;
                }
            }
        }
    }

    async fn look_over(&self) {
        for region in &self.regions {
            if let Err(error) = self.remember(region).await {
                let error = telemetry::chain(&error);
                tracing::warn!(region = %region, error, "the keys of a region were not remembered");
            }
            self.reseal(region).await;
        }
    }

    /// The keys to which secrets for a region are sealed: those remembered, and
    /// those of workers that have just come.
    pub(super) fn recipients(&self, region: &Region) -> BTreeSet<Recipient> {
        let keys = self.view.credentials().keys(region).map(|entry| entry.value.clone());
        let mut all = keys.as_ref().map(|keys| keys.recipients.clone()).unwrap_or_default();
        let retired = |key: &Recipient| keys.as_ref().is_some_and(|k| k.retired.contains(key));
        all.extend(self.announced(region).into_iter().filter(|key| !retired(key)));
        all
    }

    fn announced(&self, region: &Region) -> BTreeSet<Recipient> {
        self.view
            .fleet()
            .workers()
            .filter(|worker| worker.region == *region)
            .filter_map(key)
            .collect()
    }

    /// Remembers keys that workers announced.
    async fn remember(&self, region: &Region) -> Result<(), Error> {
        for recipient in self.announced(region) {
            self.change_keys(region, |keys| keys.with(&recipient, Timestamp::now())).await?;
        }
        Ok(())
    }

    async fn change_keys(
        &self,
        region: &Region,
        change: impl Fn(&RegionKeysRecord) -> Option<RegionKeysRecord>,
    ) -> Result<(), Error> {
        let key = names::region_keys(region);
        let mut known = self.view.credentials().keys(region).cloned();
        for _ in 0..TRIES {
            let none = || RegionKeysRecord::new(region.clone(), Timestamp::now());
            let record = known.as_ref().map_or_else(none, |entry| (*entry.value).clone());
            let Some(next) = change(&record) else { return Ok(()) };
            let written = match &known {
                Some(entry) => self.bucket.update(&key, &next, entry.revision, None).await,
                None => self.bucket.create(&key, &next, None).await,
            };
            match written {
                Ok(revision) => {
                    tracing::info!(region = %region, keys = next.recipients.len(), "the keys of a region changed");
                    self.view.credentials_mut().put_keys(next, revision);
                    return Ok(());
                }
                Err(error) if error.is_conflict() => known = self.read_keys(&key).await?,
                Err(error) => return Err(Error::Write(error)),
            }
        }
        Err(Error::Conflict)
    }

    async fn read_keys(&self, key: &str) -> Result<Option<Entry<RegionKeysRecord>>, Error> {
        let read = |entry: bucket::Entry| {
            let value = Arc::new(entry.json()?);
            Ok(Entry { value, revision: entry.revision })
        };
        let found = self.bucket.get(key).await.map_err(Error::Write)?;
        found.map(read).transpose().map_err(Error::Write)
    }

    /// Seals every secret to the keys that the region has now. Returns how many
    /// are, and how many could not be.
    async fn reseal(&self, region: &Region) -> (u32, u32) {
        let keys = self.view.credentials().keys(region).map(|e| e.value.recipients.clone());
        let Some(keys) = keys.filter(|keys| !keys.is_empty()) else { return (0, 0) };
        let all: Vec<_> = {
            let credentials = self.view.credentials();
            let secrets = credentials.all().filter(|e| e.value.kind == CredentialKind::Basic);
            secrets.cloned().collect()
        };
        let (mut done, mut failed) = (0, 0);
        for entry in all {
            if entry.value.sealed.get(region).is_some_and(|sealed| sealed.recipients == keys) {
                done += 1;
                continue;
            }
            match self.reseal_one(region, &keys, &entry).await {
                Ok(()) => done += 1,
                Err(error) => {
                    failed += 1;
                    let error = telemetry::chain(&error);
                    let id = &entry.value.id;
                    tracing::warn!(credential.id = %id, region = %region, error, "a secret was not sealed anew");
                }
            }
        }
        (done, failed)
    }

    async fn reseal_one(
        &self,
        region: &Region,
        keys: &BTreeSet<Recipient>,
        entry: &Entry<RegistryCredentialRecord>,
    ) -> Result<(), Error> {
        let mut last = Error::NoWorker("of any region".to_owned());
        for (worker, sealed) in self.openers(region, &entry.value) {
            let verb = VaultVerb::Reseal {
                sealed,
                purpose: entry.value.purpose(),
                recipients: keys.clone(),
            };
            match self.ask(&worker.region, &worker.id, verb).await {
                Ok(VaultAnswer::Resealed { sealed }) => {
                    let mut record = (*entry.value).clone();
                    record.sealed.insert(region.clone(), sealed);
                    return self.store(&record, entry.revision).await;
                }
                Ok(_) => last = Error::Answer,
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Workers that may open a secret, with what they may open: first those of
    /// the region, and of these first those whose present key fits.
    fn openers(
        &self,
        region: &Region,
        record: &RegistryCredentialRecord,
    ) -> Vec<(WorkerRecord, Sealed)> {
        let fleet = self.view.fleet();
        let able = fleet.workers().filter(|worker| worker.recipient.is_some());
        let mut openers: Vec<_> = able
            .filter_map(|worker| {
                let sealed = record.sealed.get(&worker.region)?;
                let fits = key(worker).is_some_and(|key| sealed.recipients.contains(&key));
                Some((worker.region != *region, !fits, worker.clone(), sealed.clone()))
            })
            .collect();
        openers.sort_by_key(|(elsewhere, misfit, ..)| (*elsewhere, *misfit));
        openers.into_iter().map(|(_, _, worker, sealed)| (worker, sealed)).collect()
    }

    /// Replaces the keys of a region: its workers make new identities, every
    /// secret is sealed to them, and then the old identities are forgotten.
    ///
    /// # Errors
    /// See [`Error`]. Whatever was done by then stays, and may be done again.
    pub async fn rotate(&self, region: &str) -> Result<KeyRotation, Error> {
        let region = self.region(region)?;
        self.remember(&region).await?;
        let mut asked: Vec<WorkerId> = vec![];
        let (mut new, mut old) = (BTreeSet::new(), BTreeSet::new());
        for worker in self.one_per_key(&region) {
            match self.ask(&region, &worker, VaultVerb::NewIdentity).await? {
                VaultAnswer::Identity { new: made, old: replaced } => {
                    new.insert(made);
                    old.extend(replaced);
                }
                _ => return Err(Error::Answer),
            }
            asked.push(worker);
        }
        if asked.is_empty() {
            return Err(Error::NoWorker(format!("of region `{region}`")));
        }
        self.change_keys(&region, |keys| {
            let mut gone = keys.recipients.clone();
            gone.extend(old.iter().cloned());
            let gone = gone.difference(&new).cloned().collect();
            let mut next = keys.clone();
            for made in &new {
                next = next.rotated(&gone, made.clone(), Timestamp::now());
            }
            Some(next)
        })
        .await?;
        let (mut resealed, mut failed) = self.reseal(&region).await;
        for _ in 1..TRIES {
            if failed == 0 {
                break;
            }
            (resealed, failed) = self.reseal(&region).await;
        }
        if failed == 0 {
            for worker in &asked {
                self.ask(&region, worker, VaultVerb::Forget { retired: old.clone() }).await?;
            }
        }
        let keys = new.iter().map(ToString::to_string).collect();
        Ok(KeyRotation { region: region.to_string(), keys, resealed, failed })
    }

    /// One worker for each file of identities, as far as keys tell them apart.
    fn one_per_key(&self, region: &Region) -> Vec<WorkerId> {
        let usable = self.recipients(region);
        let fleet = self.view.fleet();
        let mut seen = BTreeSet::new();
        let here = fleet.workers().filter(|worker| worker.region == *region);
        here.filter(|worker| {
            key(worker).is_some_and(|key| usable.contains(&key) && seen.insert(key))
        })
        .map(|worker| worker.id.clone())
        .collect()
    }
}

fn key(worker: &WorkerRecord) -> Option<Recipient> {
    worker.recipient.clone()
}
