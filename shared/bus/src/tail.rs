//! Reading a stream from some point on, for ever, without gap or duplicate.
//!
//! Owns ephemeral consumers for reading: opens one behind the last message seen,
//! and again whenever it was lost or skipped something. Refuses to guess when the
//! stream itself went back: it says so and starts over. Invariants: sequences
//! only grow between two [`Step::Reset`]s; a consumer that is no longer read is
//! deleted.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream;
use async_nats::{Message, jetstream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ack::{self, Position};
use crate::backoff::Backoff;
use crate::connection::{AbandonedConsumer, Bus};
use crate::pull::{InFlight, Lost, Pull, Pulled};

const STREAM_NOT_FOUND: u64 = 10059;
const NO_MESSAGE_FOUND: u64 = 10037;
/// How long the server keeps a consumer that nobody reads, if it was not told.
const INACTIVE: Duration = Duration::from_secs(60);
/// How long nothing may come before a reader that waits to have caught up asks.
const QUIET: Duration = Duration::from_secs(1);

/// Why a stream cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such stream; nobody has ensured the topology.
    #[error("stream `{stream}` does not exist")]
    NoStream {
        /// The stream.
        stream: String,
    },
}

/// What reading yields.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time, and messages are the rule")]
pub(crate) enum Step {
    /// The next message.
    Message(Message, Position),
    /// All that the stream held when it was opened has been handed out. Comes
    /// once, and once more after each [`Step::Reset`].
    CaughtUp,
    /// The stream lost data, or deletions may have been missed: forget what was
    /// read, all that there is follows.
    Reset,
}

/// What to read.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) stream: String,
    /// Subjects; all of the stream's if it is empty.
    pub(crate) filter: String,
    /// Messages asked for at a time.
    pub(crate) batch: usize,
    /// After so long without contact, start over.
    pub(crate) stale_after: Option<Duration>,
}

/// A reader of a stream.
pub(crate) struct Tail {
    bus: Bus,
    source: Source,
    /// The first sequence not yet handed out.
    next: u64,
    /// When the last message handed out was stored, in nanoseconds since 1970:
    /// a stream that lost it and grew again holds another under its sequence.
    last_stored: Option<i128>,
    /// When the stream was created, once known: another time is another stream.
    created: Option<i128>,
    caught_up: CaughtUp,
    in_contact: Instant,
    contact: watch::Sender<Option<Instant>>,
    open: Option<Open>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CaughtUp {
    /// Not before this sequence.
    Not {
        target: u64,
    },
    /// To be said with the next step.
    Due,
    Said,
}

struct Open {
    pull: Pull,
    consumer: Guard,
    /// Consumer sequence of the last message.
    delivered: u64,
    since: Instant,
}

/// Deletes the consumer when dropped.
struct Guard {
    bus: Bus,
    stream: String,
    name: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let consumer = AbandonedConsumer {
            stream: std::mem::take(&mut self.stream),
            name: std::mem::take(&mut self.name),
        };
        self.bus.abandon(consumer);
    }
}

enum OpenError {
    Fatal(Error),
    Passing(String),
    Reset,
}

impl Tail {
    /// Will read what follows sequence `after`; 0 reads all.
    pub(crate) fn new(bus: &Bus, source: Source, after: u64) -> Self {
        Self {
            bus: bus.clone(),
            source,
            next: after + 1,
            last_stored: None,
            created: None,
            caught_up: CaughtUp::Not { target: 0 },
            in_contact: Instant::now(),
            contact: watch::Sender::new(None),
            open: None,
            backoff: Backoff::reopening(),
            retry_at: None,
        }
    }

    /// Since when the stream is heard without interruption; `None` while it is not.
    pub(crate) fn contact(&self) -> watch::Receiver<Option<Instant>> {
        self.contact.subscribe()
    }

    /// The next step, however long it takes and whatever happens to the server
    /// meanwhile. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Step, Error> {
        loop {
            if self.caught_up == CaughtUp::Due {
                self.caught_up = CaughtUp::Said;
                return Ok(Step::CaughtUp);
            }
            if self.open.is_none() {
                match self.reopen().await {
                    Ok(()) => continue,
                    Err(OpenError::Fatal(error)) => return Err(error),
                    Err(OpenError::Reset) => return Ok(self.start_over()),
                    Err(OpenError::Passing(error)) => {
                        let pause = self.backoff.pause();
                        tracing::warn!(stream = %self.source.stream, %error, ?pause, "cannot read the stream");
                        self.retry_at = Some(Instant::now() + pause);
                        continue;
                    }
                }
            }
            if let Some(step) = self.read().await {
                return Ok(step);
            }
        }
    }

    async fn read(&mut self) -> Option<Step> {
        let Some(open) = &mut self.open else { return None };
        let waits = self.caught_up != CaughtUp::Said;
        let pulled = tokio::select! {
            // What is here already starts no timer.
            biased;
            // Either branch may be dropped: pulling is cancel-safe.
            pulled = open.pull.next() => pulled,
            () = tokio::time::sleep(QUIET), if waits => {
                self.ask_whether_caught_up().await;
                return None;
            }
        };
        match pulled {
            Pulled::Message(message) => self.take(message),
            Pulled::Lost(lost) => {
                tracing::debug!(stream = %self.source.stream, %lost, "reading the stream anew");
                self.close();
                // A new connection is worth an attempt at once; a server that
                // ends what it granted is not.
                if !matches!(lost, Lost::Reconnected) {
                    self.retry_at = Some(Instant::now() + self.backoff.pause());
                }
                None
            }
        }
    }

    fn take(&mut self, message: Message) -> Option<Step> {
        let Some(position) = ack::placed(&message) else {
            tracing::warn!(stream = %self.source.stream, "a message without a position");
            return None;
        };
        let open = self.open.as_mut()?;
        if position.consumer_sequence != open.delivered + 1 {
            // Something was lost on the way: read it again.
            self.close();
            return None;
        }
        open.delivered = position.consumer_sequence;
        self.backoff.reset();
        self.next = position.stream_sequence + 1;
        self.last_stored = Some(position.stored_at.as_nanosecond());
        if let CaughtUp::Not { target } = self.caught_up
            && (position.pending == 0 || position.stream_sequence >= target)
        {
            self.caught_up = CaughtUp::Due;
        }
        Some(Step::Message(message, position))
    }

    /// Messages can vanish from the stream before they are read, so that the
    /// one which would end the wait never comes.
    async fn ask_whether_caught_up(&mut self) {
        let Some(open) = &self.open else { return };
        let consumer: Result<PullConsumer, _> = self
            .bus
            .context()
            .get_consumer_from_stream(&open.consumer.name, &self.source.stream)
            .await;
        if let Ok(consumer) = consumer {
            let info = consumer.cached_info();
            let all_here = info.delivered.consumer_sequence == open.delivered;
            if info.num_pending == 0 && all_here {
                self.caught_up = CaughtUp::Due;
            }
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            self.in_contact = open.pull.heard();
            self.contact.send_replace(None);
            if open.since.elapsed() > INACTIVE {
                self.backoff.reset();
            }
        }
    }

    fn start_over(&mut self) -> Step {
        tracing::warn!(stream = %self.source.stream, "the stream may have lost data: reading all of it again");
        self.next = 1;
        self.last_stored = None;
        self.created = None;
        self.caught_up = CaughtUp::Not { target: 0 };
        self.in_contact = Instant::now();
        Step::Reset
    }

    async fn reopen(&mut self) -> Result<(), OpenError> {
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at).await;
            self.retry_at = None;
        }
        self.bus.connected().await;
        let stream = self.bus.context().get_stream(&self.source.stream).await;
        let stream = stream.map_err(|error| self.open_error(&error))?;
        self.check_continuity(&stream).await?;
        let (consumer, pending) = self.create_consumer(&stream).await?;
        let info = stream.cached_info();
        self.created = Some(info.created.unix_timestamp_nanos());
        if self.caught_up != CaughtUp::Said {
            let target = info.state.last_sequence;
            self.caught_up = if pending == 0 { CaughtUp::Due } else { CaughtUp::Not { target } };
        }
        let (stream, batch) = (&self.source.stream, self.source.batch);
        let pull = Pull::new(&self.bus, stream, &consumer.name, batch, InFlight::Forget);
        let since = Instant::now();
        self.open = Some(Open { pull, consumer, delivered: 0, since });
        self.contact.send_replace(Some(since));
        Ok(())
    }

    fn open_error(&self, error: &jetstream::context::GetStreamError) -> OpenError {
        match error.kind() {
            // A stream that we have read comes back, or its server does.
            GetStreamErrorKind::JetStream(error)
                if error.error_code().0 == STREAM_NOT_FOUND && self.created.is_none() =>
            {
                OpenError::Fatal(Error::NoStream { stream: self.source.stream.clone() })
            }
            _ => OpenError::Passing(error.to_string()),
        }
    }

    /// Whether what was read is still the beginning of what there is.
    async fn check_continuity(&self, stream: &stream::Stream) -> Result<(), OpenError> {
        let info = stream.cached_info();
        let another =
            self.created.is_some_and(|created| created != info.created.unix_timestamp_nanos());
        let went_back = info.state.last_sequence + 1 < self.next;
        let stale = self.next > 1
            && self.source.stale_after.is_some_and(|limit| self.in_contact.elapsed() > limit);
        if another || went_back || stale {
            return Err(OpenError::Reset);
        }
        let Some(stored) = self.last_stored else { return Ok(()) };
        match stream.get_raw_message(self.next - 1).await {
            Ok(message) if message.time.unix_timestamp_nanos() != stored => Err(OpenError::Reset),
            Ok(_) => Ok(()),
            // Overwritten or removed since: nothing speaks against it.
            Err(error) => match error.kind() {
                stream::LastRawMessageErrorKind::NoMessageFound => Ok(()),
                stream::LastRawMessageErrorKind::JetStream(error)
                    if error.error_code().0 == NO_MESSAGE_FOUND =>
                {
                    Ok(())
                }
                _ => Err(OpenError::Passing(error.to_string())),
            },
        }
    }

    async fn create_consumer(&self, stream: &stream::Stream) -> Result<(Guard, u64), OpenError> {
        let guard = Guard {
            bus: self.bus.clone(),
            stream: self.source.stream.clone(),
            name: format!("tail-{:032x}", rand::random::<u128>()),
        };
        let config = pull::Config {
            name: Some(guard.name.clone()),
            filter_subject: self.source.filter.clone(),
            deliver_policy: if self.next > 1 {
                DeliverPolicy::ByStartSequence { start_sequence: self.next }
            } else {
                DeliverPolicy::All
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        match stream.create_consumer(config).await {
            Ok(consumer) => Ok((guard, consumer.cached_info().num_pending)),
            Err(error) => Err(OpenError::Passing(error.to_string())),
        }
    }
}
