//! A job's log as server-sent events.
//!
//! Event names: `log` (an entry), `end` (the last entry), `job` (the job moved or
//! waits for another reason) and `interrupted` (the log cannot be read now). The
//! last two have no id, so that they never disturb resuming.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use slipway_domain::{JobId, LogEntry, LogEvent};

use super::present;
use crate::logs;
use crate::queue::Queue;
use crate::view::View;

/// Between signs of life on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long changes are waited for that come together: everything changes for every
/// follower.
const CROWD: Duration = Duration::from_millis(25);

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
    let state = (view, queue, changes, None::<(String, Option<String>)>, false);
    stream::unfold(state, move |(view, queue, mut changes, mut shown, over)| async move {
        if over {
            return None;
        }
        loop {
            changes.mark_unchanged();
            let record = view.records().job(&job).map(|entry| entry.value)?;
            let over = record.state.is_over();
            let place = queue.place(&record);
            let waiting = present::waiting(&record, &view.fleet(), place);
            let now = Some((record.state.name().to_owned(), waiting));
            if now != shown {
                shown = now;
                let job = present::job(&record, &view, &queue);
                let event = json(Event::default().event("job"), &job);
                return Some((event, (view, queue, changes, shown, over)));
            }
            changes.changed().await.ok()?;
            // Changes come in crowds, and most are of other jobs.
            tokio::time::sleep(CROWD).await;
        }
    })
    .boxed()
}

fn json(event: Event, value: &impl Serialize) -> Event {
    event.json_data(value).unwrap_or_else(|_| Event::default().comment("not representable"))
}
