//! When operations start.
//!
//! Owns the loop of every scenario that does one thing many times. Invariant:
//! with a rate, an operation is due at a time that depends on its number alone,
//! and its latencies are counted from then. A slow answer that keeps the next
//! operations waiting is thereby part of their latencies, too, instead of
//! vanishing from the figures because less was asked for (coordinated omission).

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many operations, how many of them at once, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Operations in all.
    pub count: u64,
    /// Operations at once, at most.
    pub concurrency: usize,
    /// Operations per second, greater than 0. Without, each one starts as soon
    /// as an earlier one has ended.
    pub rate: Option<f64>,
}

impl Schedule {
    /// When operation `n` (from 0) is due, after the beginning; without a rate
    /// it is due at any time.
    #[must_use]
    pub fn due(&self, n: u64) -> Option<Duration> {
        let rate = self.rate?;
        // Beyond any run; only a rate close to 0 comes here.
        const NEVER: Duration = Duration::from_secs(u32::MAX as u64);
        Some(Duration::try_from_secs_f64(n as f64 / rate).unwrap_or(NEVER).min(NEVER))
    }

    /// Starts operation after operation, each with its number and the time from
    /// which its latencies count, and hands every result to `done`. After `stop`
    /// no further one starts; those that run are waited for.
    pub async fn drive<F, T>(
        &self,
        stop: &CancellationToken,
        mut start: impl FnMut(u64, Instant) -> F,
        mut done: impl FnMut(T),
    ) where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let begun = Instant::now();
        // Ends its tasks when it is dropped.
        let mut running = JoinSet::new();
        let mut next = 0;
        loop {
            let is_open = next < self.count && !stop.is_cancelled();
            if !is_open && running.is_empty() {
                return;
            }
            let may_start = is_open && running.len() < self.concurrency;
            let due = self.due(next).map(|after| begun + after);
            // Cancel-safe: timers, tokens and join sets lose nothing when dropped.
            tokio::select! {
                biased;
                () = stop.cancelled(), if is_open => {}
                Some(ended) = running.join_next() => match ended {
                    Ok(result) => done(result),
                    Err(error) => {
                        if let Ok(panic) = error.try_into_panic() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                },
                () = until(due), if may_start => {
                    running.spawn(start(next, due.unwrap_or_else(Instant::now)));
                    next += 1;
                }
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Drives operations that take `took`; gives each one's number, when it was
    /// due, when it began and when it ended, in milliseconds after the beginning.
    async fn driven(schedule: Schedule, took: Duration) -> Vec<(u64, u128, u128, u128)> {
        let zero = Instant::now();
        let mut all = vec![];
        let operation = |n, due: Instant| async move {
            let began = zero.elapsed().as_millis();
            tokio::time::sleep(took).await;
            (n, (due - zero).as_millis(), began, zero.elapsed().as_millis())
        };
        schedule.drive(&CancellationToken::new(), operation, |times| all.push(times)).await;
        all.sort_unstable();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_each_operation_follows_an_earlier_one() {
        let schedule = Schedule { count: 5, concurrency: 2, rate: None };
        let took = Duration::from_millis(100);
        let all = driven(schedule, took).await;
        let begun: Vec<_> = all.iter().map(|times| times.2).collect();
        assert_eq!(begun, [0, 0, 100, 100, 200]);
        assert!(all.iter().all(|times| times.1 == times.2), "they are due when they begin");
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_rate_operations_are_due_by_the_clock() {
        let schedule = Schedule { count: 4, concurrency: 10, rate: Some(100.0) };
        let all = driven(schedule, Duration::from_secs(1)).await;
        let due: Vec<_> = all.iter().map(|times| (times.1, times.2)).collect();
        assert_eq!(due, [(0, 0), (10, 10), (20, 20), (30, 30)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_counts_in_the_latencies_of_those_behind_it() {
        // Two a second, one at a time, and each takes a whole second.
        let schedule = Schedule { count: 4, concurrency: 1, rate: Some(2.0) };
        let all = driven(schedule, Duration::from_secs(1)).await;
        let latencies: Vec<_> = all.iter().map(|(_, due, _, ended)| ended - due).collect();
        assert_eq!(latencies, [1000, 1500, 2000, 2500]);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_stop_nothing_starts_and_what_runs_is_waited_for() {
        let stop = CancellationToken::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let ended = Cell::new(0);
        let schedule = Schedule { count: 1000, concurrency: 3, rate: None };
        let operation = |n, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            let stop = stop.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(10 + n)).await;
                if n == 1 {
                    stop.cancel();
                }
            }
        };
        schedule.drive(&stop, operation, |()| ended.set(ended.get() + 1)).await;
        assert_eq!((begun.load(Ordering::Relaxed), ended.get()), (4, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_is_heard_while_nothing_runs() {
        let stop = CancellationToken::new();
        let schedule = Schedule { count: 2, concurrency: 1, rate: Some(0.001) };
        let begun = Instant::now();
        let later = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
        };
        tokio::join!(schedule.drive(&stop, |_, _| async {}, |()| {}), later);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_rate_close_to_nothing_does_not_overflow() {
        let schedule = Schedule { count: 2, concurrency: 1, rate: Some(f64::MIN_POSITIVE) };
        assert!(schedule.due(u64::MAX).unwrap() > Duration::from_secs(3600));
    }
}
