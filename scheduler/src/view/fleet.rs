//! Workers and the leases that they hold, over all regions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slipway_domain::lease::Lease;
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Class, JobId, Region, WorkerId};

/// Live workers and leases.
#[derive(Debug, Default)]
pub struct Fleet {
    workers: BTreeMap<(Region, WorkerId), WorkerRecord>,
    /// With the region in whose bucket they lie.
    leases: HashMap<JobId, (Region, Lease)>,
    /// Counts changes; a renewal is none.
    version: u64,
}

impl Fleet {
    /// Counts changes; a renewal is none.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Live workers, by region and name.
    pub fn workers(&self) -> impl Iterator<Item = &WorkerRecord> {
        self.workers.values()
    }

    /// Whether a live worker of the region takes the class.
    #[must_use]
    pub fn serves(&self, region: &Region, class: Class) -> bool {
        let mut here = self.workers.values().filter(|worker| worker.region == *region);
        here.any(|worker| worker.classes.contains(&class) && !worker.draining)
    }

    /// Whether a worker that takes the class has a free slot, so that a job there
    /// is claimed in a moment.
    #[must_use]
    pub fn has_free_slot(&self, region: &Region, class: Class) -> bool {
        let mut here = self.workers.values().filter(|worker| worker.region == *region);
        here.any(|worker| {
            worker.classes.contains(&class)
                && !worker.draining
                && worker.running.len() < worker.slots as usize
        })
    }

    /// `host:port` of the region's registry routes: those of any live worker.
    #[must_use]
    pub fn registry(&self, region: &Region) -> Option<&str> {
        let mut here = self.workers.values().filter(|worker| worker.region == *region);
        here.next().map(|worker| worker.registry.as_str())
    }

    /// `host:port` of all registry routes of the region's live workers, each once.
    #[must_use]
    pub fn registries(&self, region: &Region) -> Vec<String> {
        let here = self.workers.values().filter(|worker| worker.region == *region);
        let names: BTreeSet<&String> = here.map(|worker| &worker.registry).collect();
        names.into_iter().cloned().collect()
    }

    /// The lease of a job, if there is one.
    #[must_use]
    pub fn lease(&self, job: &JobId) -> Option<&Lease> {
        self.leases.get(job).map(|(_, lease)| lease)
    }

    /// A worker's sign of life.
    pub fn put_worker(&mut self, worker: WorkerRecord) {
        let key = (worker.region.clone(), worker.id.clone());
        if self.workers.get(&key) != Some(&worker) {
            self.workers.insert(key, worker);
            self.version += 1;
        }
    }

    /// A worker's sign of life expired.
    pub fn remove_worker(&mut self, region: &Region, worker: &WorkerId) {
        if self.workers.remove(&(region.clone(), worker.clone())).is_some() {
            self.version += 1;
        }
    }

    /// A lease was taken, renewed or closed. Returns what it was before.
    pub fn put_lease(&mut self, region: &Region, job: JobId, lease: Lease) -> Option<Lease> {
        let before = self.leases.insert(job, (region.clone(), lease.clone()));
        let before = before.map(|(_, before)| before);
        self.version += u64::from(before.as_ref() != Some(&lease));
        before
    }

    /// A lease expired. Returns what it was.
    pub fn remove_lease(&mut self, job: &JobId) -> Option<Lease> {
        let before = self.leases.remove(job).map(|(_, lease)| lease);
        self.version += u64::from(before.is_some());
        before
    }

    /// Forgets a region: its bucket went back in time.
    pub fn clear(&mut self, region: &Region) {
        self.workers.retain(|(of, _), _| of != region);
        self.leases.retain(|_, (of, _)| of != region);
        self.version += 1;
    }
}
