//! Log entries of a job and their sequence numbers.
//!
//! Invariant: within one attempt the numbers run 1, 2, 3, … without a gap, and
//! an entry of a later attempt sorts after every entry of an earlier one.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attempt::AttemptNumber;

mod wire;

pub use wire::{LineEntry, seq_of};

/// Position of an entry in a job's log: `attempt << 32 | n`.
///
/// One number, so that a reader can say "everything after this". It stays
/// below 2^53 (exact in JSON readers) up to attempt 2,097,151.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogSeq(u64);

impl LogSeq {
    /// Before every entry.
    pub const ZERO: Self = Self(0);
    /// After every entry: the number of the closing [`LogEvent::End`].
    pub const END: Self = Self((1 << 53) - 1);

    /// Entry `n` (from 1) of an attempt.
    #[must_use]
    pub const fn new(attempt: AttemptNumber, n: u32) -> Self {
        Self(((attempt.get() as u64) << 32) | n as u64)
    }

    /// The position that a client gave back.
    #[must_use]
    pub const fn from_u64(seq: u64) -> Self {
        Self(seq)
    }

    /// The plain number, as it stands in server-sent event ids.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The attempt that wrote the entry.
    #[must_use]
    pub const fn attempt(self) -> AttemptNumber {
        AttemptNumber::new((self.0 >> 32) as u32)
    }

    /// The position within the attempt, from 1.
    #[must_use]
    pub const fn n(self) -> u32 {
        self.0 as u32
    }

    /// Whether `self` directly follows `previous`: the next entry of the same
    /// attempt, or the first of a later one.
    #[must_use]
    pub fn follows(self, previous: Self) -> bool {
        if self == Self::END {
            return previous < Self::END;
        }
        if self.attempt() == previous.attempt() {
            self.n() == previous.n() + 1
        } else {
            self.attempt() > previous.attempt() && self.n() == 1
        }
    }
}

impl fmt::Display for LogSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LogSeq {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One entry of a job's log. On the wire the fields of its event stand beside its
/// own.
#[derive(Debug, Clone, PartialEq)]
pub struct LogEntry {
    /// Position; see [`LogSeq`].
    pub seq: LogSeq,
    /// When the worker saw it.
    pub time: Timestamp,
    /// What happened.
    pub event: LogEvent,
}

/// Which output of a RUN step a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The builder's own words: step names, results, notices.
    System,
}

/// What a log entry says. On the wire the variant is the field `kind`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LogEvent {
    /// One line of text, without line end and without control characters.
    Line {
        /// Where it came from.
        source: LogSource,
        /// The whole line as shown, for example `#3 [2/5] RUN make`.
        text: String,
    },
    /// A step began, ended or moved; for progress bars. Not part of the text.
    Step(Step),
    /// The last entry: nothing follows, the job is over.
    End {
        /// The state in which the job ended, for example `succeeded`.
        state: String,
        /// Why, if it did not succeed.
        reason: Option<String>,
    },
}

/// A sign of progress of one step (a BuildKit vertex, a layer, an upload).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Number of the step in order of first appearance, from 1.
    pub step: u32,
    /// Its name, for example `[2/5] RUN make`.
    pub name: String,
    /// Where it stands.
    pub status: StepStatus,
    /// What part of the step moved, if it has parts (a layer, an upload).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Bytes done, if the step counts bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<u64>,
    /// Bytes in all, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
}

/// Where a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// It runs.
    Running,
    /// It was taken from the cache.
    Cached,
    /// It ended well.
    Done,
    /// It failed.
    Failed,
}

/// Puts a job's entries in order: drops what was seen before, and what a stale
/// attempt still wrote after a later one had begun. The same entries in the
/// same order always give the same log, whoever merges them.
#[derive(Debug, Clone)]
pub struct LogMerge {
    last: LogSeq,
    gaps: u64,
}

impl LogMerge {
    /// Merges entries after `after`; [`LogSeq::ZERO`] for all of them.
    #[must_use]
    pub const fn after(after: LogSeq) -> Self {
        Self { last: after, gaps: 0 }
    }

    /// Whether the entry belongs to the log. Entries come in stream order.
    pub fn accept(&mut self, entry: &LogEntry) -> bool {
        if entry.seq <= self.last {
            return false;
        }
        if !entry.seq.follows(self.last) {
            self.gaps += 1;
        }
        self.last = entry.seq;
        true
    }

    /// Whether the end was seen.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.last >= LogSeq::END
    }

    /// How often an entry did not follow its predecessor, which means that the
    /// stream lost something.
    #[must_use]
    pub const fn gaps(&self) -> u64 {
        self.gaps
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn later_attempts_sort_after_earlier_ones() {
        let (one, two) = (AttemptNumber::new(1), AttemptNumber::new(2));
        let last = LogSeq::new(one, u32::MAX - 1);
        assert!(LogSeq::new(two, 1) > last);
        assert!(LogSeq::new(two, 1).follows(last));
        assert!(!LogSeq::new(two, 2).follows(last));
        assert!(LogSeq::new(one, 1).follows(LogSeq::ZERO));
        assert!(LogSeq::END.follows(LogSeq::new(two, 7)));
        assert!(!LogSeq::END.follows(LogSeq::END));
    }

    fn line(attempt: u32, n: u32) -> LogEntry {
        LogEntry {
            seq: LogSeq::new(AttemptNumber::new(attempt), n),
            time: Timestamp::UNIX_EPOCH,
            event: LogEvent::Line { source: LogSource::System, text: String::new() },
        }
    }

    #[test]
    fn merge_drops_duplicates_and_the_words_of_a_zombie() {
        let mut merge = LogMerge::after(LogSeq::ZERO);
        let entries = [line(1, 1), line(1, 2), line(1, 2), line(2, 1), line(1, 3), line(2, 2)];
        let kept: Vec<bool> = entries.iter().map(|entry| merge.accept(entry)).collect();
        assert_eq!(kept, [true, true, false, true, false, true]);
        assert_eq!(merge.gaps(), 0);
        assert!(merge.accept(&line(2, 4)));
        assert_eq!(merge.gaps(), 1);
    }
}
