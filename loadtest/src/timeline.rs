//! Latencies over the time of a run, for the plot: what a table of percentiles
//! cannot show is whether a system keeps up or falls behind.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::latency::Latency;

/// Points of a series, at most.
const POINTS: f64 = 120.0;

/// One kind of latency, as it went.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// What it was.
    pub name: &'static str,
    /// In the order of time.
    pub points: Vec<Point>,
}

/// A short time of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Seconds after the beginning, of its middle.
    pub seconds: f64,
    /// How many began in it.
    pub count: u64,
    /// Milliseconds that half of them took at most.
    pub p50: f64,
    /// Milliseconds that 99 of a hundred took at most.
    pub p99: f64,
}

/// Collects a series.
#[derive(Debug, Clone, Default)]
pub struct Timeline {
    times: Vec<(Duration, Duration)>,
}

impl Timeline {
    /// Counts what began `after` the beginning and took `time`.
    pub fn record(&mut self, after: Duration, time: Duration) {
        self.times.push((after, time));
    }

    /// The series, in points of equal length.
    #[must_use]
    pub fn series(&self, name: &'static str) -> Series {
        let end = self.times.iter().map(|(after, _)| *after).max().unwrap_or_default();
        let width = (end.as_secs_f64() / POINTS).max(0.05);
        let mut buckets = BTreeMap::<u64, Latency>::new();
        for (after, time) in &self.times {
            let bucket = (after.as_secs_f64() / width) as u64;
            buckets.entry(bucket).or_default().record(*time);
        }
        let points = buckets.iter().filter_map(|(bucket, times)| {
            let summary = times.summary()?;
            Some(Point {
                seconds: (*bucket as f64 + 0.5) * width,
                count: summary.count,
                p50: summary.p50,
                p99: summary.p99,
            })
        });
        Series { name, points: points.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_few_points_in_order_and_loses_nothing() {
        let mut timeline = Timeline::default();
        for n in (0..5000u64).rev() {
            timeline.record(Duration::from_millis(n * 10), Duration::from_millis(n + 1));
        }
        let series = timeline.series("x");
        assert!(series.points.len() <= 121, "{}", series.points.len());
        assert!(series.points.windows(2).all(|pair| pair[0].seconds < pair[1].seconds));
        assert!(series.points.windows(2).all(|pair| pair[0].p99 <= pair[1].p99));
        assert_eq!(series.points.iter().map(|point| point.count).sum::<u64>(), 5000);
        assert!(Timeline::default().series("none").points.is_empty());
    }
}
