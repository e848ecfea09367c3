//! The floor: what bare JetStream takes for the same number of messages of the
//! same size on the same server, measured in the same run.
//!
//! Two measurements. *Dispatch* is a publication and its way to whoever waits.
//! *Life* is the seven durable steps without which no job system of this kind
//! can do: value created, message queued, taken, value moved, event, value
//! moved, event, message acked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use slipway_bus::Bus;
use slipway_bus::floor::{Floor, Taken};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::latency::Latency;
use crate::schedule::Schedule;
use crate::timeline::Timeline;

/// What is done for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Steps {
    /// Publish, take, ack.
    Dispatch,
    /// All seven.
    Life,
}

/// What was found out.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// From when a message was due to when it was taken.
    pub(crate) taken: Latency,
    /// From when it was due to when its last step was stored.
    pub(crate) done: Latency,
    /// The same as `taken`, over time.
    pub(crate) timeline: Timeline,
    /// Messages whose last step was stored.
    pub(crate) count: u64,
    /// How long all of them took.
    pub(crate) seconds: f64,
}

/// Sends `schedule.count` messages of `size` bytes through the floor to
/// `takers`.
///
/// # Errors
/// NATS refuses something.
pub(crate) async fn measure(
    bus: &Bus,
    schedule: Schedule,
    steps: Steps,
    takers: usize,
    size: usize,
    stop: &CancellationToken,
) -> Result<Found, Error> {
    let floor = Floor::create(bus, 1).await.map_err(Error::floor)?;
    let found = through(&floor, schedule, steps, takers, size, stop).await;
    floor.remove().await.map_err(Error::floor)?;
    found
}

async fn through(
    floor: &Floor,
    schedule: Schedule,
    steps: Steps,
    takers: usize,
    size: usize,
    stop: &CancellationToken,
) -> Result<Found, Error> {
    let count = usize::try_from(schedule.count).unwrap_or(usize::MAX);
    let shared = Arc::new(Shared {
        floor: floor.clone(),
        steps,
        payload: Bytes::from(vec![b'x'; size]),
        revisions: (0..count).map(|_| AtomicU64::new(0)).collect(),
        ended: (0..count).map(|_| tokio::sync::watch::channel(None).0).collect(),
    });
    let mut workers = JoinSet::new();
    let over = CancellationToken::new();
    for _ in 0..takers.max(1) {
        workers.spawn(over.clone().run_until_cancelled_owned(take(shared.clone())));
    }
    let begun = Instant::now();
    let mut found = Found::default();
    let mut failed = None;
    let start = |number, due| send(shared.clone(), number, due);
    let done = |sent: Result<(Instant, Times), Error>| match sent {
        Ok((due, times)) => {
            found.count += 1;
            found.taken.record(times.taken - due);
            found.done.record(times.done - due);
            found.timeline.record(due - begun, times.taken - due);
        }
        Err(error) => {
            failed.get_or_insert(error);
        }
    };
    schedule.drive(stop, start, done).await;
    found.seconds = begun.elapsed().as_secs_f64();
    over.cancel();
    while workers.join_next().await.is_some() {}
    failed.map_or(Ok(found), Err)
}

struct Shared {
    floor: Floor,
    steps: Steps,
    payload: Bytes,
    revisions: Vec<AtomicU64>,
    ended: Vec<tokio::sync::watch::Sender<Option<Times>>>,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    taken: Instant,
    done: Instant,
}

/// Creates and publishes one, and waits until it is done.
async fn send(shared: Arc<Shared>, number: u64, due: Instant) -> Result<(Instant, Times), Error> {
    let Shared { floor, payload, .. } = &*shared;
    if shared.steps == Steps::Life {
        let revision = floor.put(number, payload, 0).await.map_err(Error::floor)?;
        shared.revisions[number as usize].store(revision, Ordering::Release);
    }
    floor.publish(number, payload).await.map_err(Error::floor)?;
    let mut ended = shared.ended[number as usize].subscribe();
    // A message of a stream on disk does not get lost; only a server that goes
    // away is waited for in vain.
    let limit = Duration::from_secs(120);
    let times = tokio::time::timeout(limit, ended.wait_for(Option::is_some)).await;
    let times = times.ok().and_then(Result::ok).and_then(|times| *times);
    times.map(|times| (due, times)).ok_or(Error::FloorStalled)
}

/// Takes until it is ended, and does what a worker and the records must.
async fn take(shared: Arc<Shared>) {
    let mut taker = shared.floor.taker();
    while let Some(taken) = taker.next().await {
        // What fails is missed by the sender, who says so.
        if let Ok(done) = work(&shared, &taken).await
            && let Some(ended) = shared.ended.get(taken.number as usize)
        {
            ended.send_replace(Some(Times { taken: taken.at, done }));
        }
    }
}

async fn work(shared: &Shared, taken: &Taken) -> Result<Instant, Error> {
    let Shared { floor, payload, .. } = shared;
    let number = taken.number;
    if shared.steps == Steps::Life {
        let revision = shared.revisions[number as usize].load(Ordering::Acquire);
        let revision = floor.put(number, payload, revision).await.map_err(Error::floor)?;
        floor.event(number, "started", payload).await.map_err(Error::floor)?;
        floor.put(number, payload, revision).await.map_err(Error::floor)?;
        floor.event(number, "published", payload).await.map_err(Error::floor)?;
    }
    taken.ack().await.map_err(Error::floor)?;
    Ok(Instant::now())
}
