//! How long something took, over many times: a histogram of three significant
//! digits from one microsecond to an hour.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time told apart, in microseconds; longer ones count as this.
const LONGEST: u64 = 3_600_000_000;

/// Many times, without the memory for each of them.
#[derive(Debug, Clone)]
pub struct Latency {
    micros: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let micros = Histogram::new_with_bounds(1, LONGEST, 3);
        Self { micros: micros.expect("these bounds are allowed, and are tested") }
    }
}

impl Latency {
    /// Counts one time.
    pub fn record(&mut self, time: Duration) {
        self.micros.saturating_record(u64::try_from(time.as_micros()).unwrap_or(LONGEST));
    }

    /// The figures; `None` if nothing was counted.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        if self.micros.is_empty() {
            return None;
        }
        let millis = |micros: u64| micros as f64 / 1000.0;
        let quantile = |quantile: f64| millis(self.micros.value_at_quantile(quantile));
        Some(Summary {
            count: self.micros.len(),
            min: millis(self.micros.min()),
            mean: self.micros.mean() / 1000.0,
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: millis(self.micros.max()),
        })
    }
}

/// The figures of many times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many.
    pub count: u64,
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half of them took at most this.
    pub p50: f64,
    /// Nine of ten took at most this.
    pub p90: f64,
    /// 99 of a hundred took at most this.
    pub p99: f64,
    /// 999 of a thousand took at most this.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn near(value: f64, wanted: f64) -> bool {
        (value - wanted).abs() <= wanted / 500.0
    }

    #[test]
    fn percentiles_keep_three_digits() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), None);
        for millis in 1..=1000 {
            latency.record(Duration::from_millis(millis));
        }
        let summary = latency.summary().unwrap();
        assert_eq!(summary.count, 1000);
        let pairs = [
            (summary.min, 1.0),
            (summary.mean, 500.5),
            (summary.p50, 500.0),
            (summary.p90, 900.0),
            (summary.p99, 990.0),
            (summary.p999, 999.0),
            (summary.max, 1000.0),
        ];
        for (value, wanted) in pairs {
            assert!(near(value, wanted), "{value} is not {wanted}: {summary:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_is_counted_at_them() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::MAX);
        let summary = latency.summary().unwrap();
        assert_eq!((summary.count, summary.min), (2, 0.0));
        assert!(near(summary.max, 3_600_000.0));
    }
}
