//! A job's log as server-sent events.
//!
//! Event names: `log` (an entry), `end` (the last entry), `job` (the job moved, or
//! waits in another way) and `interrupted` (the log cannot be read now). The
//! last two have no id, so that they never disturb resuming.

use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use slipway_domain::{JobId, LogSeq};
use tokio::sync::watch;
use tokio::time::Instant;

use super::present;
use crate::logs::{self, Piece};
use crate::queue::Queue;
use crate::view::View;

/// Between signs of life on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long changes are waited for that come together: everything changes for every
/// follower.
const CROWD: Duration = Duration::from_millis(25);

/// How often a job that waits tells its place, which changes with every job before it.
const PLACES: Duration = Duration::from_secs(10);

/// The answer to a request for a job's log. Entries that come together travel
/// together: one event each, but not one write.
pub fn log(
    view: Arc<View>,
    queue: Arc<Queue>,
    job: JobId,
    pieces: BoxStream<'static, Result<Piece, logs::Error>>,
) -> Response {
    let ended = Arc::new(tokio::sync::Notify::new());
    let signal = ended.clone();
    let entries = pieces.map(entry_events).chain(stream::poll_fn(move |_| {
        signal.notify_one();
        std::task::Poll::Ready(None)
    }));
    let states = job_events(view, queue, job).take_until(async move { ended.notified().await });
    let events = keep_alive(stream::select(entries, states), KEEP_ALIVE);
    let headers =
        [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events.map(Ok::<_, Infallible>))).into_response()
}

/// The events of a piece, one for each entry.
fn entry_events(piece: Result<Piece, logs::Error>) -> Bytes {
    let piece = match piece {
        Ok(piece) => piece,
        Err(error) => {
            tracing::warn!(error = slipway_runtime::telemetry::chain(&error), "log reader failed");
            // Without an id: the client resumes after the last entry it has.
            let told = "event: interrupted\ndata: the log cannot be read now, reconnect\n\n";
            return Bytes::from_static(told.as_bytes());
        }
    };
    let mut events = Vec::with_capacity(piece.size() + piece.size() / 2);
    for (seq, entry) in piece.lines() {
        let name = if seq == LogSeq::END { "end" } else { "log" };
        write!(events, "event: {name}\nid: {seq}\ndata: ").expect("memory takes everything");
        let start = events.len();
        events.extend_from_slice(entry);
        // In JSON it can only be space between tokens; here it would end the data.
        events[start..].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        events.extend_from_slice(b"\n\n");
    }
    events.into()
}

/// A comment whenever nothing came for a while.
fn keep_alive(
    events: impl Stream<Item = Bytes> + Send + 'static,
    pause: Duration,
) -> impl Stream<Item = Bytes> {
    stream::unfold(events.boxed(), move |mut events| async move {
        // Cancel-safe: the next event of a stream is not lost if nobody waits for it.
        let event = match tokio::time::timeout(pause, events.next()).await {
            Ok(event) => event?,
            Err(_) => Bytes::from_static(b":\n\n"),
        };
        Some((event, events))
    })
}

/// What becomes of the job, each time it changes, until it is over.
fn job_events(view: Arc<View>, queue: Arc<Queue>, job: JobId) -> BoxStream<'static, Bytes> {
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
    async fn next(&mut self) -> Option<Bytes> {
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
                    let job = serde_json::to_string(&job).expect("a job is plain data");
                    return Some(format!("event: job\ndata: {job}\n\n").into());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_entry_is_an_event_as_the_standard_wants_it() {
        let entries = "{\"seq\":4294967297,\"kind\":\"line\"}\n\
                       {\"seq\":4294967298,\r \"text\":\"a\\nb\"}\n\
                       {\"seq\":9007199254740991}\n";
        let events = entry_events(Ok(Piece::of(entries.into()).unwrap()));
        let expected = "event: log\nid: 4294967297\ndata: {\"seq\":4294967297,\"kind\":\"line\"}\n\n\
                        event: log\nid: 4294967298\ndata: {\"seq\":4294967298,  \"text\":\"a\\nb\"}\n\n\
                        event: end\nid: 9007199254740991\ndata: {\"seq\":9007199254740991}\n\n";
        assert_eq!(events, expected);
        let failed =
            entry_events(Err(logs::Error::UnknownJob(JobId::from_uuid(uuid::Uuid::nil()))));
        assert!(failed.starts_with(b"event: interrupted\ndata: ") && failed.ends_with(b"\n\n"));
    }

    #[tokio::test]
    async fn a_silent_stream_shows_that_it_lives() {
        let events = stream::iter([Bytes::from_static(b"a")]).chain(stream::pending());
        let events = keep_alive(events, Duration::from_millis(1)).take(3).collect::<Vec<_>>();
        assert_eq!(events.await, ["a", ":\n\n", ":\n\n"]);
        let ended = keep_alive(stream::empty(), KEEP_ALIVE).collect::<Vec<_>>();
        assert!(ended.await.is_empty());
    }

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
