//! Growing, jittered pauses between attempts.
//!
//! Owns only the arithmetic; callers do the waiting. Invariant: a pause lies
//! between half and the whole of its step, so that many clients that lost the
//! same server do not come back in the same instant.

use std::time::Duration;

use rand::Rng as _;

/// Steps double from `first` to `longest`.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    step: u32,
}

impl Backoff {
    /// For opening consumers again: short enough to follow a restart, long
    /// enough that a server in trouble is left alone.
    pub(crate) const fn reopening() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(30), step: 0 }
    }

    /// For repeating a request that nobody answered.
    pub(crate) const fn repeating() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(5), step: 0 }
    }

    /// The next pause; each call makes the following one longer.
    pub(crate) fn pause(&mut self) -> Duration {
        let whole = self.first.saturating_mul(1 << self.step.min(16)).min(self.longest);
        self.step = self.step.saturating_add(1);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Starts over after a success.
    pub(crate) const fn reset(&mut self) {
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::reopening();
        for whole in [200, 400, 800, 1600] {
            let pause = backoff.pause();
            assert!(pause <= Duration::from_millis(whole), "{pause:?}");
            assert!(pause >= Duration::from_millis(whole / 2), "{pause:?}");
        }
        for _ in 0..100 {
            assert!(backoff.pause() <= Duration::from_secs(30));
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(200));
    }
}
