//! How a snapshot follows its job.
//!
//! A job's record is stored first, by one compare-and-set; what that means for
//! the snapshots that wait for it is derived from the stored record. Invariant:
//! looking again changes nothing, and looking at an older record of the job
//! takes nothing back, so it does not matter who looks, when and how often.

use jiff::Timestamp;

use super::{SnapshotRecord, SnapshotState};
use crate::job::JobRecord;

impl SnapshotRecord {
    /// The record as its job's record wants it, or nothing if it is so already.
    /// It moves at the time at which the job did, so whoever looks writes the
    /// same.
    #[must_use]
    pub fn follow(&self, job: &JobRecord) -> Option<Self> {
        let now = job.updated_at.max(self.updated_at);
        let life = job.revival.redrives;
        if job.id != self.job || life < self.life {
            return None;
        }
        let own = if life > self.life { self.revived(life, now) } else { self.clone() };
        let next = match job.word() {
            Some(word) => own.apply(job.id, word, now),
            None => own,
        };
        (next != *self).then_some(next)
    }

    /// The record as its running job wants it, if all that it has not heard is that
    /// the job began. Nobody has to store that: it follows from the two records for
    /// whoever has both, until the job says how it ended.
    #[must_use]
    pub fn begun(&self, job: &JobRecord) -> Option<Self> {
        let is_pending = matches!(self.state, SnapshotState::Pending);
        let next = self.follow(job).filter(|_| is_pending)?;
        (next.waits() && next.life == self.life).then_some(next)
    }

    /// The record at the beginning of a new life of its job, which forgets how the
    /// one before ended.
    fn revived(&self, life: u32, now: Timestamp) -> Self {
        if self.state == SnapshotState::Removing {
            return self.clone();
        }
        Self { state: SnapshotState::Pending, life, updated_at: now, ..self.clone() }
    }

    /// Whether its job has yet to say how it ended.
    #[must_use]
    pub const fn waits(&self) -> bool {
        match &self.state {
            SnapshotState::Pending | SnapshotState::Building | SnapshotState::Pulling => true,
            SnapshotState::Active { .. }
            | SnapshotState::Inactive { .. }
            | SnapshotState::BuildFailed { .. }
            | SnapshotState::Error { .. }
            | SnapshotState::Removing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;
    use uuid::Uuid;

    use crate::attempt::{Attempt, AttemptNumber, Nonce};
    use crate::failure::{Failure, FailureKind};
    use crate::ids::{JobId, OrganizationId, SnapshotId};
    use crate::job::{JobEvent, JobRecord, NewJob, RetryPolicy};
    use crate::region::Class;
    use crate::snapshot::tests::{image, snapshot};
    use crate::snapshot::{SnapshotEvent, SnapshotRecord};
    use crate::spec::JobKind;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn job() -> JobRecord {
        let new = NewJob {
            id: JobId::from_uuid(Uuid::from_u128(1)),
            organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
            snapshot: SnapshotId::from_uuid(Uuid::from_u128(2)),
            region: "us".parse().unwrap(),
            class: Class::Cpu,
            kind: JobKind::Build,
            trace: None,
        };
        JobRecord::new(new, NOW)
    }

    fn any_event() -> impl Strategy<Value = JobEvent> {
        let worker = || "w1".parse().unwrap();
        (1..=6_u32, 0..9_u8).prop_map(move |(number, which)| {
            let nonce = Nonce::from_uuid(Uuid::from_u128(1));
            let attempt = Attempt { number: AttemptNumber::new(number), nonce };
            let failed = |kind| {
                let failure = Failure::new(kind, "because");
                JobEvent::Failed { attempt, worker: worker(), failure }
            };
            match which {
                0 | 1 => JobEvent::Started { attempt, worker: worker() },
                2 => JobEvent::Published { attempt, worker: worker(), image: image() },
                3 => failed(FailureKind::RunFailed),
                4 => failed(FailureKind::StoreUnavailable),
                6 => JobEvent::LogArchived,
                7 | 8 => JobEvent::Redrive,
                _ => JobEvent::LeaseLost { attempt },
            }
        })
    }

    /// Every record that the job was stored as, one after another.
    fn history(events: Vec<JobEvent>) -> Vec<JobRecord> {
        let mut records = vec![job()];
        for (n, event) in events.into_iter().enumerate() {
            let last = &records[records.len() - 1];
            let now = NOW + SignedDuration::from_secs(n as i64);
            // Few attempts, so that some histories have several lives.
            let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
            if let Ok(transition) = last.apply(event, now, &retry) {
                records.push(transition.next);
            }
        }
        records
    }

    fn followed(snapshot: &SnapshotRecord, job: &JobRecord) -> SnapshotRecord {
        snapshot.follow(job).unwrap_or_else(|| snapshot.clone())
    }

    #[test]
    fn a_snapshot_waits_until_its_job_is_over_and_then_says_the_same() {
        let worker = || "w1".parse().unwrap();
        let nonce = Nonce::from_uuid(Uuid::from_u128(1));
        let attempt = Attempt { number: AttemptNumber::FIRST, nonce };
        let started = JobEvent::Started { attempt, worker: worker() };
        let lost = JobEvent::LeaseLost { attempt };
        let names: Vec<_> = history(vec![started, lost])
            .iter()
            .map(|job| followed(&snapshot(), job))
            .map(|snapshot| (snapshot.state.name(), snapshot.waits()))
            .collect();
        assert_eq!(names, [("pending", true), ("building", true), ("building", true)]);
        let published = JobEvent::Published { attempt, worker: worker(), image: image() };
        let over = history(vec![published]).pop().unwrap();
        let active = followed(&snapshot(), &over);
        assert_eq!(active.state.image(), Some(&image()));
        assert!(!active.waits());
    }

    #[test]
    fn a_redriven_job_makes_its_snapshot_pending_and_the_past_says_nothing() {
        let nonce = Nonce::from_uuid(Uuid::from_u128(1));
        let gone = |number| JobEvent::Failed {
            attempt: Attempt { number: AttemptNumber::new(number), nonce },
            worker: "w1".parse().unwrap(),
            failure: Failure::new(FailureKind::StoreUnavailable, "because"),
        };
        let records =
            history(vec![gone(1), gone(2), JobEvent::LogArchived, JobEvent::Redrive, gone(3)]);
        let [.., dead, _, redriven, retried] = &records[..] else { panic!("{records:?}") };
        let error = followed(&snapshot(), dead);
        assert_eq!(error.state.name(), "error");
        let pending = followed(&error, redriven);
        assert_eq!(pending.state.name(), "pending");
        assert_eq!(pending.follow(dead), None);
        assert_eq!(followed(&pending, retried).state.name(), "building");
        assert_eq!(followed(&error, retried).state.name(), "building");
    }

    #[test]
    fn that_its_job_began_is_all_that_a_snapshot_need_not_store() {
        let nonce = Nonce::from_uuid(Uuid::from_u128(1));
        let worker = || "w1".parse().unwrap();
        let attempt = Attempt { number: AttemptNumber::FIRST, nonce };
        let started = JobEvent::Started { attempt, worker: worker() };
        let published = JobEvent::Published { attempt, worker: worker(), image: image() };
        let [queued, running, over] = &history(vec![started, published])[..] else { panic!() };
        assert_eq!(snapshot().begun(queued), None);
        let begun = snapshot().begun(running).unwrap();
        assert_eq!((begun.state.name(), begun.updated_at), ("building", running.updated_at));
        assert_eq!((begun.begun(running), snapshot().begun(over)), (None, None));
        let error = SnapshotRecord { life: 0, ..snapshot() };
        let mut redriven = running.clone();
        redriven.revival.redrives = 1;
        assert_eq!(error.begun(&redriven), None, "its life has to be stored");
    }

    proptest! {
        /// Looks at the job's records may be missed, repeated, and come out of
        /// order: one look at the last of them makes up for all.
        #[test]
        fn the_last_look_decides(
            events in prop::collection::vec(any_event(), 0..20),
            looks in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let records = history(events);
            let mut snapshot = snapshot();
            for look in looks {
                snapshot = followed(&snapshot, look.get(&records));
            }
            let last = &records[records.len() - 1];
            let end = followed(&snapshot, last);
            prop_assert_eq!(end.follow(last), None);
            prop_assert_eq!(end.waits(), !last.state.is_over());
            prop_assert_eq!(end.state.name(), followed(&crate::snapshot::tests::snapshot(), last).state.name());
            for earlier in &records {
                prop_assert_eq!(end.follow(earlier), None);
            }
        }

        /// Nothing that the job does brings back a snapshot that is to go.
        #[test]
        fn removal_outlasts_every_word(events in prop::collection::vec(any_event(), 0..20)) {
            let gone = snapshot().apply(job().id, SnapshotEvent::Remove, NOW);
            for job in history(events) {
                prop_assert_eq!(gone.follow(&job), None);
            }
        }
    }
}
