//! Workers, the orders to them and the leases that they hold, over all regions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use slipway_domain::lease::Lease;
use slipway_domain::worker::WorkerRecord;
use slipway_domain::{Class, JobId, Region, WorkerId, message};

/// Live workers, orders and leases.
#[derive(Debug, Default)]
pub struct Fleet {
    workers: BTreeMap<(Region, WorkerId), WorkerRecord>,
    /// Workers that are to take no new jobs, alive or not.
    drains: BTreeSet<(Region, WorkerId)>,
    /// Slots of the workers that are ready, so that nobody has to look at each.
    slots: HashMap<Region, HashMap<Class, usize>>,
    /// `host:port` of the registry routes of live workers in small letters, and of how
    /// many workers of a region each is.
    registries: HashMap<String, BTreeMap<Region, usize>>,
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

    /// Workers that are to take no new jobs by an order, alive or not.
    pub const fn drains(&self) -> &BTreeSet<(Region, WorkerId)> {
        &self.drains
    }

    /// Whether there is an order that the worker is to take no new jobs.
    #[must_use]
    pub fn is_drained(&self, worker: &WorkerRecord) -> bool {
        // Most of the time there are none.
        !self.drains.is_empty() && self.drains.contains(&(worker.region.clone(), worker.id.clone()))
    }

    /// Whether the worker takes no new jobs, or will not once it has heard its order.
    #[must_use]
    pub fn is_draining(&self, worker: &WorkerRecord) -> bool {
        worker.draining || self.is_drained(worker)
    }

    /// A live worker.
    #[must_use]
    pub fn worker(&self, region: &Region, worker: &WorkerId) -> Option<&WorkerRecord> {
        self.workers.get(&(region.clone(), worker.clone()))
    }

    /// Whether a live worker of the region takes the class, and reads the messages
    /// of this program.
    #[must_use]
    pub fn serves(&self, region: &Region, class: Class) -> bool {
        self.slots(region, class) > 0
    }

    /// Whether live workers of the region would take the class, and all are too old
    /// for the messages of this program.
    #[must_use]
    pub fn is_outdated(&self, region: &Region, class: Class) -> bool {
        self.takers(region, class).next().is_some() && !self.serves(region, class)
    }

    /// Live workers of the region that take new jobs of the class.
    fn takers(&self, region: &Region, class: Class) -> impl Iterator<Item = &WorkerRecord> {
        let here = self.workers.values().filter(move |worker| worker.region == *region);
        here.filter(move |worker| worker.classes.contains(&class) && !self.is_draining(worker))
    }

    /// Live workers of the region that take new jobs of the class and read the messages
    /// of this program.
    fn ready(&self, region: &Region, class: Class) -> impl Iterator<Item = &WorkerRecord> {
        self.takers(region, class).filter(|worker| is_up_to_date(worker))
    }

    /// Whether a worker that takes the class has a free slot, so that a job there
    /// is claimed in a moment.
    #[must_use]
    pub fn has_free_slot(&self, region: &Region, class: Class) -> bool {
        self.ready(region, class).any(|worker| worker.running.len() < worker.slots as usize)
    }

    /// `host:port` of the region's registry routes: those of any live worker.
    #[must_use]
    pub fn registry(&self, region: &Region) -> Option<&str> {
        let mut here = self.workers.values().filter(|worker| worker.region == *region);
        here.next().map(|worker| worker.registry.as_str())
    }

    /// Whether this `host:port` is the region's registry, by its live workers.
    #[must_use]
    pub fn is_registry(&self, region: &Region, host: &str) -> bool {
        let regions = self.registries.get(&host.to_ascii_lowercase());
        regions.is_some_and(|regions| regions.contains_key(region))
    }

    /// The region whose registry has this `host:port`, by its live workers.
    #[must_use]
    pub fn region_of_registry(&self, host: &str) -> Option<&Region> {
        self.registries.get(&host.to_ascii_lowercase())?.keys().next()
    }

    /// The lease of a job, if there is one.
    #[must_use]
    pub fn lease(&self, job: &JobId) -> Option<&Lease> {
        self.leases.get(job).map(|(_, lease)| lease)
    }

    /// Slots of live workers that take new jobs of the class and read the messages of
    /// this program.
    #[must_use]
    pub fn slots(&self, region: &Region, class: Class) -> usize {
        let known = self.slots.get(region).and_then(|classes| classes.get(&class));
        known.copied().unwrap_or_default()
    }

    /// A worker's sign of life.
    pub fn put_worker(&mut self, worker: WorkerRecord) {
        let key = (worker.region.clone(), worker.id.clone());
        if self.workers.get(&key) != Some(&worker) {
            self.take_slots(&key);
            self.add_registry(&worker);
            let before = self.workers.insert(key.clone(), worker);
            before.iter().for_each(|before| self.take_registry(before));
            self.add_slots(&key);
            self.version += 1;
        }
    }

    /// A worker's sign of life expired.
    pub fn remove_worker(&mut self, region: &Region, worker: &WorkerId) {
        let key = (region.clone(), worker.clone());
        self.take_slots(&key);
        if let Some(before) = self.workers.remove(&key) {
            self.take_registry(&before);
            self.version += 1;
        }
    }

    fn add_registry(&mut self, worker: &WorkerRecord) {
        let regions = self.registries.entry(worker.registry.to_ascii_lowercase()).or_default();
        *regions.entry(worker.region.clone()).or_default() += 1;
    }

    fn take_registry(&mut self, worker: &WorkerRecord) {
        let host = worker.registry.to_ascii_lowercase();
        let Some(regions) = self.registries.get_mut(&host) else { return };
        if let Some(count) = regions.get_mut(&worker.region) {
            *count -= 1;
            regions.retain(|_, count| *count > 0);
        }
        if regions.is_empty() {
            self.registries.remove(&host);
        }
    }

    fn add_slots(&mut self, key: &(Region, WorkerId)) {
        self.count_slots(key, |sum, slots| *sum += slots);
    }

    fn take_slots(&mut self, key: &(Region, WorkerId)) {
        self.count_slots(key, |sum, slots| *sum -= slots);
    }

    /// Adds or takes the slots of a worker as it is known, if it is ready.
    fn count_slots(&mut self, key: &(Region, WorkerId), count: fn(&mut usize, usize)) {
        let Some(worker) = self.workers.get(key) else { return };
        if self.is_draining(worker) || !is_up_to_date(worker) {
            return;
        }
        let (slots, classes) = (worker.slots as usize, worker.classes.clone());
        let sums = self.slots.entry(key.0.clone()).or_default();
        let classes: BTreeSet<Class> = classes.into_iter().collect();
        classes.into_iter().for_each(|class| count(sums.entry(class).or_default(), slots));
    }

    /// A worker is to take no new jobs, or may again.
    pub fn set_drained(&mut self, region: &Region, worker: WorkerId, drained: bool) {
        let key = (region.clone(), worker);
        self.take_slots(&key);
        let changed =
            if drained { self.drains.insert(key.clone()) } else { self.drains.remove(&key) };
        self.add_slots(&key);
        self.version += u64::from(changed);
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
        self.drains.retain(|(of, _)| of != region);
        self.slots.remove(region);
        self.registries.retain(|_, regions| {
            regions.remove(region);
            !regions.is_empty()
        });
        self.leases.retain(|_, (of, _)| of != region);
        self.version += 1;
    }
}

/// Whether a worker reads the messages that this program writes.
const fn is_up_to_date(worker: &WorkerRecord) -> bool {
    worker.job_version >= message::VERSION
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn worker(name: &str, job_version: Option<u32>) -> WorkerRecord {
        let mut record = serde_json::json!({
            "version": 1, "id": name, "region": "us", "classes": ["cpu"], "slots": 1,
            "running": [], "software": "0.1.0", "buildkit": "", "registry": "127.0.0.1:1",
            "draining": false, "started_at": "2026-01-01T00:00:00Z",
        });
        if let Some(version) = job_version {
            record["job_version"] = version.into();
        }
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_worker_that_is_too_old_serves_nobody() {
        let (us, cpu) = ("us".parse().unwrap(), Class::Cpu);
        let mut fleet = Fleet::default();
        assert!(!fleet.serves(&us, cpu) && !fleet.is_outdated(&us, cpu));
        fleet.put_worker(worker("old", Some(message::VERSION - 1)));
        assert!(!fleet.serves(&us, cpu) && !fleet.has_free_slot(&us, cpu));
        assert!(fleet.is_outdated(&us, cpu));
        // One that says nothing reads the first form.
        fleet.put_worker(worker("silent", None));
        assert_eq!(fleet.serves(&us, cpu), message::VERSION == 1);
        fleet.put_worker(worker("new", Some(message::VERSION + 1)));
        assert!(fleet.serves(&us, cpu) && fleet.has_free_slot(&us, cpu));
        assert!(!fleet.is_outdated(&us, cpu));
    }

    #[test]
    fn a_registry_is_known_as_long_as_one_of_its_workers_lives() {
        let (us, eu): (Region, Region) = ("us".parse().unwrap(), "eu".parse().unwrap());
        let mut fleet = Fleet::default();
        let at = |name, host: &str| WorkerRecord { registry: host.into(), ..worker(name, None) };
        fleet.put_worker(at("w1", "R.example:5000"));
        fleet.put_worker(at("w2", "r.example:5000"));
        fleet.put_worker(WorkerRecord { region: eu.clone(), ..at("w1", "r.example:5001") });
        assert!(
            fleet.is_registry(&us, "r.EXAMPLE:5000") && !fleet.is_registry(&eu, "r.example:5000")
        );
        assert_eq!(fleet.region_of_registry("r.example:5001"), Some(&eu));
        fleet.put_worker(at("w1", "other:1"));
        assert!(fleet.is_registry(&us, "r.example:5000") && fleet.is_registry(&us, "other:1"));
        fleet.remove_worker(&us, &"w2".parse().unwrap());
        assert!(!fleet.is_registry(&us, "r.example:5000"));
        fleet.clear(&us);
        assert_eq!(fleet.region_of_registry("other:1"), None);
        assert!(fleet.is_registry(&eu, "r.example:5001"));
    }

    #[test]
    fn a_worker_with_an_order_to_drain_serves_nobody_even_before_it_has_heard() {
        let (us, cpu) = ("us".parse().unwrap(), Class::Cpu);
        let mut fleet = Fleet::default();
        fleet.put_worker(worker("w1", Some(message::VERSION)));
        fleet.put_worker(worker("w2", Some(message::VERSION)));
        assert_eq!(fleet.slots(&us, cpu), 2);
        for name in ["w1", "w2"] {
            assert!(fleet.serves(&us, cpu) && fleet.has_free_slot(&us, cpu));
            fleet.set_drained(&us, name.parse().unwrap(), true);
        }
        assert!(!fleet.serves(&us, cpu) && !fleet.has_free_slot(&us, cpu));
        assert_eq!(fleet.slots(&us, cpu), 0);
        // Another sign of life changes nothing about that.
        fleet.put_worker(WorkerRecord { slots: 4, ..worker("w1", Some(message::VERSION)) });
        assert_eq!(fleet.slots(&us, cpu), 0);
        // The same name elsewhere is another worker.
        fleet.set_drained(&"eu".parse().unwrap(), "w1".parse().unwrap(), false);
        assert!(!fleet.serves(&us, cpu));
        fleet.set_drained(&us, "w1".parse().unwrap(), false);
        assert!(fleet.serves(&us, cpu) && fleet.registry(&us).is_some());
        assert_eq!(fleet.slots(&us, cpu), 4);
        fleet.remove_worker(&us, &"w1".parse().unwrap());
        assert_eq!(fleet.slots(&us, cpu), 0);
    }
}
