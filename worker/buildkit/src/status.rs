//! BuildKit's status messages as events.
//!
//! Owns what BuildKit leaves to its readers: it reports a vertex several times,
//! in parts and again, and names it by digest. Invariant: memory grows with the
//! number of vertices alone; a vertex's number never changes.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bytes::Bytes;

use crate::event::{BuildEvent, Stream};
use crate::redact::Redactor;

/// Turns the status messages of one solve into events.
#[derive(Debug)]
pub(crate) struct Tracker {
    redactor: Redactor,
    vertices: HashMap<String, Vertex>,
    /// The last number given.
    last_index: u32,
}

#[derive(Debug, Default)]
struct Vertex {
    name: String,
    /// Given at the first thing the vertex does.
    index: Option<u32>,
    phase: Phase,
    first_start: Option<Duration>,
    /// Of the phases that ended.
    ran: Duration,
}

/// Times are since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Announced,
    Running {
        since: Duration,
    },
    Ended {
        at: Duration,
    },
}

impl Tracker {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self { redactor, vertices: HashMap::new(), last_index: 0 }
    }

    /// The events in `message`, in order: what a vertex says or does belongs
    /// between its start and its end, although BuildKit lists these together.
    pub(crate) fn apply(&mut self, message: proto::StatusResponse) -> Vec<BuildEvent> {
        let mut events = Vec::new();
        for vertex in &message.vertexes {
            self.start(vertex, &mut events);
        }
        for status in message.statuses {
            self.progress(status, &mut events);
        }
        for log in message.logs {
            self.log(log, &mut events);
        }
        for warning in message.warnings {
            self.warning(warning, &mut events);
        }
        for vertex in &message.vertexes {
            self.end(vertex, &mut events);
        }
        events
    }

    fn start(&mut self, update: &proto::Vertex, events: &mut Vec<BuildEvent>) {
        let vertex = self.vertices.entry(update.digest.clone()).or_default();
        if !update.name.is_empty() {
            vertex.name = self.redactor.line(&update.name);
        }
        let Some(since) = update.started.as_ref().and_then(since_epoch) else { return };
        let begins = match vertex.phase {
            Phase::Announced => true,
            Phase::Running { .. } => false,
            // A report of a phase that ended comes again, and is no new start.
            Phase::Ended { at } => since > at && !update.cached,
        };
        if begins {
            vertex.phase = Phase::Running { since };
            vertex.first_start.get_or_insert(since);
            let index = vertex.number(&mut self.last_index);
            events.push(BuildEvent::VertexStarted { index, name: vertex.name.clone() });
        }
    }

    fn end(&mut self, update: &proto::Vertex, events: &mut Vec<BuildEvent>) {
        let Some(at) = update.completed.as_ref().and_then(since_epoch) else { return };
        let vertex = self.vertices.entry(update.digest.clone()).or_default();
        let Phase::Running { since } = vertex.phase else { return };
        if at < since {
            return; // the end of an earlier phase, told again
        }
        vertex.phase = Phase::Ended { at };
        vertex.ran += at - since;
        let index = vertex.number(&mut self.last_index);
        events.push(if update.cached {
            BuildEvent::VertexCached { index }
        } else if update.error.is_empty() {
            BuildEvent::VertexDone { index, duration: vertex.ran }
        } else if is_canceled(&update.error) {
            BuildEvent::VertexCanceled { index }
        } else {
            BuildEvent::VertexFailed { index, error: self.redactor.message(&update.error) }
        });
        let time = |since_epoch| SystemTime::UNIX_EPOCH + since_epoch;
        events.push(BuildEvent::VertexTimed { index, started: time(since), ended: time(at) });
    }

    fn progress(&mut self, status: proto::VertexStatus, events: &mut Vec<BuildEvent>) {
        let (index, _) = self.index_of(&status.vertex, events);
        let id = if status.id.is_empty() { &status.name } else { &status.id };
        let done = match (&status.started, &status.completed) {
            (Some(started), Some(completed)) => since_epoch(completed)
                .zip(since_epoch(started))
                .map(|(completed, started)| completed.saturating_sub(started)),
            _ => None,
        };
        events.push(BuildEvent::Progress {
            index,
            id: self.redactor.line(id),
            current: u64::try_from(status.current).unwrap_or_default(),
            total: u64::try_from(status.total).unwrap_or_default(),
            done,
        });
    }

    fn log(&mut self, log: proto::VertexLog, events: &mut Vec<BuildEvent>) {
        let (index, started) = self.index_of(&log.vertex, events);
        let at = log.timestamp.as_ref().and_then(since_epoch);
        events.push(BuildEvent::Log {
            index,
            stream: if log.stream == 2 { Stream::Stderr } else { Stream::Stdout },
            offset: at.zip(started).map(|(at, started)| at.saturating_sub(started)),
            bytes: Bytes::from(log.msg),
        });
    }

    fn warning(&mut self, warning: proto::VertexWarning, events: &mut Vec<BuildEvent>) {
        let line = warning
            .ranges
            .first()
            .and_then(|range| range.start.as_ref())
            .and_then(|start| u32::try_from(start.line).ok())
            .filter(|line| *line > 0);
        events.push(BuildEvent::Warning {
            index: self.vertices.get(&warning.vertex).and_then(|vertex| vertex.index),
            message: self.redactor.line(&String::from_utf8_lossy(&warning.short)),
            line,
            url: Some(self.redactor.line(&warning.url)).filter(|url| !url.is_empty()),
        });
    }

    /// The number of a vertex that does something, and when it began. One that never
    /// said that it started is shown as started, so that its number means something.
    fn index_of(&mut self, digest: &str, events: &mut Vec<BuildEvent>) -> (u32, Option<Duration>) {
        // Asked for each piece of output, so without a copy of the digest.
        if let Some(Vertex { index: Some(index), first_start, .. }) = self.vertices.get(digest) {
            return (*index, *first_start);
        }
        let vertex = self.vertices.entry(digest.to_owned()).or_default();
        let index = vertex.number(&mut self.last_index);
        events.push(BuildEvent::VertexStarted { index, name: vertex.name.clone() });
        (index, vertex.first_start)
    }
}

impl Vertex {
    fn number(&mut self, last: &mut u32) -> u32 {
        *self.index.get_or_insert_with(|| {
            *last += 1;
            *last
        })
    }
}

fn is_canceled(error: &str) -> bool {
    error.ends_with("context canceled")
        || error.ends_with("code = Canceled desc = grpc: the client connection is closing")
}

fn since_epoch(time: &Timestamp) -> Option<Duration> {
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u32::try_from(time.nanos).ok()?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests;
