//! One reader of the log: what it got, in a few numbers however long the log is.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use slipway_api::events::JobEvent;
use slipway_domain::log::LogSource;
use slipway_domain::{LogEntry, LogEvent};

use crate::job;
use crate::latency::Latency;

/// A log that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The same for the same entries in the same order.
    pub digest: u64,
    /// The numbers from 1 that the build printed, up to the first that is not
    /// in its place.
    pub lines: u64,
    /// From the first of these lines to the last, when the worker got them.
    pub printed: Option<Duration>,
    /// The same when the reader got them.
    pub read: Option<Duration>,
    /// Whether lines were there before the reader was. Those say nothing of how
    /// long a line takes.
    pub was_late: bool,
}

/// From a line to the reader's hands, of all readers.
#[derive(Debug, Default)]
pub struct Delays {
    worker: Mutex<Latency>,
    container: Mutex<Latency>,
}

impl Delays {
    /// From when the worker had the line.
    pub fn since_worker(&self) -> Latency {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From when the container wrote it, if the lines say when that was.
    pub fn since_container(&self) -> Latency {
        self.container.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn record(&self, text: &str, from_worker: Duration) {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner).record(from_worker);
        if let Some(written) = clock(text) {
            let time = since_boot().saturating_sub(written);
            self.container.lock().unwrap_or_else(PoisonError::into_inner).record(time);
        }
    }
}

/// The kernel's clock, which containers of this machine share (`/proc/uptime`).
fn since_boot() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// When a line was written, by that clock, cut to hundredths: `#5 0.012 8.25 17` at
/// 8.25 s. A line without it has BuildKit's time in that place, with three digits.
fn clock(line: &str) -> Option<Duration> {
    let time = line.rsplit(' ').nth(1)?;
    let is_cut = time.split_once('.').is_some_and(|(_, digits)| digits.len() == 2);
    time.parse().ok().filter(|_| is_cut).and_then(|time| Duration::try_from_secs_f64(time).ok())
}

/// Takes the events of one follower.
#[derive(Debug)]
pub struct Reader<'a> {
    delays: &'a Delays,
    digest: DefaultHasher,
    joined: Option<Timestamp>,
    lines: u64,
    /// When the first and the last line were printed, and when they came.
    first: Option<(Timestamp, Timestamp)>,
    last: Option<(Timestamp, Timestamp)>,
    was_late: bool,
}

impl<'a> Reader<'a> {
    /// A reader who has nothing yet.
    pub fn new(delays: &'a Delays) -> Self {
        Self {
            delays,
            digest: DefaultHasher::new(),
            joined: None,
            lines: 0,
            first: None,
            last: None,
            was_late: false,
        }
    }

    /// Takes the next event, which came just now.
    pub fn take(&mut self, event: &JobEvent) {
        self.take_at(event, Timestamp::now());
    }

    /// Printed numbers so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Everything was read.
    pub fn log(&self) -> Log {
        let span = self.first.zip(self.last);
        Log {
            digest: self.digest.finish(),
            lines: self.lines,
            printed: span.map(|(first, last)| job::between(first.0, last.0)),
            read: span.map(|(first, last)| job::between(first.1, last.1)),
            was_late: self.was_late,
        }
    }

    fn take_at(&mut self, event: &JobEvent, now: Timestamp) {
        match event {
            // The first one comes when the connection has come about.
            JobEvent::Job(_) => _ = self.joined.get_or_insert(now),
            JobEvent::Log(entry) => self.entry(entry, now),
            JobEvent::Reconnecting { .. } => {}
        }
    }

    fn entry(&mut self, entry: &LogEntry, now: Timestamp) {
        let joined = *self.joined.get_or_insert(now);
        (entry.seq, entry.time).hash(&mut self.digest);
        match &entry.event {
            LogEvent::Line { source, text } => {
                text.hash(&mut self.digest);
                if *source == LogSource::Stdout && number(text) == Some(self.lines + 1) {
                    self.line(text, entry.time, now, joined);
                }
            }
            // Rare, and their text says everything about them.
            LogEvent::Step(step) => format!("{step:?}").hash(&mut self.digest),
            LogEvent::End { state, reason } => (state, reason).hash(&mut self.digest),
        }
    }

    fn line(&mut self, text: &str, printed: Timestamp, now: Timestamp, joined: Timestamp) {
        self.lines += 1;
        self.first.get_or_insert((printed, now));
        self.last = Some((printed, now));
        if printed < joined {
            self.was_late = true;
            return;
        }
        self.delays.record(text, job::between(printed, now));
    }
}

/// The number that a line of a step's output ends with: `#5 0.012 17` is 17.
fn number(line: &str) -> Option<u64> {
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use slipway_domain::{AttemptNumber, LogSeq};

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn line(n: u32, millis: i64, source: LogSource, text: &str) -> JobEvent {
        let seq = LogSeq::new(AttemptNumber::FIRST, n);
        let event = LogEvent::Line { source, text: text.to_owned() };
        JobEvent::Log(LogEntry { seq, time: at(millis), event })
    }

    /// Lines printed at 10, 20 and 30 ms, each read 5 ms later by one who was
    /// there from `joined` on.
    fn read(joined: i64, delays: &Delays) -> Reader<'_> {
        let mut reader = Reader::new(delays);
        reader.joined = Some(at(joined));
        reader.take_at(&line(1, 1, LogSource::System, "#5 RUN seq 1 1"), at(5));
        for n in 1..=3 {
            let event = line(n + 1, i64::from(n) * 10, LogSource::Stdout, &format!("#5 0.1 {n}"));
            reader.take_at(&event, at(i64::from(n) * 10 + 5));
        }
        reader
    }

    #[test]
    fn printed_numbers_are_counted_and_timed() {
        let delays = Delays::default();
        let mut reader = read(0, &delays);
        reader.take_at(&line(5, 40, LogSource::Stdout, "#5 0.1 5"), at(45));
        let log = reader.log();
        assert_eq!(log.lines, 3, "5 does not follow 3");
        let twenty = Some(Duration::from_millis(20));
        assert_eq!((log.printed, log.read, log.was_late), (twenty, twenty, false));
        let summary = delays.since_worker().summary().unwrap();
        assert_eq!((summary.count, summary.max.round()), (3, 5.0));
    }

    #[test]
    fn what_was_printed_before_a_reader_came_is_not_timed() {
        let delays = Delays::default();
        let log = read(15, &delays).log();
        assert_eq!((log.lines, log.was_late), (3, true));
        assert_eq!(delays.since_worker().summary().unwrap().count, 2);
    }

    #[test]
    fn a_line_that_says_when_it_was_written_is_timed_from_there() {
        assert_eq!(clock("#5 0.012 17"), None);
        assert_eq!(clock("17"), None);
        assert_eq!(clock("#5 0.012 8.25 17"), Some(Duration::from_millis(8250)));
        let delays = Delays::default();
        let written = since_boot().as_secs_f64() - 0.5;
        delays.record(&format!("#5 0.1 {written:.2} 1"), Duration::ZERO);
        let taken = delays.since_container().summary().unwrap();
        assert!((490.0..30_000.0).contains(&taken.min), "{taken:?}");
    }

    #[test]
    fn two_logs_are_the_same_only_if_every_entry_is() {
        let delays = Delays::default();
        let whole = read(0, &delays).log();
        assert_eq!(whole.digest, read(25, &delays).log().digest);
        let mut other = read(0, &delays);
        other.take_at(&line(5, 40, LogSource::Stderr, "more"), at(45));
        assert_ne!(whole.digest, other.log().digest);
    }
}
