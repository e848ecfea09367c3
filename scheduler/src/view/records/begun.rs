//! Snapshots whose job runs.
//!
//! That a job began is stored with the job alone. Its snapshots are shown as building
//! or pulling by what is derived here whenever either record comes in. Invariant: a
//! snapshot that is held pending stands on no job that began, as far as is known.

use slipway_domain::JobId;
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState};

use super::Records;
use crate::view::kept::Prepared;

impl Records {
    /// A snapshot that comes in, as its job wants it.
    pub(super) fn begun(&self, prepared: Prepared<SnapshotRecord>) -> Prepared<SnapshotRecord> {
        let pending = prepared.whole().filter(|record| record.state == SnapshotState::Pending);
        let begun = pending.and_then(|record| record.begun(&self.jobs.live(&record.job)?.value));
        begun.map_or(prepared, Prepared::new)
    }

    /// A job came in: its snapshots are as it wants them.
    pub(super) fn begin(&mut self, id: JobId) {
        let Some(job) = self.jobs.live(&id).map(|job| job.value.clone()) else { return };
        if job.state.is_over() {
            return;
        }
        let followers: Vec<_> = self.follower_ids(id).collect();
        for follower in followers {
            let known = self.snapshots.live(&follower).cloned();
            let begun = known.and_then(|known| Some((known.value.begun(&job)?, known)));
            if let Some((begun, known)) = begun {
                self.uncount(&follower);
                let begun = Prepared::new(begun);
                let name = self.names.add(begun.outline());
                let line = self.index.line(begun.outline(), name);
                self.count(line);
                self.snapshots.insert(follower, begun, known.revision);
            }
        }
    }

    /// Very many records came in, in any order: all are as their jobs want them.
    pub(super) fn begin_all(&mut self) {
        let jobs: Vec<_> = self.waiting().map(|entry| entry.value.job).collect();
        jobs.into_iter().for_each(|job| self.begin(job));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::job::{JobEvent, JobRecord, RetryPolicy};
    use slipway_domain::{Attempt, AttemptNumber, Nonce};

    use super::*;
    use crate::view::Value;
    use crate::view::records::Watched;
    use crate::view::records::tests::{job, snapshot};

    fn running(n: u128) -> JobRecord {
        let nonce = Nonce::from_uuid(uuid::Uuid::from_u128(1));
        let attempt = Attempt { number: AttemptNumber::FIRST, nonce };
        let started = JobEvent::Started { attempt, worker: "w1".parse().unwrap() };
        let job = job(n);
        let now = job.created_at;
        job.apply(started, now, &RetryPolicy::default()).unwrap().next
    }

    #[test]
    fn in_whatever_order_they_come_and_however_many_a_job_that_runs_shows() {
        for many in [true, false] {
            for job_first in [true, false] {
                let mut records = if many { Records::loading() } else { Records::default() };
                let (snapshot, job) = (snapshot(1, 7), running(7));
                let (id, organization) = (snapshot.id, snapshot.organization);
                let mut values = [Value::Snapshot(snapshot), Value::Job(job)];
                if job_first {
                    values.reverse();
                }
                for (value, revision) in values.into_iter().zip(1..) {
                    records.watched(Watched::Put(Box::new(value.into())), revision);
                }
                records.complete();
                let shown = records.snapshot(&id).unwrap();
                assert_eq!(shown.value.state, SnapshotState::Pulling, "{many} {job_first}");
                assert_eq!(shown.revision, if job_first { 2 } else { 1 });
                assert_eq!(records.waiting().count(), 1);
                assert_eq!(records.usage(&organization).unwrap().in_use(), 1);
            }
        }
    }
}
