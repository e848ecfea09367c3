//! Events as plain lines, as `docker build --progress=plain` prints them.
//!
//! ```text
//! #3 [2/5] RUN make
//! #3 0.123 cc -o app main.c
//! #3 DONE 0.4s
//! ```
//!
//! Owns what turns the bytes of processes into lines ([`LineAssembler`]) and
//! events into text. Has no clock: the caller says what time it is, and calls
//! [`Renderer::tick`] when [`Renderer::next_tick`] has come. Memory is bounded
//! by the number of running vertices.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::event::{BuildEvent, Stream};

mod lines;

pub use lines::{LineAssembler, MAX_LINE};

/// A part that counts bytes is shown at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// One line of the build's log, without its line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Number of the vertex, if it belongs to one.
    pub vertex: Option<u32>,
    /// Which output of a process it is from; `None` for our own words.
    pub stream: Option<Stream>,
    /// The whole line, with the number of the vertex in front: no control
    /// characters but tabs, at most [`MAX_LINE`] and a short prefix in bytes.
    pub text: String,
}

/// Turns events into lines.
#[derive(Debug, Default)]
pub struct Renderer {
    vertices: BTreeMap<u32, Vertex>,
}

#[derive(Debug, Default)]
struct Vertex {
    name: String,
    /// The last line about how it ended: a vertex ends once for each of its
    /// phases, and often in the same words.
    ended: Option<String>,
    outputs: Vec<(Stream, Output)>,
    parts: HashMap<String, Part>,
}

/// One output of the vertex's process.
#[derive(Debug, Default)]
struct Output {
    lines: LineAssembler,
    offset: Option<Duration>,
}

/// A part of the vertex's work that goes on.
#[derive(Debug)]
struct Part {
    shown: Instant,
}

impl Renderer {
    /// A renderer that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The lines that `event` completes, at `now`.
    pub fn event(&mut self, event: BuildEvent, now: Instant) -> Vec<Line> {
        match event {
            BuildEvent::VertexStarted { index, name } => self.started(index, name),
            BuildEvent::VertexCached { index } => self.ended(index, "CACHED".to_owned()),
            BuildEvent::VertexDone { index, duration } => {
                self.ended(index, format!("DONE {}", seconds(duration)))
            }
            BuildEvent::VertexFailed { index, error } => {
                self.ended(index, format!("ERROR: {error}"))
            }
            BuildEvent::VertexCanceled { index } => self.ended(index, "CANCELED".to_owned()),
            BuildEvent::Log { index, stream, offset, bytes } => {
                self.logged(index, stream, offset, &bytes, now)
            }
            BuildEvent::Progress { index, id, current, total, done } => {
                self.progressed(index, id, (current, total), done, now)
            }
            // The lines say how long a vertex took, not when.
            BuildEvent::VertexTimed { .. } => vec![],
            BuildEvent::Warning { index, message, line, .. } => {
                let place = line.map(|line| format!(" (line {line})")).unwrap_or_default();
                vec![Line::own(index, &format!("WARNING: {message}{place}"))]
            }
        }
    }

    /// The unfinished lines that have waited long enough, at `now`.
    pub fn tick(&mut self, now: Instant) -> Vec<Line> {
        let mut out = Vec::new();
        for (&index, vertex) in &mut self.vertices {
            for (stream, output) in &mut vertex.outputs {
                let prefix = prefix(index, output.offset);
                output
                    .lines
                    .tick(now, |text| out.push(Line::output(index, *stream, &prefix, text)));
            }
        }
        out
    }

    /// When [`Renderer::tick`] will have something to do, if nothing happens
    /// until then.
    pub fn next_tick(&self) -> Option<Instant> {
        let outputs = self.vertices.values().flat_map(|vertex| &vertex.outputs);
        outputs.filter_map(|(_, output)| output.lines.next_tick()).min()
    }

    /// What is left when the events are over.
    pub fn finish(mut self) -> Vec<Line> {
        let mut out = Vec::new();
        for (&index, vertex) in &mut self.vertices {
            vertex.flush(index, &mut out);
        }
        out
    }

    fn started(&mut self, index: u32, name: String) -> Vec<Line> {
        let vertex = self.vertices.entry(index).or_default();
        if vertex.name == name {
            return Vec::new(); // the next phase of what was shown
        }
        let line = Line::own(Some(index), &name);
        vertex.name = name;
        vec![line]
    }

    fn ended(&mut self, index: u32, how: String) -> Vec<Line> {
        let vertex = self.vertices.entry(index).or_default();
        let mut out = Vec::new();
        vertex.flush(index, &mut out);
        vertex.parts.clear();
        if vertex.ended.as_ref() != Some(&how) {
            out.extend(how.split('\n').map(|line| Line::own(Some(index), line)));
            vertex.ended = Some(how);
        }
        out
    }

    fn logged(
        &mut self,
        index: u32,
        stream: Stream,
        offset: Option<Duration>,
        bytes: &[u8],
        now: Instant,
    ) -> Vec<Line> {
        let output = self.vertices.entry(index).or_default().output(stream);
        output.offset = offset;
        let prefix = prefix(index, offset);
        let mut out = Vec::new();
        output.lines.push(bytes, now, |text| {
            out.push(Line::output(index, stream, &prefix, text));
        });
        out
    }

    fn progressed(
        &mut self,
        index: u32,
        id: String,
        (current, total): (u64, u64),
        done: Option<Duration>,
        now: Instant,
    ) -> Vec<Line> {
        let parts = &mut self.vertices.entry(index).or_default().parts;
        let amount = match (current, total) {
            (0, _) => String::new(),
            (current, 0) => format!(" {}", bytes(current)),
            (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
        };
        if let Some(duration) = done {
            parts.remove(&id);
            let text = format!("{id}{amount} {} done", seconds(duration));
            return vec![Line::own(Some(index), &text)];
        }
        let line = Line::own(Some(index), &format!("{id}{amount}"));
        match parts.get_mut(&id) {
            Some(part) if now.saturating_duration_since(part.shown) < PROGRESS_INTERVAL => vec![],
            // Without an amount there is nothing new to show.
            Some(_) if amount.is_empty() => vec![],
            Some(part) => {
                part.shown = now;
                vec![line]
            }
            None => {
                parts.insert(id, Part { shown: now });
                vec![line]
            }
        }
    }
}

impl Vertex {
    fn output(&mut self, stream: Stream) -> &mut Output {
        let at = match self.outputs.iter().position(|(known, _)| *known == stream) {
            Some(at) => at,
            None => {
                self.outputs.push((stream, Output::default()));
                self.outputs.len() - 1
            }
        };
        &mut self.outputs[at].1
    }

    fn flush(&mut self, index: u32, out: &mut Vec<Line>) {
        for (stream, mut output) in self.outputs.drain(..) {
            let prefix = prefix(index, output.offset);
            output.lines.finish(|text| out.push(Line::output(index, stream, &prefix, text)));
        }
    }
}

impl Line {
    fn own(vertex: Option<u32>, text: &str) -> Self {
        let text = match vertex {
            Some(index) => format!("#{index} {text}"),
            None => text.to_owned(),
        };
        Self { vertex, stream: None, text }
    }

    fn output(index: u32, stream: Stream, prefix: &str, text: &str) -> Self {
        let text = format!("{prefix}{text}");
        Self { vertex: Some(index), stream: Some(stream), text }
    }
}

fn prefix(index: u32, offset: Option<Duration>) -> String {
    match offset {
        Some(offset) => format!("#{index} {:.3} ", offset.as_secs_f64()),
        None => format!("#{index} "),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Decimal units and three digits, as Docker has them.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    let digits = match amount {
        _ if unit == 0 => 0,
        amount if amount < 9.995 => 2,
        amount if amount < 99.95 => 1,
        _ => 0,
    };
    format!("{amount:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests;
