//! A job's log as server-sent events.
//!
//! Event names: `log` (an entry), `end` (the last entry), `job` (the job moved, or
//! waits in another way) and `interrupted` (the log cannot be read now). The
//! last two have no id, so that they never disturb resuming.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use slipway_domain::{JobId, LogEntry, LogEvent};
use tokio::sync::watch;
use tokio::time::Instant;

use super::present;
use crate::logs;
use crate::queue::Queue;
use crate::view::View;

/// Between signs of life on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long changes are waited for that come together: everything changes for every
/// follower.
const CROWD: Duration = Duration::from_millis(25);

/// How often a job that waits tells its place, which changes with every job before it.
const PLACES: Duration = Duration::from_secs(10);

/// The answer to a request for a job's log.
pub fn log(
    view: Arc<View>,
    queue: Arc<Queue>,
    job: JobId,
    entries: BoxStream<'static, Result<LogEntry, logs::Error>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ended = Arc::new(tokio::sync::Notify::new());
    let signal = ended.clone();
    let entries = entries.map(entry_event).chain(stream::poll_fn(move |_| {
        signal.notify_one();
        std::task::Poll::Ready(None)
    }));
    let states = job_events(view, queue, job).take_until(async move { ended.notified().await });
    Sse::new(stream::select(entries, states).map(Ok))
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

fn entry_event(entry: Result<LogEntry, logs::Error>) -> Event {
    match entry {
        Ok(entry) => {
            let name = match entry.event {
                LogEvent::End { .. } => "end",
                LogEvent::Line { .. } | LogEvent::Step(_) => "log",
            };
            json(Event::default().event(name).id(entry.seq.to_string()), &entry)
        }
        Err(error) => {
            tracing::warn!(error = slipway_runtime::telemetry::chain(&error), "log reader failed");
            // Without an id: the client resumes after the last entry it has.
            Event::default().event("interrupted").data("the log cannot be read now, reconnect")
        }
    }
}

/// What becomes of the job, each time it changes, until it is over.
fn job_events(view: Arc<View>, queue: Arc<Queue>, job: JobId) -> BoxStream<'static, Event> {
    let changes = view.changes();
    let followed = Followed { view, queue, changes, job, shown: None };
    stream::unfold(followed, async |mut followed| Some((followed.next().await?, followed))).boxed()
}

/// A job that somebody follows.
struct Followed {
    view: Arc<View>,
    queue: Arc<Queue>,
    changes: watch::Receiver<u64>,
    job: JobId,
    shown: Option<Shown>,
}

/// What was told last.
struct Shown {
    state: &'static str,
    waiting: Option<String>,
    at: Instant,
    is_over: bool,
}

impl Followed {
    /// The next thing to tell; nothing after the job's end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if self.shown.as_ref().is_some_and(|shown| shown.is_over) {
                return None;
            }
            self.changes.mark_unchanged();
            let record = self.view.records().job(&self.job).map(|entry| entry.value)?;
            let place = self.queue.place(&record);
            let waiting = present::waiting(&record, &self.view.fleet(), place);
            let (state, is_over) = (record.state.name(), record.state.is_over());
            let now = Shown { state, waiting, at: Instant::now(), is_over };
            match self.shown.as_ref().map(|shown| shown.tells(&now)) {
                None | Some(Tell::Now) => {
                    self.shown = Some(now);
                    let job = present::job(&record, &self.view, &self.queue);
                    return Some(json(Event::default().event("job"), &job));
                }
                Some(Tell::At(time)) => {
                    let changed = tokio::time::timeout_at(time, self.changes.changed());
                    changed.await.unwrap_or(Ok(())).ok()?;
                }
                Some(Tell::Nothing) => self.changes.changed().await.ok()?,
            }
            // Changes come in crowds, and most are of other jobs.
            tokio::time::sleep(CROWD).await;
        }
    }
}

/// When a change is told.
#[derive(Debug, PartialEq)]
enum Tell {
    Now,
    At(Instant),
    Nothing,
}

impl Shown {
    /// When to tell what is so now, after this was told.
    fn tells(&self, now: &Self) -> Tell {
        if self.state != now.state || self.waiting.is_some() != now.waiting.is_some() {
            return Tell::Now;
        }
        let due = self.at + PLACES;
        match self.waiting == now.waiting {
            true => Tell::Nothing,
            false if now.at >= due => Tell::Now,
            false => Tell::At(due),
        }
    }
}

fn json(event: Event, value: &impl Serialize) -> Event {
    event.json_data(value).unwrap_or_else(|_| Event::default().comment("not representable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_now_and_then_and_a_move_at_once() {
        let start = Instant::now();
        let shown = |state, waiting: Option<&str>, after: u64| Shown {
            state,
            waiting: waiting.map(str::to_owned),
            at: start + Duration::from_secs(after),
            is_over: false,
        };
        let first = shown("queued", Some("behind 9"), 0);
        assert_eq!(first.tells(&shown("queued", Some("behind 9"), 60)), Tell::Nothing);
        assert_eq!(first.tells(&shown("queued", Some("behind 8"), 1)), Tell::At(start + PLACES));
        assert_eq!(first.tells(&shown("queued", Some("behind 2"), 10)), Tell::Now);
        assert_eq!(first.tells(&shown("queued", None, 1)), Tell::Now);
        assert_eq!(first.tells(&shown("running", None, 1)), Tell::Now);
    }
}
