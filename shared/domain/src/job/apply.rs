//! The transition function of jobs.

use jiff::{SignedDuration, Timestamp};

use super::{
    AttemptRecord, Effect, IllegalTransition, JobEvent, JobRecord, JobState, LogState, RetryPolicy,
    Transition,
};
use crate::attempt::{Attempt, AttemptNumber};
use crate::failure::{Cause, Failure, FailureKind};
use crate::ids::WorkerId;
use crate::image::BuiltImage;
use crate::snapshot::SnapshotEvent;

/// Attempts of one job, handed back ones included, until it is dead: the record
/// lists them all.
const MAX_ATTEMPTS: u32 = 50;

/// How an event's attempt relates to the record.
enum Standing {
    /// The attempt waits, and nobody has reported on it yet.
    Waiting,
    /// The very claim that holds the job.
    Holder,
    /// The job is over, or this claim is the one that ended it.
    Over,
}

impl JobRecord {
    /// Applies `event` at `now`. The caller stores `next` by compare-and-set,
    /// then performs the effects. A repeated event returns the record as it is,
    /// with no effects.
    ///
    /// # Errors
    /// An event of an attempt that does not hold the job is refused.
    pub fn apply(
        &self,
        event: JobEvent,
        now: Timestamp,
        retry: &RetryPolicy,
    ) -> Result<Transition, IllegalTransition> {
        match event {
            JobEvent::Started { attempt, worker } => self.on_started(attempt, worker, now),
            JobEvent::Published { attempt, worker, image } => {
                self.on_published(attempt, worker, image, now)
            }
            JobEvent::Failed { attempt, worker, failure } => {
                self.on_failed(attempt, Some(worker), failure, now, retry)
            }
            JobEvent::LeaseLost { attempt } => {
                let who = match &self.state {
                    JobState::Running { worker, .. } => format!("worker `{worker}`"),
                    _ => "the worker".to_owned(),
                };
                let message = format!("{who} stopped responding and lost its lease");
                let failure = Failure::new(FailureKind::WorkerLost, message);
                self.on_failed(attempt, None, failure, now, retry)
            }
            JobEvent::Cancel => Ok(self.on_cancel(now)),
            JobEvent::LogArchived => Ok(self.on_log_archived()),
            JobEvent::Redrive => self.on_redrive(now),
            JobEvent::Drop => self.on_drop(now),
        }
    }

    fn on_redrive(&self, now: Timestamp) -> Result<Transition, IllegalTransition> {
        self.must_be_dead()?;
        if self.log == LogState::Streamed {
            return Err(IllegalTransition::Unsettled { job: self.id });
        }
        let last = self.current_attempt();
        let mut next = self.moved(JobState::Queued { attempt: last.next(), not_before: None }, now);
        next.log = LogState::Streamed;
        next.revival.redrives += 1;
        next.revival.forgiven = last.get();
        next.revival.dropped = false;
        Ok(Transition { next, effects: vec![Effect::Dispatch] })
    }

    fn on_drop(&self, now: Timestamp) -> Result<Transition, IllegalTransition> {
        self.must_be_dead()?;
        if self.revival.dropped {
            return Ok(self.unchanged());
        }
        let mut next = self.moved(self.state.clone(), now);
        next.revival.dropped = true;
        Ok(Transition { next, effects: vec![] })
    }

    fn must_be_dead(&self) -> Result<(), IllegalTransition> {
        match &self.state {
            JobState::Dead { .. } => Ok(()),
            state => Err(IllegalTransition::NotDead { job: self.id, state: state.name() }),
        }
    }

    fn on_started(
        &self,
        attempt: Attempt,
        worker: WorkerId,
        now: Timestamp,
    ) -> Result<Transition, IllegalTransition> {
        match self.standing(attempt)? {
            Standing::Waiting => {
                let mut next =
                    self.moved(JobState::Running { attempt, worker: worker.clone() }, now);
                next.attempt_mut(attempt.number, now).worker = Some(worker);
                Ok(Transition { next, effects: vec![] })
            }
            Standing::Holder | Standing::Over => Ok(self.unchanged()),
        }
    }

    fn on_published(
        &self,
        attempt: Attempt,
        worker: WorkerId,
        image: BuiltImage,
        now: Timestamp,
    ) -> Result<Transition, IllegalTransition> {
        match self.standing(attempt)? {
            Standing::Waiting | Standing::Holder => {
                let state = JobState::Succeeded { attempt, image };
                let mut next = self.moved(state, now);
                let record = next.attempt_mut(attempt.number, now);
                record.worker = Some(worker);
                record.ended_at = Some(now);
                Ok(next.over())
            }
            Standing::Over => Ok(self.unchanged()),
        }
    }

    fn on_failed(
        &self,
        attempt: Attempt,
        worker: Option<WorkerId>,
        failure: Failure,
        now: Timestamp,
        retry: &RetryPolicy,
    ) -> Result<Transition, IllegalTransition> {
        match self.standing(attempt)? {
            Standing::Waiting | Standing::Holder => {}
            Standing::Over => return Ok(self.unchanged()),
        }
        let mut next = self.clone();
        next.updated_at = now;
        let record = next.attempt_mut(attempt.number, now);
        record.worker = worker.or(record.worker.take());
        record.ended_at = Some(now);
        record.failure = Some(failure.clone());

        if failure.kind.cause() == Cause::Input {
            next.state = JobState::Failed { failure };
            return Ok(next.over());
        }
        let failures = next.failures();
        let since = attempt.number.get().saturating_sub(self.revival.forgiven);
        if failures >= retry.max_attempts || since >= MAX_ATTEMPTS {
            let message = format!("gave up after {failures} attempts: {}", failure.message);
            let failure = Failure { message, ..failure };
            next.state = JobState::Dead { failure };
            return Ok(next.over());
        }
        let not_before = if failure.kind.retries_at_once() {
            None
        } else {
            Some(now + self.pause_after(attempt.number, retry))
        };
        next.state = JobState::Queued { attempt: attempt.number.next(), not_before };
        Ok(Transition { next, effects: vec![Effect::Dispatch] })
    }

    /// Attempts that failed since the job was last redriven; one that was handed
    /// back did nothing wrong.
    fn failures(&self) -> u32 {
        let counted =
            self.attempts.iter().filter(|attempt| attempt.number.get() > self.revival.forgiven);
        let failed = counted.filter_map(|attempt| attempt.failure.as_ref());
        failed.filter(|failure| failure.kind != FailureKind::HandedBack).count() as u32
    }

    fn on_cancel(&self, now: Timestamp) -> Transition {
        match &self.state {
            JobState::Queued { .. } | JobState::Running { .. } => {}
            JobState::Succeeded { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled
            | JobState::Dead { .. } => return self.unchanged(),
        };
        let current = self.current_attempt();
        let mut next = self.moved(JobState::Cancelled, now);
        next.attempt_mut(current, now).ended_at = Some(now);
        next.over()
    }

    fn on_log_archived(&self) -> Transition {
        let mut transition = self.unchanged();
        if self.state.is_over() {
            transition.next.log = LogState::Archived;
        }
        transition
    }

    /// Where an event's attempt stands, or why it is refused.
    fn standing(&self, attempt: Attempt) -> Result<Standing, IllegalTransition> {
        let (job, event, current) = (self.id, attempt.number, self.current_attempt());
        if event > current {
            return Err(IllegalTransition::FutureAttempt { job, event, current });
        }
        match &self.state {
            JobState::Succeeded { attempt: winner, .. } if *winner == attempt => Ok(Standing::Over),
            JobState::Failed { .. } | JobState::Cancelled | JobState::Dead { .. }
                if event == current =>
            {
                Ok(Standing::Over)
            }
            JobState::Queued { .. } if event == current => Ok(Standing::Waiting),
            JobState::Running { attempt: holder, .. } if *holder == attempt => Ok(Standing::Holder),
            JobState::Running { .. } | JobState::Succeeded { .. } if event == current => {
                Err(IllegalTransition::OtherClaim { job, event })
            }
            JobState::Queued { .. }
            | JobState::Running { .. }
            | JobState::Succeeded { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled
            | JobState::Dead { .. } => Err(IllegalTransition::StaleAttempt { job, event, current }),
        }
    }

    fn moved(&self, state: JobState, now: Timestamp) -> Self {
        Self { state, updated_at: now, ..self.clone() }
    }

    fn unchanged(&self) -> Transition {
        Transition { next: self.clone(), effects: vec![] }
    }

    /// The transition into a state that ends the job.
    fn over(self) -> Transition {
        let effects = self.owed();
        Transition { next: self, effects }
    }

    /// What a snapshot that waits for this job has to hear, whatever it heard
    /// before. It follows from the stored record alone, so that a snapshot which
    /// missed a word catches up with the next look. (See
    /// [`SnapshotRecord::follow`](crate::snapshot::SnapshotRecord::follow).)
    #[must_use]
    pub fn word(&self) -> Option<SnapshotEvent> {
        match &self.state {
            JobState::Queued { attempt, .. } if attempt.get() <= self.revival.forgiven + 1 => None,
            // Between two attempts a snapshot stays with what the first began.
            JobState::Queued { .. } | JobState::Running { .. } => Some(SnapshotEvent::Started),
            JobState::Succeeded { image, .. } => Some(SnapshotEvent::Published(image.clone())),
            JobState::Failed { failure } | JobState::Dead { failure } => {
                Some(SnapshotEvent::Failed(failure.clone()))
            }
            JobState::Cancelled => Some(SnapshotEvent::Cancelled),
        }
    }

    /// What the record's state asks for, and what may not have been done yet.
    /// Everything that a transition returns follows from here, so whoever finds
    /// a record can catch up on what a crash swallowed.
    #[must_use]
    pub fn owed(&self) -> Vec<Effect> {
        match (&self.state, self.log) {
            (JobState::Queued { .. }, _) => vec![Effect::Dispatch],
            (JobState::Running { .. }, _) | (_, LogState::Archived) => vec![],
            (JobState::Cancelled, LogState::Streamed) => {
                vec![Effect::StopAttempt { attempt: self.current_attempt() }, Effect::SealLog]
            }
            (
                JobState::Succeeded { .. } | JobState::Failed { .. } | JobState::Dead { .. },
                LogState::Streamed,
            ) => vec![Effect::SealLog],
        }
    }

    /// The entry of an attempt, made if this is its first event.
    fn attempt_mut(&mut self, number: AttemptNumber, now: Timestamp) -> &mut AttemptRecord {
        let known = self.attempts.iter().position(|attempt| attempt.number == number);
        let index = known.unwrap_or_else(|| {
            self.attempts.push(AttemptRecord {
                number,
                worker: None,
                started_at: Some(now),
                ended_at: None,
                failure: None,
            });
            self.attempts.len() - 1
        });
        &mut self.attempts[index]
    }

    /// How long until the waiting attempt may be sent; `None` if it may be now. A wait
    /// that is longer than any pause is of before the clock was set back, and over.
    #[must_use]
    pub fn pause_left(&self, now: Timestamp, retry: &RetryPolicy) -> Option<SignedDuration> {
        let JobState::Queued { not_before, .. } = &self.state else { return None };
        let left = not_before.as_ref()?.duration_since(now);
        (SignedDuration::ZERO < left && left <= retry.max).then_some(left)
    }

    /// Exponential pause with jitter of up to a half, drawn from the job's id so
    /// that jobs which failed together do not come back together.
    fn pause_after(&self, attempt: AttemptNumber, retry: &RetryPolicy) -> SignedDuration {
        let since = attempt.get().saturating_sub(self.revival.forgiven);
        let doublings = since.saturating_sub(1).min(16);
        let full = retry.base.saturating_mul(1 << doublings).min(retry.max);
        let noise = i32::from(self.id.as_uuid().as_bytes()[15]);
        full / 2 + (full / 2) * noise / 255
    }
}
