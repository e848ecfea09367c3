//! The line of one region and class: who waits, and what was let through.
//!
//! Pure but for the records that it is given. Invariant: a job either waits here or
//! was let through, and is forgotten once its attempt waits no more.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use slipway_domain::job::JobRecord;
use slipway_domain::{AttemptNumber, JobId, OrganizationId};
use tokio::time::Instant;

use super::fair::Fair;
use super::pace::Pace;
use super::waiting;
use crate::view::Records;

/// A job of another scheduler is sent here, too, if nobody took it for so long.
const COURTESY: Duration = Duration::from_secs(1);
/// Whose job waits for longer is told why.
const LONG: Duration = Duration::from_secs(2);
/// What nobody takes for so long, although slots are free, stands in nobody's way: it
/// may be of a form that these workers do not read.
const STUCK: Duration = Duration::from_secs(15);

/// What counts for an organization.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) weight: u32,
    pub(super) at_once: Option<u32>,
}

/// What the region's workers can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) slots: usize,
    /// Of these, those on which nothing runs.
    pub(super) free: usize,
}

/// A job that waits for its turn.
#[derive(Debug)]
struct Waiting {
    attempt: AttemptNumber,
    /// This scheduler was asked; another one was, otherwise.
    is_own: bool,
    since: Instant,
    is_told: bool,
}

/// A job that was let through.
#[derive(Debug)]
struct Grant {
    organization: OrganizationId,
    attempt: AttemptNumber,
    at: Instant,
    /// Whether it is to be sent here; later, if it is another scheduler's.
    is_sent: bool,
}

/// The line of one region and class.
#[derive(Debug, Default)]
pub(super) struct Line {
    waiting: HashMap<OrganizationId, BTreeMap<JobId, Waiting>>,
    granted: HashMap<JobId, Grant>,
    fair: Fair,
    pace: Pace,
}

impl Line {
    /// A job is due.
    pub(super) fn ask(
        &mut self,
        job: &JobRecord,
        attempt: AttemptNumber,
        is_own: bool,
        now: Instant,
    ) {
        let organization = job.organization;
        if !self.waiting.contains_key(&organization) {
            self.fair.join(organization);
        }
        let jobs = self.waiting.entry(organization).or_default();
        match jobs.get_mut(&job.id).filter(|known| known.attempt == attempt) {
            Some(known) => known.is_own |= is_own,
            None => {
                jobs.insert(job.id, Waiting { attempt, is_own, since: now, is_told: false });
            }
        }
    }

    /// Whether an attempt was let through before; if so, whoever asks sends it.
    pub(super) fn asked_again(&mut self, job: JobId, attempt: AttemptNumber) -> bool {
        let grant = self.granted.get_mut(&job).filter(|grant| grant.attempt == attempt);
        grant.map(|grant| grant.is_sent = true).is_some()
    }

    pub(super) fn is_granted(&self, job: &JobId, attempt: AttemptNumber) -> bool {
        self.granted_at(job, attempt).is_some()
    }

    pub(super) fn granted_at(&self, job: &JobId, attempt: AttemptNumber) -> Option<Instant> {
        let grant = self.granted.get(job).filter(|grant| grant.attempt == attempt);
        grant.map(|grant| grant.at)
    }

    pub(super) fn granted_to(&self, organization: &OrganizationId) -> usize {
        self.granted.values().filter(|grant| grant.organization == *organization).count()
    }

    pub(super) fn knows(&self, job: &JobRecord) -> bool {
        waiting(job).is_some_and(|attempt| {
            self.is_granted(&job.id, attempt)
                || self.entry(job).is_some_and(|known| known.attempt == attempt)
        })
    }

    pub(super) fn is_long(&self, job: &JobRecord, now: Instant) -> bool {
        self.entry(job).is_some_and(|known| now.duration_since(known.since) >= LONG)
    }

    fn entry(&self, job: &JobRecord) -> Option<&Waiting> {
        self.waiting.get(&job.organization)?.get(&job.id)
    }

    pub(super) fn organizations(&self) -> impl Iterator<Item = &OrganizationId> {
        self.waiting.keys()
    }

    /// Whether nothing waits and nothing is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.granted.is_empty()
    }

    /// Whether it can be forgotten as a whole.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.is_empty() && self.pace.is_idle(now)
    }

    /// Takes out what was let through and is in the queue no more.
    pub(super) fn settle(&mut self, records: &Records, now: Instant) {
        let pace = &mut self.pace;
        self.granted.retain(|job, grant| {
            let waits = still_waits(records, job, grant.attempt);
            if !waits {
                pace.started(now);
            }
            waits
        });
    }

    /// Takes out everything that does not wait any more.
    pub(super) fn forget(&mut self, records: &Records, now: Instant) {
        self.settle(records, now);
        let fair = &mut self.fair;
        self.waiting.retain(|organization, jobs| {
            jobs.retain(|job, known| still_waits(records, job, known.attempt));
            if jobs.is_empty() {
                fair.leave(organization);
            }
            !jobs.is_empty()
        });
    }

    /// Jobs to announce that no change of a record will: another scheduler's that
    /// nobody took, and those whose owners are to be told that they wait.
    pub(super) fn late(&mut self, now: Instant) -> Vec<JobId> {
        let mut late = vec![];
        for (job, grant) in &mut self.granted {
            if !grant.is_sent && now.duration_since(grant.at) >= COURTESY {
                grant.is_sent = true;
                late.push(*job);
            }
        }
        for (job, known) in self.waiting.values_mut().flatten() {
            if known.is_own && !known.is_told && now.duration_since(known.since) >= LONG {
                known.is_told = true;
                late.push(*job);
            }
        }
        late
    }

    /// Lets through as many as fit, each time of the organization whose turn it is,
    /// its oldest job first. `room` says how many more those may have that are
    /// limited. Returns those that are to be sent at once.
    pub(super) fn release(
        &mut self,
        window: &Window,
        terms: &HashMap<OrganizationId, Terms>,
        room: &mut HashMap<OrganizationId, usize>,
        records: &Records,
        now: Instant,
    ) -> Vec<JobId> {
        let mut sent = vec![];
        let most = window.free + self.pace.lead(window.slots, now);
        let mut out = self.in_the_way(window, now);
        while out < most {
            let Some(organization) = self.next(room, records) else { break };
            let Some((job, known)) =
                self.waiting.get_mut(&organization).and_then(BTreeMap::pop_first)
            else {
                break;
            };
            let weight = terms.get(&organization).map_or(1, |terms| terms.weight);
            self.fair.serve(organization, weight);
            self.leave_if_empty(&organization);
            if let Some(room) = room.get_mut(&organization) {
                *room = room.saturating_sub(1);
            }
            let Waiting { attempt, is_own, .. } = known;
            self.granted.insert(job, Grant { organization, attempt, at: now, is_sent: is_own });
            out += 1;
            if is_own {
                sent.push(job);
            }
        }
        sent
    }

    /// Grants that take a place in the queue.
    fn in_the_way(&self, window: &Window, now: Instant) -> usize {
        let grants = self.granted.values();
        grants.filter(|grant| window.free == 0 || now.duration_since(grant.at) < STUCK).count()
    }

    /// Whose turn it is. Only organizations whose first job still waits are asked.
    fn next(
        &mut self,
        room: &HashMap<OrganizationId, usize>,
        records: &Records,
    ) -> Option<OrganizationId> {
        let fair = &mut self.fair;
        self.waiting.retain(|organization, jobs| {
            while let Some(first) = jobs.first_entry()
                && !still_waits(records, first.key(), first.get().attempt)
            {
                first.remove();
            }
            if jobs.is_empty() {
                fair.leave(organization);
            }
            !jobs.is_empty()
        });
        let may = self.waiting.iter().filter(|(id, _)| room.get(id).is_none_or(|room| *room > 0));
        let turns = may.map(|(id, jobs)| ((self.fair.turn(id), jobs.keys().next()), id));
        turns.min().map(|(_, organization)| *organization)
    }

    fn leave_if_empty(&mut self, organization: &OrganizationId) {
        if self.waiting.get(organization).is_some_and(BTreeMap::is_empty) {
            self.waiting.remove(organization);
            self.fair.leave(organization);
        }
    }

    /// How many jobs come before one, if it is known here.
    pub(super) fn ahead(
        &self,
        job: &JobRecord,
        attempt: AttemptNumber,
        terms: &HashMap<OrganizationId, Terms>,
    ) -> Option<usize> {
        if let Some(own) = self.granted.get(&job.id).filter(|grant| grant.attempt == attempt) {
            return Some(self.granted.values().filter(|grant| grant.at < own.at).count());
        }
        let own = self.waiting.get(&job.organization)?;
        let before = own.contains_key(&job.id).then(|| own.range(..job.id).count())?;
        let weight = |of: &OrganizationId| terms.get(of).map_or(1, |terms| terms.weight);
        let me = (&job.organization, weight(&job.organization));
        let others = self.waiting.iter().filter(|(of, _)| **of != job.organization);
        let ahead =
            others.map(|(of, jobs)| self.fair.ahead(me, before, (of, weight(of)), jobs.len()));
        Some(self.granted.len() + before + ahead.sum::<usize>())
    }
}

fn still_waits(records: &Records, job: &JobId, attempt: AttemptNumber) -> bool {
    records.job(job).is_some_and(|entry| waiting(&entry.value) == Some(attempt))
}
