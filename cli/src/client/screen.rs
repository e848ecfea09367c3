//! What a user sees of a build: live on a terminal, lines in a pipe, JSON for
//! programs.
//!
//! Invariant: every screen gets the same [`Happening`]s in the same order; they
//! differ in form only.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::time::Duration;

use slipway_api::own::Job;
use slipway_api::types::Snapshot;
use slipway_context::{Packed, Progress};
use slipway_domain::{LogEntry, LogEvent};

use super::follow::Ending;
use super::report::Report;

mod json;
mod live;
mod plain;

pub use json::line as json_line;

/// Something that happened to a build.
#[derive(Debug)]
pub enum Happening<'a> {
    /// The context is being packed.
    Packing(Progress),
    /// Files changed under the packer; it starts again.
    ContextChanged,
    /// The context is on its way, in bytes.
    Uploading { sent: u64, size: u64 },
    /// The server has the context; it had it before if `is_known`.
    ContextReady { packed: &'a Packed, is_known: bool },
    /// The server has accepted the snapshot.
    Submitted(&'a Snapshot),
    /// The command ends here, the build does not.
    Detached(&'a Snapshot),
    /// The job moved, or waits for another reason.
    Job(&'a Job),
    /// A later attempt has begun.
    Attempt(u32),
    /// The next entry of the log.
    Entry(&'a LogEntry),
    /// The connection is lost and will be made again.
    Reconnecting { pause: Duration },
    /// The build has ended.
    Finished(&'a Report),
}

/// Shows what happens.
pub trait Screen: Send {
    /// Shows one thing; may be called often. Log entries may be held back until
    /// [`Screen::flush`] or until something else happens.
    fn show(&mut self, happening: &Happening<'_>) -> io::Result<()>;

    /// Nothing follows at once: whatever was held back is shown.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Takes everything that moves off the terminal.
    fn close(&mut self) {}
}

/// The screen that fits: JSON if asked for, live if somebody watches.
pub fn choose(json: bool) -> Box<dyn Screen> {
    if json {
        Box::new(json::Json)
    } else if io::stdout().is_terminal() && io::stderr().is_terminal() {
        Box::new(live::Live::new())
    } else {
        Box::new(plain::Plain::new())
    }
}

/// The bare log on standard output, as it was written.
#[derive(Debug)]
pub struct LogScreen {
    json: bool,
    /// A line would otherwise be a write of its own.
    out: BufWriter<Stdout>,
}

impl LogScreen {
    /// Text, or every entry as JSON.
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(io::stdout()) }
    }

    /// How the build ended, for those who watched; not part of the log's text.
    pub fn ended(&mut self, ending: &Ending) -> io::Result<()> {
        self.flush()?;
        if self.json {
            let end = LogEvent::End { state: ending.state.clone(), reason: ending.reason.clone() };
            return json::line(&end);
        }
        if ending.state != "succeeded" {
            let reason = ending.reason.as_deref().unwrap_or("the server gives no reason");
            eprintln!("the build ended as {}: {reason}", ending.state);
        }
        Ok(())
    }
}

impl Screen for LogScreen {
    fn show(&mut self, happening: &Happening<'_>) -> io::Result<()> {
        match happening {
            Happening::Entry(entry) if self.json => json::write(&mut self.out, entry),
            Happening::Entry(entry) => match &entry.event {
                LogEvent::Line { text, .. } => writeln!(self.out, "{text}"),
                LogEvent::Step(_) | LogEvent::End { .. } => Ok(()),
            },
            Happening::Job(job) if !self.json => {
                if let Some(waiting) = &job.waiting {
                    self.out.flush()?;
                    eprintln!("waiting: {waiting}");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is said once the server has the context.
fn context_line(packed: &Packed, is_known: bool) -> String {
    use super::format;
    let files = format::count(packed.total.entries, "entry").replace("entrys", "entries");
    let size = format::bytes(packed.digest.size);
    let sent = if is_known { "the server has it already" } else { "uploaded" };
    let sockets = match packed.sockets.len() {
        0 => String::new(),
        count => format!(", {} left out", format::count(count as u64, "socket")),
    };
    format!("context: {files}, {size}, {sent}{sockets}")
}

/// What is said when a job moves.
fn job_line(job: &Job) -> Option<String> {
    if let Some(waiting) = &job.waiting {
        return Some(format!("waiting: {waiting}"));
    }
    let worker = job.attempts.last().and_then(|attempt| attempt.worker.as_deref());
    match (job.state.as_str(), worker) {
        ("queued", _) => Some(format!("queued in {}", job.region)),
        ("running", Some(worker)) => Some(format!("building in {} on {worker}", job.region)),
        _ => None,
    }
}
