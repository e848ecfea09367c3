//! What happens while a solve runs, in our own words.
//!
//! Vertices are numbered from 1 in the order in which they first do something,
//! as `docker build` shows them. Texts are fit to be shown except
//! [`BuildEvent::Log`], which carries the bytes as the process wrote them.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

/// One thing that happened. `index` is the number of the vertex.
#[derive(Clone, Debug, PartialEq)]
pub enum BuildEvent {
    /// A vertex began. It can begin again after it was done, for the next of
    /// its phases (resolve, then fetch).
    VertexStarted {
        /// Number of the vertex.
        index: u32,
        /// What it does, on one line, for example `[2/5] RUN make`.
        name: String,
    },
    /// The vertex's result was in the cache; it did not run.
    VertexCached {
        /// Number of the vertex.
        index: u32,
    },
    /// The vertex ended well.
    VertexDone {
        /// Number of the vertex.
        index: u32,
        /// How long it ran, all of its phases together.
        duration: Duration,
    },
    /// The vertex failed.
    VertexFailed {
        /// Number of the vertex.
        index: u32,
        /// What BuildKit said; the typed reason is the solve's
        /// [`Error`](crate::Error).
        error: String,
    },
    /// The vertex was stopped because the solve was, or because another failed.
    VertexCanceled {
        /// Number of the vertex.
        index: u32,
    },
    /// When a phase of a vertex began and ended, by BuildKit's clock; comes after
    /// the event that says how it ended.
    VertexTimed {
        /// Number of the vertex.
        index: u32,
        /// When it began.
        started: SystemTime,
        /// When it ended.
        ended: SystemTime,
    },
    /// A process wrote something.
    Log {
        /// Number of the vertex.
        index: u32,
        /// Where it wrote.
        stream: Stream,
        /// Time since the vertex began, if that is known.
        offset: Option<Duration>,
        /// At most 32 KiB, cut anywhere, not necessarily text.
        bytes: Bytes,
    },
    /// A part of the vertex's work moved on.
    Progress {
        /// Number of the vertex.
        index: u32,
        /// The part, for example `exporting layers` or a layer's digest.
        id: String,
        /// How far it is, in bytes; 0 if that is not counted.
        current: u64,
        /// How far it goes, in bytes; 0 if that is not known.
        total: u64,
        /// How long it took, once it is done.
        done: Option<Duration>,
    },
    /// The frontend found something to improve in the Dockerfile.
    Warning {
        /// Number of the vertex, if the warning has one that was shown.
        index: Option<u32>,
        /// The warning, on one line.
        message: String,
        /// Line of the Dockerfile, from 1.
        line: Option<u32>,
        /// Where the rule is explained.
        url: Option<String>,
    },
}

/// Which of its two outputs a process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
