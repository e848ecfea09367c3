//! What must hold whatever was done to the system, judged over a whole history.
//!
//! Owns the names and the checks. Refuses to look at anything but the history.
//! Invariant: a check that has nothing to look at says so, as a violation: a
//! history that lacks what it must have is not a good one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use crate::history::{Entry, EventSeen, JobSeen, SnapshotSeen, What};

#[cfg(test)]
mod tests;

/// The promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    /// Every acknowledged request reaches exactly one terminal state, and all
    /// schedulers say the same.
    EndsOnce,
    /// A snapshot has one published digest, and the expected one where that is known.
    OneDigest,
    /// No event of a stale attempt took effect.
    NoStaleEffect,
    /// Every blob that an active manifest names is present and hashes right.
    BlobsPresent,
    /// Nothing is left over after the reconcilers ran.
    NoOrphan,
    /// Every log is gapless and ends.
    LogsWhole,
    /// No process panics.
    ProcessesSound,
}

impl Invariant {
    /// Every promise.
    pub const ALL: [Self; 7] = [
        Self::EndsOnce,
        Self::OneDigest,
        Self::NoStaleEffect,
        Self::BlobsPresent,
        Self::NoOrphan,
        Self::LogsWhole,
        Self::ProcessesSound,
    ];

    /// The promise in words.
    #[must_use]
    pub const fn promise(self) -> &'static str {
        match self {
            Self::EndsOnce => "every acknowledged request reaches exactly one terminal state",
            Self::OneDigest => "one published digest per snapshot",
            Self::NoStaleEffect => "no event of a stale attempt took effect",
            Self::BlobsPresent => "every blob of an active manifest is present and hashes right",
            Self::NoOrphan => "no orphan after the reconcilers ran",
            Self::LogsWhole => "every log is gapless and ends",
            Self::ProcessesSound => "no process panics",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.promise())
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How, with the ids that the history has.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

/// States of a snapshot after which only its deletion moves it.
const ENDS: [&str; 3] = ["active", "build_failed", "error"];

/// Everything that a history breaks.
#[must_use]
pub fn check(history: &[Entry]) -> Vec<Violation> {
    let facts = Facts::read(history);
    let mut broken = Broken::default();
    facts.ends_once(&mut broken);
    facts.one_digest(&mut broken);
    facts.no_stale_effect(&mut broken);
    facts.blobs_present(&mut broken);
    facts.logs_whole(&mut broken);
    for entry in history {
        match &entry.what {
            What::Unsettled { what } => broken.add(Invariant::EndsOnce, format!("stuck: {what}")),
            What::Orphan { what } => broken.add(Invariant::NoOrphan, what.clone()),
            What::Panicked { process, line } => {
                broken.add(Invariant::ProcessesSound, format!("{process}: {line}"));
            }
            _ => {}
        }
    }
    broken.0.into_iter().collect()
}

#[derive(Default)]
struct Broken(BTreeSet<Violation>);

impl Broken {
    fn add(&mut self, invariant: Invariant, detail: String) {
        self.0.insert(Violation { invariant, detail });
    }
}

/// What a scheduler said of a snapshot: scheduler, state, digest.
type Answer<'a> = (u32, Option<&'a str>, Option<&'a str>);

/// A history, by what it speaks of.
#[derive(Default)]
struct Facts<'a> {
    /// Snapshot ids of acknowledged requests, by name.
    acknowledged: BTreeMap<&'a str, &'a str>,
    expected: BTreeMap<&'a str, &'a str>,
    delete_asked: BTreeSet<&'a str>,
    deleted: BTreeSet<&'a str>,
    /// Records as they were seen, the last look included, by revision.
    jobs: BTreeMap<&'a str, BTreeMap<u64, &'a JobSeen>>,
    snapshots: BTreeMap<&'a str, BTreeMap<u64, &'a SnapshotSeen>>,
    last_jobs: BTreeMap<&'a str, &'a JobSeen>,
    last_snapshots: BTreeMap<&'a str, &'a SnapshotSeen>,
    events: Vec<&'a EventSeen>,
    /// By the name of the snapshot.
    answers: BTreeMap<&'a str, Vec<Answer<'a>>>,
    images: BTreeMap<&'a str, (&'a str, Option<&'a str>)>,
    logs: BTreeMap<&'a str, &'a What>,
}

impl<'a> Facts<'a> {
    fn read(history: &'a [Entry]) -> Self {
        let mut facts = Self::default();
        for entry in history {
            facts.add(&entry.what);
        }
        facts
    }

    fn add(&mut self, what: &'a What) {
        match what {
            What::Asked { name, expects: Some(digest), .. } => {
                self.expected.insert(name, digest);
            }
            What::Acknowledged { name, snapshot, .. } => {
                self.acknowledged.insert(name, snapshot);
            }
            What::DeleteAsked { name } => {
                self.delete_asked.insert(name);
            }
            What::Deleted { name } => {
                self.deleted.insert(name);
            }
            What::Job(seen) => self.job(seen),
            What::LastJob(seen) => {
                self.job(seen);
                self.last_jobs.insert(&seen.job, seen);
            }
            What::Snapshot(seen) => self.snapshot(seen),
            What::LastSnapshot(seen) => {
                self.snapshot(seen);
                self.last_snapshots.insert(&seen.snapshot, seen);
            }
            What::Event(event) => self.events.push(event),
            What::Answered { scheduler, name, state, digest } => {
                let answer = (*scheduler, state.as_deref(), digest.as_deref());
                self.answers.entry(name).or_default().push(answer);
            }
            What::Image { snapshot, digest, problem, .. } => {
                self.images.insert(snapshot, (digest, problem.as_deref()));
            }
            What::Log { job, .. } => {
                self.logs.insert(job, what);
            }
            _ => {}
        }
    }

    fn job(&mut self, seen: &'a JobSeen) {
        self.jobs.entry(&seen.job).or_default().insert(seen.revision, seen);
    }

    fn snapshot(&mut self, seen: &'a SnapshotSeen) {
        self.snapshots.entry(&seen.snapshot).or_default().insert(seen.revision, seen);
    }

    fn ends_once(&self, broken: &mut Broken) {
        let mut add = |detail| broken.add(Invariant::EndsOnce, detail);
        for (name, id) in &self.acknowledged {
            let last = self.last_snapshots.get(id);
            let deleted = self.deleted.contains(name);
            match last {
                Some(last) if deleted => {
                    add(format!("`{name}` ({id}) was deleted and is {}", last.state));
                }
                None if !self.delete_asked.contains(name) => {
                    add(format!("`{name}` ({id}) was acknowledged and is gone"));
                }
                _ => {}
            }
        }
        for last in self.last_snapshots.values() {
            if !ENDS.contains(&last.state.as_str()) {
                add(format!("`{}` ({}) ended as {}", last.name, last.snapshot, last.state));
            }
            let answers = self.answers.get(last.name.as_str()).map_or(&[][..], Vec::as_slice);
            if answers.is_empty() {
                add(format!("nobody was asked about `{}`", last.name));
            }
            for (scheduler, state, digest) in answers {
                if *state != Some(last.state.as_str()) || *digest != last.digest.as_deref() {
                    let state = state.unwrap_or("gone");
                    let (name, record) = (&last.name, &last.state);
                    add(format!(
                        "scheduler {scheduler} says {state} of `{name}`, which is {record}"
                    ));
                }
            }
        }
        for (id, seen) in &self.snapshots {
            let mut ended: Option<&str> = None;
            for seen in seen.values().filter(|seen| seen.state != "removing") {
                match ended {
                    Some(state) if state != seen.state => {
                        add(format!("snapshot {id} was {state} and became {}", seen.state));
                    }
                    _ => {}
                }
                ended = ended.or(ENDS.contains(&seen.state.as_str()).then_some(&*seen.state));
            }
        }
        for (id, seen) in &self.jobs {
            let mut ended: Option<&str> = None;
            for seen in seen.values() {
                match ended {
                    Some(state) if state != seen.state => {
                        add(format!("job {id} was {state} and became {}", seen.state));
                    }
                    _ => {}
                }
                ended = ended.or(seen.over.then_some(&*seen.state));
            }
        }
        for last in self.last_jobs.values().filter(|last| !last.over) {
            add(format!("job {} ended as {}", last.job, last.state));
        }
    }

    fn one_digest(&self, broken: &mut Broken) {
        let mut add = |detail| broken.add(Invariant::OneDigest, detail);
        for (id, seen) in &self.snapshots {
            let digests: BTreeSet<_> =
                seen.values().filter_map(|seen| seen.digest.as_deref()).collect();
            if digests.len() > 1 {
                add(format!("snapshot {id} had {digests:?}"));
            }
            let name = seen.values().next().map_or("", |seen| seen.name.as_str());
            if let (Some(wanted), Some(got)) = (self.expected.get(name), digests.first())
                && wanted != got
            {
                add(format!("`{name}` ({id}) became {got} and should be {wanted}"));
            }
        }
        for last in self.last_snapshots.values() {
            if (last.state == "active") != last.digest.is_some() {
                add(format!("`{}` is {} with digest {:?}", last.name, last.state, last.digest));
            }
        }
    }

    fn no_stale_effect(&self, broken: &mut Broken) {
        let mut add = |detail| broken.add(Invariant::NoStaleEffect, detail);
        for (id, seen) in &self.jobs {
            let mut before: Option<&JobSeen> = None;
            for seen in seen.values() {
                if let Some(before) = before {
                    if seen.attempt < before.attempt {
                        let (from, to) = (before.attempt, seen.attempt);
                        add(format!("job {id} went from attempt {from} back to {to}"));
                    }
                    let same = seen.attempt == before.attempt;
                    if same
                        && before.nonce.is_some()
                        && seen.nonce.is_some()
                        && before.nonce != seen.nonce
                    {
                        add(format!("attempt {} of job {id} changed hands", seen.attempt));
                    }
                }
                before = Some(seen);
            }
        }
        for last in self.last_jobs.values() {
            let (true, Some(nonce)) = (last.state == "succeeded", &last.nonce) else { continue };
            let reported = self.events.iter().any(|event| {
                event.job == last.job
                    && event.attempt == last.attempt
                    && event.nonce == *nonce
                    && event.event == "published"
                    && event.digest == last.digest
            });
            if !reported {
                let (job, attempt) = (&last.job, last.attempt);
                add(format!("job {job} succeeded without attempt {attempt} having said so"));
            }
        }
        for last in self.last_snapshots.values().filter(|last| last.state == "active") {
            let job = self.last_jobs.get(last.job.as_str());
            if job.is_none_or(|job| job.digest != last.digest) {
                let digest = job.and_then(|job| job.digest.as_deref()).unwrap_or("nothing");
                add(format!("`{}` is {:?}, but its job made {digest}", last.name, last.digest));
            }
        }
    }

    fn blobs_present(&self, broken: &mut Broken) {
        for last in self.last_snapshots.values().filter(|last| last.state == "active") {
            let name = &last.name;
            let detail = match self.images.get(last.snapshot.as_str()) {
                None => format!("the image of `{name}` was not looked at"),
                Some((digest, _)) if Some(*digest) != last.digest.as_deref() => {
                    format!("another image than that of `{name}` was looked at: {digest}")
                }
                Some((digest, Some(problem))) => format!("`{name}` ({digest}): {problem}"),
                Some((_, None)) => continue,
            };
            broken.add(Invariant::BlobsPresent, detail);
        }
    }

    fn logs_whole(&self, broken: &mut Broken) {
        for job in self.last_jobs.keys() {
            let detail = match self.logs.get(job) {
                Some(What::Log { problem: Some(problem), .. }) => problem.clone(),
                Some(What::Log { ended: false, .. }) => "it does not end".to_owned(),
                Some(What::Log { gaps: 0, .. }) => continue,
                Some(What::Log { gaps, .. }) => format!("{gaps} gaps"),
                _ => "it was not read".to_owned(),
            };
            broken.add(Invariant::LogsWhole, format!("the log of job {job}: {detail}"));
        }
    }
}
