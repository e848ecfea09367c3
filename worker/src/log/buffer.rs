//! What an attempt has said and nobody has stored yet, as the bytes that will be.
//!
//! Owns numbering and packing: an entry is encoded once, into the chunk in which
//! it travels. Invariants: numbers run without a gap in the order of the bytes;
//! memory is bounded, since who writes waits for room first; nothing is left out
//! unless nobody will ever store it.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use slipway_domain::log::{LineEntry, LogSource};
use slipway_domain::{AttemptNumber, LogEntry, LogEvent, LogSeq};
use tokio::sync::Notify;

/// Bytes after which a chunk is closed; far below the server's 1 MiB, and a
/// single entry is never larger than the rest.
pub(super) const CHUNK: usize = 256 << 10;
/// Closed chunks that may wait while one is on its way.
const WAITING: usize = 4;

/// Entries of one attempt between those who write and the one who stores them.
#[derive(Debug)]
pub(super) struct Buffer {
    state: Mutex<State>,
    /// The first entry of a chunk came, a chunk is full, or the last writer is gone.
    changed: Notify,
    /// A chunk was taken, or nobody takes any more.
    room: Notify,
}

/// Whole lines, one entry each.
#[derive(Debug)]
pub(super) struct Chunk {
    /// The number of its first entry.
    pub(super) first: LogSeq,
    pub(super) bytes: Bytes,
}

#[derive(Debug)]
struct State {
    closed: VecDeque<Chunk>,
    open: Vec<u8>,
    /// Of the open chunk.
    first: LogSeq,
    attempt: AttemptNumber,
    /// The last number given.
    n: u32,
    writers: usize,
    /// Nobody stores anything any more.
    is_abandoned: bool,
}

impl Buffer {
    pub(super) fn new(attempt: AttemptNumber) -> Self {
        let state = State {
            closed: VecDeque::new(),
            open: Vec::new(),
            first: LogSeq::ZERO,
            attempt,
            n: 0,
            writers: 0,
            is_abandoned: false,
        };
        Self { state: Mutex::new(state), changed: Notify::new(), room: Notify::new() }
    }

    /// One more will write; each one says [`Buffer::leave`].
    pub(super) fn join(&self) {
        self.state().writers += 1;
    }

    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.writers -= 1;
        if state.writers == 0 {
            self.changed.notify_one();
        }
    }

    /// Returns when there is room. Cancel-safe.
    pub(super) async fn has_room(&self) {
        while !self.state().has_room() {
            let mut room = pin!(self.room.notified());
            // From here on nothing is missed; what came before is looked at now.
            room.as_mut().enable();
            if self.state().has_room() {
                return;
            }
            room.await;
        }
    }

    /// Appends what `write` says, all of it at `time`.
    pub(super) fn append(&self, time: Timestamp, write: impl FnOnce(&mut Entries<'_>)) {
        let mut state = self.state();
        if state.is_abandoned {
            return;
        }
        let (was_empty, closed) = (state.open.is_empty(), state.closed.len());
        write(&mut Entries { state: &mut state, time });
        if was_empty || state.closed.len() > closed {
            self.changed.notify_one();
        }
    }

    /// The same if there is room at once.
    pub(super) fn try_append(&self, time: Timestamp, write: impl FnOnce(&mut Entries<'_>)) {
        if self.state().has_room() {
            self.append(time, write);
        }
    }

    /// Returns when there is something to store: true; or when nothing will come
    /// any more: false. For one caller, as all that follow. Cancel-safe.
    pub(super) async fn begun(&self) -> bool {
        loop {
            {
                let state = self.state();
                if !state.closed.is_empty() || !state.open.is_empty() {
                    return true;
                }
                if state.writers == 0 {
                    return false;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Returns when a chunk is full or nothing will be added to it. Cancel-safe.
    pub(super) async fn full(&self) {
        loop {
            {
                let state = self.state();
                if !state.closed.is_empty() || state.writers == 0 {
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    /// The next chunk, full or not.
    pub(super) fn take(&self) -> Option<Chunk> {
        let mut state = self.state();
        if state.closed.is_empty() {
            state.close();
        }
        let chunk = state.closed.pop_front();
        self.room.notify_waiters();
        chunk
    }

    /// Nothing will be taken any more: writers need not wait.
    pub(super) fn abandon(&self) {
        self.state().is_abandoned = true;
        self.room.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self) -> bool {
        self.closed.len() < WAITING || self.is_abandoned
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let bytes = std::mem::take(&mut self.open).into();
            self.closed.push_back(Chunk { first: self.first, bytes });
        }
    }
}

/// Where entries are added that came at the same time.
pub(super) struct Entries<'a> {
    state: &'a mut State,
    time: Timestamp,
}

impl Entries<'_> {
    /// Adds a line of text.
    pub(super) fn line(&mut self, source: LogSource, text: &str) {
        let time = self.time;
        self.add(|seq| LineEntry { seq, time, source, text });
    }

    /// Adds anything.
    pub(super) fn event(&mut self, event: LogEvent) {
        let time = self.time;
        self.add(|seq| LogEntry { seq, time, event });
    }

    fn add<T: Serialize>(&mut self, entry: impl FnOnce(LogSeq) -> T) {
        let state = &mut *self.state;
        state.n += 1;
        let seq = LogSeq::new(state.attempt, state.n);
        if state.open.is_empty() {
            state.first = seq;
        }
        serde_json::to_writer(&mut state.open, &entry(seq)).expect("an entry is plain data");
        state.open.push(b'\n');
        if state.open.len() >= CHUNK {
            state.close();
        }
    }
}
