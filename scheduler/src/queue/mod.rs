//! Admission: which waiting job is sent to its region's queue, and when.
//!
//! Owns the order between organizations and the bound on what lies in a queue; the
//! backlog stays in the records. Refuses to send anything: [`crate::settle`] asks
//! whether it may. Every scheduler decides by itself over all jobs, in nearly the same
//! order, since all see the same records; a job that two of them send is taken once.
//! Invariants: in a queue lie about as many messages as there are free slots, and what
//! a quarter of a second needs, however much waits; a job that may be sent is sent by
//! the scheduler that moved it, or a little later by any other.

mod fair;
mod line;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::{AttemptNumber, Class, JobId, OrganizationId, Region};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use fair::MAX_WEIGHT;
use line::{Line, Terms, Window};

use crate::ledger::Ledger;
use crate::view::View;

/// How often what no event tells is looked at: jobs of schedulers that are gone.
const TICK: Duration = Duration::from_secs(1);

/// Whether a job may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It may.
    Now,
    /// It will be announced when it may.
    Later {
        /// It has waited so long that its owner should be told why.
        is_long: bool,
    },
}

/// Where a waiting job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Jobs that come before it, as things stand.
    pub ahead: usize,
    /// Seconds until a worker takes it, by how long jobs took lately.
    pub seconds: Option<u64>,
    /// Its organization runs as many jobs as it may.
    pub is_limited: bool,
}

/// Admits jobs to the queues of all regions. Share it in an `Arc`.
#[derive(Debug)]
pub struct Queue {
    view: Arc<View>,
    ledger: Arc<Ledger>,
    lines: Mutex<Lines>,
}

type Key = (Region, Class);
type Lines = HashMap<Key, Line>;

impl Queue {
    /// Nothing is admitted yet.
    #[must_use]
    pub fn new(view: Arc<View>, ledger: Arc<Ledger>) -> Self {
        Self { view, ledger, lines: Mutex::default() }
    }

    /// Asks whether a waiting job, which is due, may be sent now.
    pub fn admit(&self, record: &JobRecord) -> Turn {
        let Some(attempt) = waiting(record) else { return Turn::Later { is_long: false } };
        let (key, now) = ((record.region.clone(), record.class), Instant::now());
        let mut lines = self.lines();
        let line = lines.entry(key.clone()).or_default();
        if line.asked_again(record.id, attempt) {
            return Turn::Now;
        }
        line.ask(record, attempt, true, now);
        let sent = self.release(&mut lines, &key, now);
        let line = lines.entry(key).or_default();
        let turn = match line.is_granted(&record.id, attempt) {
            true => {
                line.asked_again(record.id, attempt);
                Turn::Now
            }
            false => Turn::Later { is_long: line.is_long(record, now) },
        };
        drop(lines);
        self.announce(sent.into_iter().filter(|job| *job != record.id));
        turn
    }

    /// For how long the waiting attempt of a job has been admitted; `None` if it was
    /// not, or is known to have been taken.
    #[must_use]
    pub fn admitted_for(&self, record: &JobRecord) -> Option<Duration> {
        let attempt = waiting(record)?;
        let lines = self.lines();
        let line = lines.get(&(record.region.clone(), record.class))?;
        line.granted_at(&record.id, attempt).map(|at| at.elapsed())
    }

    /// Where a job stands that waits for its turn or a worker.
    #[must_use]
    pub fn place(&self, record: &JobRecord) -> Option<Place> {
        let attempt = waiting(record)?;
        let key = (record.region.clone(), record.class);
        let lines = self.lines();
        let line = lines.get(&key)?;
        let held = self.held(&lines, &record.organization);
        let terms = self.terms(line.organizations());
        let ahead = line.ahead(record, attempt, &terms)?;
        let at_once = self.ledger.limits_of(&record.organization).jobs_at_once;
        let is_granted = line.is_granted(&record.id, attempt);
        let is_limited = !is_granted && at_once.is_some_and(|most| held >= most.get() as usize);
        let slots = self.window(&key).slots;
        let mean = self.view.records().service().seconds(&record.region, record.class);
        let estimate = |mean: f64| (mean * (ahead + 1) as f64 / slots as f64).ceil() as u64;
        let seconds = mean.filter(|_| slots > 0 && !is_limited).map(estimate);
        Some(Place { ahead, seconds, is_limited })
    }

    /// Takes up every job that waits, in fair order: what a scheduler does first.
    pub fn start(&self) {
        let mut lines = self.lines();
        let now = Instant::now();
        self.take_up(&mut lines, |_| true, true, now);
        let sent = self.release_all(&mut lines, now);
        drop(lines);
        self.announce(sent.into_iter());
    }

    /// Sends jobs when it is their turn, until shutdown.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changes = self.view.changes();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut strangers = HashSet::new();
        loop {
            // Cancel-safe: an interval and a watch lose nothing when dropped.
            tokio::select! {
                () = shutdown.cancelled() => return,
                now = ticks.tick() => strangers = self.tick(&strangers, now),
                changed = changes.changed() => if changed.is_err() { return },
            }
            let sent = {
                let mut lines = self.lines();
                if lines.values().all(Line::is_empty) {
                    continue;
                }
                self.release_all(&mut lines, Instant::now())
            };
            self.announce(sent.into_iter());
        }
    }

    /// Takes up jobs that another scheduler should have sent, `strangers` of the last
    /// look, and tells of those that wait for long. Returns new strangers.
    fn tick(&self, strangers: &HashSet<JobId>, now: Instant) -> HashSet<JobId> {
        let (late, unknown) = {
            let mut lines = self.lines();
            self.forget(&mut lines, now);
            self.take_up(&mut lines, |job| strangers.contains(job), false, now);
            let late: Vec<JobId> = lines.values_mut().flat_map(|line| line.late(now)).collect();
            (late, self.unknown(&lines))
        };
        self.announce(late.into_iter());
        unknown
    }

    /// Drops what does not wait any more.
    fn forget(&self, lines: &mut Lines, now: Instant) {
        let records = self.view.records();
        lines.values_mut().for_each(|line| line.forget(&records, now));
        lines.retain(|_, line| !line.is_idle(now));
    }

    /// Jobs that are due and of which nobody asked here.
    fn unknown(&self, lines: &Lines) -> HashSet<JobId> {
        let (records, now, retry) = (self.view.records(), Timestamp::now(), self.ledger.retry());
        let jobs = records.open_jobs().map(|entry| &*entry.value);
        let unknown = jobs.filter(|job| {
            let is_due = waiting(job).is_some() && job.pause_left(now, retry).is_none();
            let line = lines.get(&(job.region.clone(), job.class));
            is_due && !line.is_some_and(|line| line.knows(job))
        });
        unknown.map(|job| job.id).collect()
    }

    fn take_up(
        &self,
        lines: &mut Lines,
        wanted: impl Fn(&JobId) -> bool,
        is_own: bool,
        now: Instant,
    ) {
        let unknown = self.unknown(lines);
        let records = self.view.records();
        let jobs = unknown.iter().filter(|job| wanted(job)).filter_map(|job| records.job(job));
        for entry in jobs {
            let job = &*entry.value;
            if let Some(attempt) = waiting(job) {
                let line = lines.entry((job.region.clone(), job.class)).or_default();
                line.ask(job, attempt, is_own, now);
            }
        }
    }

    fn release_all(&self, lines: &mut Lines, now: Instant) -> Vec<JobId> {
        let keys: Vec<Key> = lines.keys().cloned().collect();
        keys.iter().flat_map(|key| self.release(lines, key, now)).collect()
    }

    /// Grants as much of a line as fits. Returns what is to be sent at once.
    fn release(&self, lines: &mut Lines, key: &Key, now: Instant) -> Vec<JobId> {
        let Some(line) = lines.get_mut(key) else { return vec![] };
        line.settle(&self.view.records(), now);
        let organizations: Vec<OrganizationId> = line.organizations().copied().collect();
        let terms = self.terms(organizations.iter());
        let mut room: HashMap<OrganizationId, usize> = HashMap::new();
        for organization in organizations {
            if let Some(most) = terms.get(&organization).and_then(|terms| terms.at_once) {
                let held = self.held(lines, &organization);
                room.insert(organization, (most as usize).saturating_sub(held));
            }
        }
        let window = self.window(key);
        let Some(line) = lines.get_mut(key) else { return vec![] };
        line.release(&window, &terms, &mut room, &self.view.records(), now)
    }

    /// What live workers can take. Jobs on workers that drain, or are gone and not
    /// known to be, make it look less: then the few that are sent ahead keep the
    /// others busy.
    fn window(&self, (region, class): &Key) -> Window {
        let running = self.view.records().service().running(region, *class);
        let slots = self.view.fleet().slots(region, *class);
        Window { slots, free: slots.saturating_sub(running) }
    }

    /// Jobs of an organization that were admitted or run, everywhere.
    fn held(&self, lines: &Lines, organization: &OrganizationId) -> usize {
        let running = self.view.records().service().running_of(organization);
        running + lines.values().map(|line| line.granted_to(organization)).sum::<usize>()
    }

    fn terms<'a>(
        &self,
        organizations: impl Iterator<Item = &'a OrganizationId>,
    ) -> HashMap<OrganizationId, Terms> {
        let terms = organizations.map(|organization| {
            let limits = self.ledger.limits_of(organization);
            let at_once = limits.jobs_at_once.map(std::num::NonZeroU32::get);
            (*organization, Terms { weight: limits.weight, at_once })
        });
        terms.collect()
    }

    fn announce(&self, jobs: impl Iterator<Item = JobId>) {
        jobs.for_each(|job| self.ledger.announce(job));
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempt of a job that waits.
const fn waiting(record: &JobRecord) -> Option<AttemptNumber> {
    match record.state {
        JobState::Queued { attempt, .. } => Some(attempt),
        JobState::Running { .. }
        | JobState::Succeeded { .. }
        | JobState::Failed { .. }
        | JobState::Cancelled
        | JobState::Dead { .. } => None,
    }
}
