//! What happened in a run, as far as it was seen from outside: one JSON object
//! per line, in the order in which it was noted.
//!
//! Invariant: everything that [`crate::invariants`] judges by stands in the
//! history, so a history that was kept can be judged again.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::plan::{Fault, Shape};

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// What was seen.
    #[serde(flatten)]
    pub what: What,
}

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields are the words of the records that they are read from")]
pub enum What {
    /// The run began.
    Began { seed: u64, shape: Shape },
    /// A blow fell.
    Blow(Fault),
    /// A process ended that nobody had killed; it is started again.
    Died { process: String, status: String },
    /// A process said that it panicked.
    Panicked { process: String, line: String },
    /// A snapshot was asked for. `expects` is the digest that it must get, where
    /// that is known beforehand.
    Asked { name: String, region: String, work: String, expects: Option<String> },
    /// The server answered 2xx.
    Acknowledged { name: String, snapshot: String, job: String },
    /// The server answered that it will not, or not now.
    Refused { name: String, status: u16, reason: String },
    /// No answer came: it may be stored or not.
    Unknown { name: String, reason: String },
    /// Its deletion was asked for.
    DeleteAsked { name: String },
    /// The server answered that it is deleted.
    Deleted { name: String },
    /// A record of a job was seen while the system ran.
    Job(JobSeen),
    /// A record of a snapshot was seen while the system ran.
    Snapshot(SnapshotSeen),
    /// All blows were over, and so many milliseconds later nothing moved any more.
    Settled { after_ms: u64 },
    /// Something still moved, or was stuck, at the deadline.
    Unsettled { what: String },
    /// An event of a worker, as its stream holds it.
    Event(EventSeen),
    /// The record of a job when all was over.
    LastJob(JobSeen),
    /// The record of a snapshot when all was over.
    LastSnapshot(SnapshotSeen),
    /// What a scheduler answered about a snapshot when all was over; no state if
    /// there is none.
    Answered { scheduler: u32, name: String, state: Option<String>, digest: Option<String> },
    /// The image of a snapshot, read from the object store.
    Image { snapshot: String, digest: String, blobs: u32, problem: Option<String> },
    /// A job's log, read over HTTP.
    Log { job: String, entries: u64, gaps: u64, ended: bool, problem: Option<String> },
    /// Something was left over that belongs to nothing.
    Orphan { what: String },
}

/// A job's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the record")]
pub struct JobSeen {
    pub job: String,
    pub revision: u64,
    pub state: String,
    pub over: bool,
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A snapshot's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the record")]
pub struct SnapshotSeen {
    pub snapshot: String,
    pub name: String,
    pub revision: u64,
    pub job: String,
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// An event of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the words of the message")]
pub struct EventSeen {
    pub job: String,
    pub attempt: u32,
    pub nonce: String,
    pub worker: String,
    pub event: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A history that grows, kept in memory and written to a file line by line.
pub struct History {
    start: Instant,
    inner: Mutex<Inner>,
    observe: Box<Observe>,
}

/// Told of every entry as it is noted; must return soon.
pub type Observe = dyn Fn(&Entry) + Send + Sync;

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    entries: Vec<Entry>,
    file: File,
}

impl History {
    /// An empty one, written to `path`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path, observe: Box<Observe>) -> io::Result<Self> {
        let inner = Inner { entries: vec![], file: File::create(path)? };
        Ok(Self { start: Instant::now(), inner: Mutex::new(inner), observe })
    }

    /// Notes what was seen. What cannot be written to the file stays in memory.
    pub fn note(&self, what: What) {
        let at_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let entry = Entry { at_ms, what };
        (self.observe)(&entry);
        let mut line = serde_json::to_vec(&entry).expect("an entry is plain data");
        line.push(b'\n');
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.file.write_all(&line) {
            tracing::warn!(%error, "the history was not written");
        }
        inner.entries.push(entry);
    }

    /// All of it so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).entries.clone()
    }
}

/// Reads a history that was kept.
///
/// # Errors
/// A line is not one of a history.
pub fn parse(text: &str) -> Result<Vec<Entry>, serde_json::Error> {
    text.lines().map(serde_json::from_str).collect()
}
