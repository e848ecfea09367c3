//! How fast status messages are taken from BuildKit.
//!
//! BuildKit puts into one message what happened since the one before was taken. A
//! process that writes line by line makes a message of each line for whoever takes
//! them at once, and the work of these messages, on both sides, slows the process
//! down. So only so many are taken within a period, and what is written until it ends
//! shares messages: these grow as more is written, so that nothing is held up.
//!
//! Invariant: who gets few messages gets each of them at once.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A period begins with the first message after the one before.
const PERIOD: Duration = Duration::from_millis(10);

/// Messages that are taken within a period. Together with the window of the stream
/// ([`crate::dial`]) it says how much later a line can be: at the beginning of a flood,
/// about a hundred messages of a line each are on their way, which take three or four
/// periods. Half or a quarter as many do not make the process faster.
const MOST: u32 = 32;

/// Says when the next message may be taken.
#[derive(Debug)]
pub(crate) struct Pace {
    taken: u32,
    period_ends: Instant,
}

impl Pace {
    /// Nothing was taken yet.
    pub(crate) fn new() -> Self {
        Self { taken: 0, period_ends: Instant::now() }
    }

    /// Returns when another message may be taken. Cancel-safe.
    pub(crate) async fn turn(&self) {
        if self.taken >= MOST {
            sleep_until(self.period_ends).await;
        }
    }

    /// Counts a message.
    pub(crate) fn took(&mut self) {
        let now = Instant::now();
        if now >= self.period_ends {
            *self = Self { taken: 0, period_ends: now + PERIOD };
        }
        self.taken += 1;
    }
}
