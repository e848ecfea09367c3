//! The lifecycle of a job: queued, running, over.
//!
//! Invariant: at most one attempt moves a job. An event of any other attempt
//! is refused, a repeated event changes nothing, and a job that is over stays
//! over. A job's record is stored first and decides; its snapshots follow it
//! ([`JobRecord::word`]), at once or whenever somebody looks.

mod apply;
#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use slipway_oci::Digest;

use crate::attempt::{Attempt, AttemptNumber};
use crate::failure::Failure;
use crate::identity::WorkIdentity;
use crate::ids::{JobId, OrganizationId, SnapshotId, WorkerId};
use crate::image::BuiltImage;
use crate::message::{self, JobMessage};
use crate::region::{Class, Region};
use crate::spec::{JobKind, JobSpec};

/// A job as it is stored, under `job.<id>` in the bucket `records`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Form of this record.
    pub version: u32,
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What it makes.
    pub snapshot: SnapshotId,
    /// Where it runs.
    pub region: Region,
    /// On what class of worker.
    pub class: Class,
    /// What kind of work; the work itself stands in the snapshot's record.
    pub kind: JobKind,
    /// Under which identity others may share it, if they may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<WorkIdentity>,
    /// SHA-256 of each of a build's contexts as the server saw them when the work
    /// was asked for, in the order of the spec; empty if it did not see them all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contexts: Vec<Digest>,
    /// Where it stands.
    pub state: JobState,
    /// Every attempt so far, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// Where its log lies.
    pub log: LogState,
    /// What an operator did about it after it was dead.
    #[serde(default, skip_serializing_if = "Revival::is_none")]
    pub revival: Revival,
    /// Where it stands in a trace, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<JobTrace>,
}

/// A job's place in a trace: all its attempts, whoever sends or runs them, are
/// parts of its one span.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobTrace {
    /// Its own span, recorded when it is over, as a `traceparent` of W3C Trace
    /// Context.
    pub own: Box<str>,
    /// The span of the request that submitted it, in the same trace: 16 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Box<str>>,
}

impl JobTrace {
    /// A job's place below the request `parent`; both as `traceparent`.
    #[must_use]
    pub fn new(own: &str, parent: Option<&str>) -> Self {
        let span = |text: &str| text.split('-').nth(2).map(Box::from);
        Self { own: own.into(), parent: parent.and_then(span) }
    }

    /// The request's `traceparent`.
    #[must_use]
    pub fn request(&self) -> Option<String> {
        let mut fields: Vec<&str> = self.own.split('-').collect();
        *fields.get_mut(2)? = self.parent.as_deref()?;
        Some(fields.join("-"))
    }
}

/// What an operator did about a dead job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revival {
    /// How often it was redriven.
    #[serde(default)]
    pub redrives: u32,
    /// Attempts up to this one were made before the last time it was redriven,
    /// and no longer count.
    #[serde(default)]
    pub forgiven: u32,
    /// Whether it was taken from the list of the dead.
    #[serde(default)]
    pub dropped: bool,
}

impl Revival {
    /// Whether nobody did anything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum JobState {
    /// Waits for a worker.
    Queued {
        /// The attempt that waits.
        attempt: AttemptNumber,
        /// It is not sent before this time, after a failure that is retried.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        not_before: Option<Timestamp>,
    },
    /// A worker holds it.
    Running {
        /// The claim that may report.
        attempt: Attempt,
        /// Who holds it.
        worker: WorkerId,
    },
    /// It made an image.
    Succeeded {
        /// The claim that did.
        attempt: Attempt,
        /// The image.
        image: BuiltImage,
    },
    /// Its input cannot be built.
    Failed {
        /// Why.
        failure: Failure,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// The infrastructure failed too often.
    Dead {
        /// The last reason.
        failure: Failure,
    },
}

impl JobState {
    /// Whether nothing more happens.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Queued { .. } | Self::Running { .. } => false,
            Self::Succeeded { .. } | Self::Failed { .. } | Self::Cancelled | Self::Dead { .. } => {
                true
            }
        }
    }

    /// The word for it on the wire and in logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::Running { .. } => "running",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Dead { .. } => "dead",
        }
    }

    /// Why it ended badly, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure } | Self::Dead { failure } => Some(failure),
            Self::Queued { .. }
            | Self::Running { .. }
            | Self::Succeeded { .. }
            | Self::Cancelled => None,
        }
    }
}

/// One attempt, for those who ask what happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which.
    pub number: AttemptNumber,
    /// Who held it.
    pub worker: Option<WorkerId>,
    /// When it was claimed, by the scheduler's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended without an image.
    pub failure: Option<Failure>,
}

/// Where a job's log lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogState {
    /// In the region's log stream.
    Streamed,
    /// In the region's object store.
    Archived,
}

/// What can happen to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEvent {
    /// A worker claimed an attempt.
    Started {
        /// The claim.
        attempt: Attempt,
        /// Who.
        worker: WorkerId,
    },
    /// A worker finished.
    Published {
        /// The claim.
        attempt: Attempt,
        /// Who.
        worker: WorkerId,
        /// What it made.
        image: BuiltImage,
    },
    /// A worker gave up.
    Failed {
        /// The claim.
        attempt: Attempt,
        /// Who.
        worker: WorkerId,
        /// Why.
        failure: Failure,
    },
    /// The lease of a claim is gone: expired, or held by another claim.
    LeaseLost {
        /// The claim that lost it.
        attempt: Attempt,
    },
    /// Somebody wants it stopped.
    Cancel,
    /// The log was archived.
    LogArchived,
    /// An operator gives a dead job a fresh set of attempts. Its log must be
    /// archived, so that what follows is not taken for a part that came late.
    Redrive,
    /// An operator takes a dead job from the list.
    Drop,
}

/// What the caller does after it has stored the next record. Every effect may
/// be repeated, and every one follows from the stored record, so a reconciler
/// can catch up on those that a crash swallowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put the waiting attempt on the region's queue, at its time.
    Dispatch,
    /// Take the job off the queue, close its lease up to this attempt, and tell
    /// the worker that held it.
    StopAttempt {
        /// The last attempt that must not go on.
        attempt: AttemptNumber,
    },
    /// End the log, archive it and drop it from the stream.
    SealLog,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The record to store.
    pub next: JobRecord,
    /// What to do afterwards.
    pub effects: Vec<Effect>,
}

/// An event that the job's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// The event is of an attempt that no longer counts.
    #[error("attempt {event} of job `{job}` is stale: the job is at attempt {current}")]
    StaleAttempt {
        /// The job.
        job: JobId,
        /// The attempt of the event.
        event: AttemptNumber,
        /// The attempt of the record.
        current: AttemptNumber,
    },
    /// The event is of an attempt that was never sent.
    #[error("attempt {event} of job `{job}` was never sent: the job is at attempt {current}")]
    FutureAttempt {
        /// The job.
        job: JobId,
        /// The attempt of the event.
        event: AttemptNumber,
        /// The attempt of the record.
        current: AttemptNumber,
    },
    /// Another worker holds the same attempt.
    #[error("attempt {event} of job `{job}` is held by another claim")]
    OtherClaim {
        /// The job.
        job: JobId,
        /// The attempt.
        event: AttemptNumber,
    },
    /// Only a dead job is redriven or dropped.
    #[error("job `{job}` is {state}: only a dead job can be redriven or dropped")]
    NotDead {
        /// The job.
        job: JobId,
        /// Where it stands.
        state: &'static str,
    },
    /// The log of a dead job is still being archived.
    #[error("the log of job `{job}` is still being stored: try again in a few seconds")]
    Unsettled {
        /// The job.
        job: JobId,
    },
}

/// How often and how fast failures of the infrastructure are retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all.
    pub max_attempts: u32,
    /// Pause before the second attempt; doubles each time.
    pub base: SignedDuration,
    /// Longest pause.
    pub max: SignedDuration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 5,
            base: SignedDuration::from_secs(2),
            max: SignedDuration::from_secs(60),
        }
    }
}

/// What a new job is made of.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// Whose.
    pub organization: OrganizationId,
    /// For what.
    pub snapshot: SnapshotId,
    /// Where.
    pub region: Region,
    /// By what class.
    pub class: Class,
    /// What kind of work.
    pub kind: JobKind,
    /// Where it stands in a trace.
    pub trace: Option<JobTrace>,
}

impl JobRecord {
    /// A job that waits for its first attempt.
    #[must_use]
    pub fn new(job: NewJob, now: Timestamp) -> Self {
        Self {
            version: message::VERSION,
            id: job.id,
            organization: job.organization,
            snapshot: job.snapshot,
            region: job.region,
            class: job.class,
            kind: job.kind,
            identity: None,
            contexts: Vec::new(),
            state: JobState::Queued { attempt: AttemptNumber::FIRST, not_before: None },
            attempts: Vec::new(),
            created_at: now,
            updated_at: now,
            log: LogState::Streamed,
            trace: job.trace,
            revival: Revival::default(),
        }
    }

    /// The message that wakes a worker for the waiting attempt; none if no
    /// attempt waits. Who sends it adds the region's registries.
    #[must_use]
    pub fn message(&self, spec: &JobSpec, time_limit_seconds: u64) -> Option<JobMessage> {
        let JobState::Queued { attempt, .. } = self.state else { return None };
        Some(JobMessage {
            version: message::VERSION,
            job: self.id,
            attempt,
            organization: self.organization,
            snapshot: self.snapshot,
            region: self.region.clone(),
            class: self.class,
            spec: spec.clone(),
            contexts: self.contexts.clone(),
            registries: Vec::new(),
            time_limit_seconds,
        })
    }

    /// The newest attempt that was ever sent or may be sent.
    #[must_use]
    pub fn current_attempt(&self) -> AttemptNumber {
        match &self.state {
            JobState::Queued { attempt, .. } => *attempt,
            JobState::Running { attempt, .. } | JobState::Succeeded { attempt, .. } => {
                attempt.number
            }
            JobState::Failed { .. } | JobState::Cancelled | JobState::Dead { .. } => {
                self.attempts.last().map_or(AttemptNumber::FIRST, |last| last.number)
            }
        }
    }
}
