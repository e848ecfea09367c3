//! How often and how long after a failure a request is made again.

use std::time::Duration;

/// Pauses that double, with jitter, so that many clients do not come back at
/// the same moment.
#[derive(Debug, Clone)]
pub struct Retry {
    /// How often a request is made in all, at least 1.
    pub attempts: u32,
    /// Longest first pause.
    pub first: Duration,
    /// Longest pause of all, also if the server asks for a longer one.
    pub longest: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, first: Duration::from_millis(250), longest: Duration::from_secs(15) }
    }
}

impl Retry {
    /// The pause after the attempt number `tried` (from 1) has failed: between
    /// half of the longest allowed and all of it, or what the server asked for
    /// and a little more.
    #[must_use]
    pub fn pause(&self, tried: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << tried.saturating_sub(1).min(16));
        let jitter = rand::random_range(0.5..=1.0);
        let own = doubled.min(self.longest).mul_f64(jitter);
        match asked {
            Some(asked) => asked.min(self.longest) + self.first.mul_f64(jitter),
            None => own,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Retry;

    #[test]
    fn pauses_grow_stay_below_the_longest_and_heed_the_server() {
        let retry = Retry::default();
        for tried in 1..100 {
            let pause = retry.pause(tried, None);
            assert!(pause <= retry.longest);
            assert!(pause >= retry.first / 2);
        }
        assert!(retry.pause(20, None) >= retry.longest / 2);
        let asked = Duration::from_secs(3);
        assert!(retry.pause(1, Some(asked)) >= asked);
        assert!(retry.pause(1, Some(Duration::from_secs(9999))) <= retry.longest + retry.first);
    }
}
