//! Patience: how often and how long to wait for a registry.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// How a request is repeated that the registry was too busy for, or that was
/// cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Tries in all.
    pub attempts: u32,
    /// Longest pause after the first try; doubles each time. The pause is
    /// drawn between half of it and all of it.
    pub base: Duration,
    /// Longest pause.
    pub max: Duration,
    /// Longest pause that a registry may ask for; if it asks for more, the
    /// request fails at once.
    pub max_asked: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 6,
            base: Duration::from_millis(500),
            max: Duration::from_secs(15),
            max_asked: Duration::from_secs(120),
        }
    }
}

/// The tries of one request.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    tries: u32,
}

impl Backoff {
    pub(crate) const fn new(policy: RetryPolicy) -> Self {
        Self { policy, tries: 0 }
    }

    /// How many tries failed.
    pub(crate) const fn tries(&self) -> u32 {
        self.tries
    }

    /// Counts a failed try. The pause before the next one, or `None` if it is
    /// enough.
    pub(crate) fn pause(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries += 1;
        if self.tries >= self.policy.attempts {
            return None;
        }
        let doubled = self.policy.base.saturating_mul(1 << (self.tries - 1).min(16));
        let longest = doubled.min(self.policy.max);
        let drawn = longest.mul_f64(rand::rng().random_range(0.5..=1.0));
        match asked {
            None => Some(drawn),
            // The draw on top parts those who were all told the same time.
            Some(asked) if asked <= self.policy.max_asked => {
                Some(asked + drawn.min(Duration::from_secs(1)))
            }
            Some(_) => None,
        }
    }
}

/// What the answer asks for in `Retry-After` (RFC 9110, section 10.2.3):
/// seconds, or a time.
pub(crate) fn asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(time.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())])
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end() {
        let policy = RetryPolicy {
            attempts: 6,
            base: Duration::from_millis(100),
            max: Duration::from_millis(500),
            max_asked: Duration::from_secs(9),
        };
        let mut backoff = Backoff::new(policy);
        for longest in [100, 200, 400, 500, 500] {
            let pause = backoff.pause(None).unwrap().as_millis();
            assert!((longest / 2..=longest).contains(&pause), "{pause} of {longest}");
        }
        assert_eq!((backoff.pause(None), backoff.tries()), (None, 6));
    }

    #[test]
    fn what_the_registry_asks_for_is_honoured_up_to_a_bound() {
        let mut backoff = Backoff::new(RetryPolicy::default());
        let pause = backoff.pause(Some(Duration::from_secs(7))).unwrap();
        assert!((7.0..=8.0).contains(&pause.as_secs_f64()), "{pause:?}");
        assert_eq!(backoff.pause(Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now: Timestamp = "2015-10-21T07:27:00Z".parse().unwrap();
        assert_eq!(asked(&header("120"), now), Some(Duration::from_secs(120)));
        let time = header("Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(asked(&time, now), Some(Duration::from_secs(60)));
        let later: Timestamp = "2016-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(asked(&time, later), Some(Duration::ZERO));
        assert_eq!(asked(&header("soon"), now), None);
        assert_eq!(asked(&HeaderMap::new(), now), None);
    }
}
