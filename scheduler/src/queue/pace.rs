//! How far ahead of free workers jobs are sent.
//!
//! Pure. Whoever comes anew waits behind all that was sent before, so that should be
//! little; a worker that is done should find the next job at once, so it must not be
//! nothing. Invariant: what is sent ahead is about a quarter of a second's work.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Starts are remembered for so long.
const MEMORY: Duration = Duration::from_secs(1);
/// Of the starts of a second, so many are sent ahead: one of this number.
const SHARE: usize = 4;

/// The pace of one queue.
#[derive(Debug, Default)]
pub struct Pace(VecDeque<Instant>);

impl Pace {
    /// A job that was sent is out of the queue.
    pub fn started(&mut self, now: Instant) {
        self.0.push_back(now);
        self.forget(now);
    }

    /// How many jobs may lie in the queue beyond those that free slots take at once.
    pub fn lead(&mut self, slots: usize, now: Instant) -> usize {
        self.forget(now);
        (self.0.len() / SHARE).max(slots / SHARE).max(1)
    }

    /// Whether nothing started lately.
    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.forget(now);
        self.0.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while self.0.front().is_some_and(|at| now.duration_since(*at) > MEMORY) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_ahead_follows_the_pace_and_is_never_nothing() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.lead(0, start), 1);
        assert_eq!(pace.lead(4, start), 1);
        assert_eq!(pace.lead(64, start), 16);
        for n in 0..2000_u32 {
            pace.started(start + Duration::from_millis(5) * n);
        }
        let end = start + Duration::from_secs(10);
        assert_eq!(pace.lead(4, end), 50);
        assert!(pace.0.len() <= 201, "{}", pace.0.len());
        assert_eq!(pace.lead(4, end + MEMORY * 2), 1);
    }
}
