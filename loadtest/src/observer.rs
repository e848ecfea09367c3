//! What becomes of the jobs of a run, seen over NATS: to ask the API about each of
//! thousands would be load of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use slipway_bus::Bus;
use slipway_bus::bucket::Change;
use slipway_bus::topology::BucketName;
use slipway_domain::message::{EventMessage, WorkerEvent};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::error::Error;

/// How long news of a start is waited for that is known to have been sent.
const MISSED: Duration = Duration::from_secs(10);

/// How a snapshot ended: its state, and when that was stored and known here.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) state: String,
    pub(crate) message: Option<String>,
    pub(crate) at: Instant,
}

/// Watches until it is dropped.
pub(crate) struct Observer {
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    /// By job, by the worker's clock.
    started: HashMap<String, Timestamp>,
    /// By job or snapshot.
    waiting: HashMap<String, Arc<Notify>>,
    /// By snapshot.
    ended: HashMap<String, End>,
    /// The first reason for which nothing more will be seen.
    broken: Option<String>,
    is_ready: bool,
}

/// As much of a snapshot's record as is looked at.
#[derive(Deserialize)]
struct Record {
    id: String,
    state: State,
}

#[derive(Deserialize)]
struct State {
    state: String,
    failure: Option<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    message: String,
}

impl Observer {
    /// Begins to watch; returns when nothing can be missed any more.
    pub(crate) async fn start(bus: &Bus) -> Result<Self, Error> {
        let seen = Arc::new(Seen::default());
        let mut tasks = JoinSet::new();
        let mut events = bus.events().overhear().await.map_err(Error::observe)?;
        let by_events = seen.clone();
        tasks.spawn(async move {
            while let Some(event) = events.next::<EventMessage>().await {
                if event.event == WorkerEvent::Started {
                    by_events.started(event.job.to_string(), event.at);
                }
            }
            by_events.broken("the connection to NATS is closed");
        });
        let mut records = bus.bucket(&BucketName::Records).watch_keys("snapshot.>", None);
        let by_records = seen.clone();
        tasks.spawn(async move {
            loop {
                match records.next().await {
                    Ok(Change::Put(entry)) => {
                        if let Ok(record) = entry.json::<Record>() {
                            by_records.record(record);
                        }
                    }
                    Ok(Change::Ready) => {
                        by_records.lock().is_ready = true;
                        by_records.changed.notify_one();
                    }
                    Ok(Change::Deleted { .. } | Change::Reset) => {}
                    Err(error) => return by_records.broken(&error.to_string()),
                }
            }
        });
        loop {
            {
                let inner = seen.lock();
                if let Some(why) = &inner.broken {
                    return Err(Error::observe(std::io::Error::other(why.clone())));
                }
                if inner.is_ready {
                    break;
                }
            }
            seen.changed.notified().await;
        }
        Ok(Self { seen, _tasks: tasks })
    }

    /// How a snapshot ends; waits for it.
    pub(crate) async fn end(&self, snapshot: &str) -> End {
        let notify = {
            let mut inner = self.seen.lock();
            if let Some(end) = inner.ended.remove(snapshot) {
                return end;
            }
            inner.waiting.entry(snapshot.to_owned()).or_default().clone()
        };
        loop {
            notify.notified().await;
            if let Some(end) = self.seen.lock().ended.remove(snapshot) {
                return end;
            }
        }
    }

    /// When a worker first began with a job that is over, by that worker's clock;
    /// `None` if that was missed, as happens to an onlooker who is too slow.
    pub(crate) async fn started(&self, job: &str) -> Option<Timestamp> {
        let notify = {
            let mut inner = self.seen.lock();
            if let Some(at) = inner.started.get(job) {
                return Some(*at);
            }
            inner.waiting.entry(job.to_owned()).or_default().clone()
        };
        // It was sent to us before the end was, but is read by another task.
        let _missed = tokio::time::timeout(MISSED, notify.notified()).await;
        self.seen.lock().started.get(job).copied()
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, job: String, at: Timestamp) {
        let mut inner = self.lock();
        if let Some(waiting) = inner.waiting.remove(&job) {
            waiting.notify_one();
        }
        inner.started.entry(job).or_insert(at);
    }

    fn record(&self, record: Record) {
        let at = Instant::now();
        let Record { id, state: State { state, failure } } = record;
        if !matches!(state.as_str(), "active" | "build_failed" | "error") {
            return;
        }
        let message = failure.map(|failure| failure.message);
        let mut inner = self.lock();
        inner.ended.entry(id.clone()).or_insert(End { state, message, at });
        if let Some(waiting) = inner.waiting.remove(&id) {
            waiting.notify_one();
        }
    }

    fn broken(&self, why: &str) {
        self.lock().broken.get_or_insert_with(|| why.to_owned());
        self.changed.notify_one();
    }
}
