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
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::event::{BuildEvent, Stream};

mod lines;

pub use lines::{LineAssembler, MAX_LINE};

/// A part that counts bytes is shown at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// One line of the build's log, without its line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Number of the vertex, if it belongs to one.
    pub vertex: Option<u32>,
    /// Which output of a process it is from; `None` for our own words.
    pub stream: Option<Stream>,
    /// The whole line, with the number of the vertex in front: no control
    /// characters but tabs, at most [`MAX_LINE`] and a short prefix in bytes.
    pub text: &'a str,
}

/// Turns events into lines.
#[derive(Debug, Default)]
pub struct Renderer {
    vertices: BTreeMap<u32, Vertex>,
    /// Where lines of output are put together, one after the other.
    text: String,
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

    /// Hands the lines that `event` completes to `line`, at `now`.
    pub fn event(&mut self, event: BuildEvent, now: Instant, mut line: impl FnMut(Line<'_>)) {
        match event {
            BuildEvent::VertexStarted { index, name } => self.started(index, name, &mut line),
            BuildEvent::VertexCached { index } => self.ended(index, "CACHED".to_owned(), &mut line),
            BuildEvent::VertexDone { index, duration } => {
                self.ended(index, format!("DONE {}", seconds(duration)), &mut line);
            }
            BuildEvent::VertexFailed { index, error } => {
                self.ended(index, format!("ERROR: {error}"), &mut line);
            }
            BuildEvent::VertexCanceled { index } => {
                self.ended(index, "CANCELED".to_owned(), &mut line);
            }
            BuildEvent::Log { index, stream, offset, bytes } => {
                let output = self.vertices.entry(index).or_default().output(stream);
                output.offset = offset;
                let mut out = Out::new(&mut self.text, index, stream, offset, &mut line);
                output.lines.push(&bytes, now, |text| out.line(text));
            }
            BuildEvent::Progress { index, id, current, total, done } => {
                if let Some(text) = self.progressed(index, id, (current, total), done, now) {
                    own(Some(index), &text, &mut line);
                }
            }
            // The lines say how long a vertex took, not when.
            BuildEvent::VertexTimed { .. } => {}
            BuildEvent::Warning { index, message, line: at, .. } => {
                let place = at.map(|at| format!(" (line {at})")).unwrap_or_default();
                own(index, &format!("WARNING: {message}{place}"), &mut line);
            }
        }
    }

    /// Hands out the unfinished lines that have waited long enough, at `now`.
    pub fn tick(&mut self, now: Instant, mut line: impl FnMut(Line<'_>)) {
        for (&index, vertex) in &mut self.vertices {
            for (stream, output) in &mut vertex.outputs {
                let mut out = Out::new(&mut self.text, index, *stream, output.offset, &mut line);
                output.lines.tick(now, |text| out.line(text));
            }
        }
    }

    /// When [`Renderer::tick`] will have something to do, if nothing happens
    /// until then.
    pub fn next_tick(&self) -> Option<Instant> {
        let outputs = self.vertices.values().flat_map(|vertex| &vertex.outputs);
        outputs.filter_map(|(_, output)| output.lines.next_tick()).min()
    }

    /// Hands out what is left when the events are over.
    pub fn finish(mut self, mut line: impl FnMut(Line<'_>)) {
        for (&index, vertex) in &mut self.vertices {
            vertex.flush(index, &mut self.text, &mut line);
        }
    }

    fn started(&mut self, index: u32, name: String, line: &mut dyn FnMut(Line<'_>)) {
        let vertex = self.vertices.entry(index).or_default();
        if vertex.name == name {
            return; // the next phase of what was shown
        }
        own(Some(index), &name, line);
        vertex.name = name;
    }

    fn ended(&mut self, index: u32, how: String, line: &mut dyn FnMut(Line<'_>)) {
        let vertex = self.vertices.entry(index).or_default();
        vertex.flush(index, &mut self.text, line);
        vertex.parts.clear();
        if vertex.ended.as_ref() != Some(&how) {
            for text in how.split('\n') {
                own(Some(index), text, line);
            }
            vertex.ended = Some(how);
        }
    }

    /// What is to be said of a part, if there is anything new.
    fn progressed(
        &mut self,
        index: u32,
        id: String,
        (current, total): (u64, u64),
        done: Option<Duration>,
        now: Instant,
    ) -> Option<String> {
        let parts = &mut self.vertices.entry(index).or_default().parts;
        let amount = match (current, total) {
            (0, _) => String::new(),
            (current, 0) => format!(" {}", bytes(current)),
            (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
        };
        if let Some(duration) = done {
            parts.remove(&id);
            return Some(format!("{id}{amount} {} done", seconds(duration)));
        }
        let text = format!("{id}{amount}");
        match parts.get_mut(&id) {
            Some(part) if now.saturating_duration_since(part.shown) < PROGRESS_INTERVAL => None,
            // Without an amount there is nothing new to show.
            Some(_) if amount.is_empty() => None,
            Some(part) => {
                part.shown = now;
                Some(text)
            }
            None => {
                parts.insert(id, Part { shown: now });
                Some(text)
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

    fn flush(&mut self, index: u32, text: &mut String, line: &mut dyn FnMut(Line<'_>)) {
        for (stream, mut output) in self.outputs.drain(..) {
            let mut out = Out::new(text, index, stream, output.offset, line);
            output.lines.finish(|text| out.line(text));
        }
    }
}

/// Lines of one output, each with the same prefix, one after the other in the same
/// memory.
struct Out<'a> {
    text: &'a mut String,
    prefix: usize,
    index: u32,
    stream: Stream,
    line: &'a mut dyn FnMut(Line<'_>),
}

impl<'a> Out<'a> {
    fn new(
        text: &'a mut String,
        index: u32,
        stream: Stream,
        offset: Option<Duration>,
        line: &'a mut dyn FnMut(Line<'_>),
    ) -> Self {
        text.clear();
        let written = match offset {
            Some(offset) => write!(text, "#{index} {:.3} ", offset.as_secs_f64()),
            None => write!(text, "#{index} "),
        };
        written.expect("a string takes everything");
        let prefix = text.len();
        Self { text, prefix, index, stream, line }
    }

    fn line(&mut self, text: &str) {
        self.text.truncate(self.prefix);
        self.text.push_str(text);
        let (vertex, stream) = (Some(self.index), Some(self.stream));
        (self.line)(Line { vertex, stream, text: self.text });
    }
}

/// A line of our own words.
fn own(vertex: Option<u32>, text: &str, line: &mut dyn FnMut(Line<'_>)) {
    let numbered = vertex.map(|index| format!("#{index} {text}"));
    line(Line { vertex, stream: None, text: numbered.as_deref().unwrap_or(text) });
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
