//! Pull requests to a consumer, one after another.
//!
//! Owns the pull protocol (ADR-37). The client library has three ways to pull;
//! one asks for the next job while the last one still runs, one loses messages
//! when it has a heartbeat, and one stays blind after a reconnect. This one asks
//! only when its caller waits, and notices within two heartbeats, or at once
//! after a reconnect, that the server forgot the request. Invariant: where messages
//! count as delivered ([`InFlight::Keep`]), never more than one request is open, and
//! one that was in flight when a request became void is handed out, not dropped.

use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, Message, StatusCode, Subscriber};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::time::Instant;

use crate::ack;
use crate::connection::Bus;

const HEARTBEAT: Duration = Duration::from_secs(5);
const EXPIRES: Duration = Duration::from_secs(30);
/// How long to wait for the messages in flight when a request is given up.
const DRAIN: Duration = Duration::from_secs(2);

/// What came of waiting.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// A message.
    Message(Message),
    /// The request is void; ask again, after a pause if the server said no.
    Lost(Lost),
}

/// Why a request is void.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// The connection is a new one.
    #[error("reconnected")]
    Reconnected,
    /// The server went silent.
    #[error("no heartbeat")]
    Silent,
    /// The consumer does not exist, or its leader does not answer.
    #[error("the consumer is gone or without a leader")]
    Gone,
    /// The server ended the request.
    #[error("the server ended the request: {0}")]
    Ended(String),
    /// The client is closed.
    #[error("the connection is closed")]
    Closed,
}

/// A series of pull requests.
pub(crate) struct Pull {
    bus: Bus,
    next_subject: String,
    batch: usize,
    in_flight: InFlight,
    heard: Instant,
    open: Option<Open>,
}

/// What to do about messages in flight when a request becomes void.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// The server counts them as delivered: get hold of them.
    Keep,
    /// They are read again anyway. So more may be on their way than the caller waits
    /// for, and the next request is sent before the last one is used up.
    Forget,
}

impl InFlight {
    /// So many messages of `batch` are still to come when the next request is sent.
    const fn ahead(self, batch: usize) -> usize {
        match self {
            Self::Keep => 0,
            Self::Forget => batch / 2,
        }
    }
}

struct Open {
    inbox: String,
    messages: Subscriber,
    epoch: u64,
    outstanding: usize,
    /// Messages of any kind that came so far.
    taken: u64,
    asked: Instant,
    closing: Option<Closing>,
}

/// A request that is void, while the messages in flight come in.
struct Closing {
    lost: Lost,
    /// Whether the server was told.
    told: bool,
    until: Instant,
}

/// What the server answers with one status message and nothing else.
const NO_REQUEST: &[u8] = b"{";
/// How many messages a request that ended would still have got.
const PENDING_MESSAGES: HeaderName = HeaderName::from_static("Nats-Pending-Messages");

#[derive(Serialize)]
struct Ask {
    batch: usize,
    /// Nanoseconds.
    expires: u64,
    /// Nanoseconds.
    idle_heartbeat: u64,
}

impl Pull {
    /// Will ask `consumer` of `stream` for up to `batch` messages at a time.
    pub(crate) fn new(
        bus: &Bus,
        stream: &str,
        consumer: &str,
        batch: usize,
        in_flight: InFlight,
    ) -> Self {
        let next_subject = bus.api_subject(&format!("CONSUMER.MSG.NEXT.{stream}.{consumer}"));
        let heard = Instant::now();
        Self { bus: bus.clone(), next_subject, batch, in_flight, heard, open: None }
    }

    /// When the server last said something; at first, when this was made.
    pub(crate) const fn heard(&self) -> Instant {
        self.heard
    }

    /// Waits for the next message, asking for more when the last request is
    /// used up. Cancel-safe: what arrives meanwhile is there on the next call.
    pub(crate) async fn next(&mut self) -> Pulled {
        loop {
            if let Some(pulled) = self.close().await {
                return pulled;
            }
            if let Err(lost) = self.ask().await {
                self.open = None;
                return Pulled::Lost(lost);
            }
            let Some(open) = &mut self.open else { continue };
            let silent_at = self.heard.max(open.asked) + 2 * HEARTBEAT;
            let lost = tokio::select! {
                // Messages that are here already come before bad news.
                biased;
                message = open.messages.next() => match message {
                    None => Lost::Closed,
                    Some(message) => {
                        self.heard = Instant::now();
                        match open.take(message, self.in_flight) {
                            Taken::Message(message) => return Pulled::Message(message),
                            Taken::Nothing => continue,
                            Taken::Lost(lost) => lost,
                        }
                    }
                },
                () = self.bus.reconnected(open.epoch) => Lost::Reconnected,
                () = tokio::time::sleep_until(silent_at) => Lost::Silent,
            };
            open.closing = Some(Closing { lost, told: false, until: Instant::now() + DRAIN });
        }
    }

    /// Gives up and returns the messages that were in flight, which the server
    /// counts as delivered. Where the last request was answered there is nothing to do.
    pub(crate) async fn give_up(&mut self) -> Vec<Message> {
        if let Some(open) = &mut self.open
            && open.closing.is_none()
        {
            if self.in_flight == InFlight::Keep && open.outstanding == 0 {
                return Vec::new();
            }
            let until = Instant::now() + DRAIN;
            open.closing = Some(Closing { lost: Lost::Closed, told: false, until });
        }
        let mut in_flight = Vec::new();
        while let Some(Pulled::Message(message)) = self.close().await {
            in_flight.push(message);
        }
        in_flight
    }

    /// Brings a request that is void to its end: what the server sent before it
    /// learned of that is still ours. `None` if no request is closing.
    async fn close(&mut self) -> Option<Pulled> {
        let open = self.open.as_mut()?;
        let closing = open.closing.as_mut()?;
        let until = closing.until;
        if !closing.told {
            closing.told = true;
            if self.in_flight == InFlight::Forget || self.tell().await.is_err() {
                let closing = self.open.take()?.closing?;
                return Some(Pulled::Lost(closing.lost));
            }
        }
        let open = self.open.as_mut()?;
        // Without a connection nothing is in flight, and draining would wait.
        while let Ok(Some(message)) = tokio::time::timeout_at(until, open.messages.next()).await {
            if let Taken::Message(message) = open.take(message, self.in_flight) {
                return Some(Pulled::Message(message));
            }
        }
        let closing = self.open.take()?.closing?;
        Some(Pulled::Lost(closing.lost))
    }

    /// Has the server end the subscription without losing what it has sent. The
    /// client forgets a subscription that it ends, or "drains", while messages
    /// for it are on their way. So it is to end after as many messages as may
    /// still come, and the server is made to send as many.
    async fn tell(&mut self) -> Result<(), Lost> {
        let Some(open) = &mut self.open else { return Ok(()) };
        // One more than what was asked for: a heartbeat may be on its way, too.
        let more = open.outstanding as u64 + 1;
        let end = open.messages.unsubscribe_after(open.taken + more);
        end.await.map_err(|_| Lost::Closed)?;
        for _ in 0..more {
            let (subject, inbox) = (self.next_subject.clone(), open.inbox.clone());
            let sent = self.bus.client().publish_with_reply(subject, inbox, NO_REQUEST.into());
            sent.await.map_err(|_| Lost::Closed)?;
        }
        Ok(())
    }

    /// Makes sure that a request is open, and ahead of the end of the last one if that
    /// does no harm.
    async fn ask(&mut self) -> Result<(), Lost> {
        // Nothing is on its way, and what is asked for over a new connection by an old
        // subscription may be sent before the server knows that.
        if let Some(open) = &self.open
            && open.outstanding == 0
            && open.epoch != self.bus.connected().await
        {
            self.open = None;
        }
        if self.open.is_none() {
            let epoch = self.bus.connected().await;
            let inbox = self.bus.client().new_inbox();
            let messages =
                self.bus.client().subscribe(inbox.clone()).await.map_err(|_| Lost::Closed)?;
            let asked = Instant::now();
            let (outstanding, taken, closing) = (0, 0, None);
            self.open = Some(Open { inbox, messages, epoch, outstanding, taken, asked, closing });
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.outstanding > self.in_flight.ahead(self.batch) {
            return Ok(());
        }
        let ask = Ask {
            batch: self.batch - open.outstanding,
            expires: EXPIRES.as_nanos() as u64,
            idle_heartbeat: HEARTBEAT.as_nanos() as u64,
        };
        let body = serde_json::to_vec(&ask).map_err(|error| Lost::Ended(error.to_string()))?;
        let sent = self.bus.client().publish_with_reply(
            self.next_subject.clone(),
            open.inbox.clone(),
            body.into(),
        );
        sent.await.map_err(|_| Lost::Closed)?;
        open.outstanding = self.batch;
        open.asked = Instant::now();
        Ok(())
    }
}

enum Taken {
    Message(Message),
    Nothing,
    Lost(Lost),
}

impl Open {
    fn take(&mut self, message: Message, in_flight: InFlight) -> Taken {
        self.taken += 1;
        match message.status {
            None | Some(StatusCode::OK) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                return Taken::Message(message);
            }
            Some(StatusCode::IDLE_HEARTBEAT) => return Taken::Nothing,
            Some(StatusCode::NO_RESPONDERS) => return Taken::Lost(Lost::Gone),
            Some(_) => {}
        }
        let words = message.description.unwrap_or_default();
        if matches!(message.status, Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND))
            || words.eq_ignore_ascii_case("batch completed")
        {
            self.ended(message.headers.as_ref(), in_flight);
            Taken::Nothing
        } else if words.eq_ignore_ascii_case("consumer deleted") {
            Taken::Lost(Lost::Gone)
        } else {
            Taken::Lost(Lost::Ended(words))
        }
    }

    /// A request came to its end without all that it asked for. The server says how much
    /// that was; where it is the only one, nothing more comes whatever was said.
    fn ended(&mut self, headers: Option<&HeaderMap>, in_flight: InFlight) {
        let left = headers.and_then(|headers| headers.get(PENDING_MESSAGES));
        let left = left.and_then(|left| left.as_str().parse().ok());
        self.outstanding = match (in_flight, left) {
            (InFlight::Forget, Some(left)) => self.outstanding.saturating_sub(left),
            (InFlight::Keep, _) | (InFlight::Forget, None) => 0,
        };
    }
}

/// Hands messages back that were delivered to nobody. What cannot be handed
/// back is delivered again after the ack wait.
pub(crate) async fn hand_back(bus: &Bus, messages: Vec<Message>) {
    for message in messages {
        if let Some((_, _, acker)) = ack::position(bus, message)
            && let Err(error) = acker.nak(Duration::ZERO).await
        {
            tracing::debug!(%error, "an unwanted message was not handed back");
        }
    }
}
