//! What is told of a pull: lines where something begins or ends, and signs of
//! progress in between.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use slipway_domain::log::{LogSource, Step, StepStatus};
use slipway_oci::Descriptor;

use crate::log::LogSink;

/// Number and name of the step that moves layers; each layer is a part of it.
const LAYERS: (u32, &str) = (2, "pull layers");
/// Between two signs of progress of one layer.
const PAUSE: Duration = Duration::from_millis(250);

/// Tells of one pull. Clones tell of the same.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    log: LogSink,
}

impl Progress {
    pub(super) const fn new(log: LogSink) -> Self {
        Self { log }
    }

    /// Begins a step that has no parts.
    pub(super) async fn begin(&self, step: u32, name: &str) -> Running {
        let running = Running { log: self.log.clone(), step, name: name.to_owned() };
        running.tell(StepStatus::Running).await;
        running.log.line(LogSource::System, format!("#{step} {name}")).await;
        running
    }

    /// Begins a layer.
    pub(super) async fn layer(&self, layer: &Descriptor) -> Meter {
        let hex = layer.digest.hex();
        let part = format!("{}:{}", layer.digest.algorithm(), &hex[..12]);
        let meter = Meter {
            log: self.log.clone(),
            part,
            total: layer.size,
            begun: Instant::now(),
            state: Mutex::new((0, None)),
        };
        self.log.step(meter.step(StepStatus::Running, 0)).await;
        meter
    }
}

/// A step under way.
#[derive(Debug)]
pub(super) struct Running {
    log: LogSink,
    step: u32,
    name: String,
}

impl Running {
    /// Ends it well.
    pub(super) async fn end(self, text: &str) {
        self.tell(StepStatus::Done).await;
        self.log.line(LogSource::System, format!("#{} {text}", self.step)).await;
    }

    async fn tell(&self, status: StepStatus) {
        let name = self.name.clone();
        let step = Step { step: self.step, name, status, part: None, current: None, total: None };
        self.log.step(step).await;
    }
}

/// Counts the bytes of a layer.
#[derive(Debug)]
pub(super) struct Meter {
    log: LogSink,
    part: String,
    total: u64,
    begun: Instant,
    /// Bytes so far, and when they were last told of.
    state: Mutex<(u64, Option<Instant>)>,
}

impl Meter {
    /// Says that the layer is fetched now.
    pub(super) async fn fetching(&self) {
        self.line(format!("0B / {}", bytes(self.total))).await;
    }

    /// Counts bytes that arrived.
    pub(super) fn add(&self, count: usize) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += count as u64;
        if state.1.is_none_or(|last| now.duration_since(last) >= PAUSE) {
            state.1 = Some(now);
            self.log.hint(self.step(StepStatus::Running, state.0));
        }
    }

    /// The layer is fetched.
    pub(super) async fn done(self) {
        let total = bytes(self.total);
        let seconds = self.begun.elapsed().as_secs_f64();
        self.log.step(self.step(StepStatus::Done, self.total)).await;
        self.line(format!("{total} / {total} done {seconds:.1}s")).await;
    }

    /// The layer need not be fetched.
    pub(super) async fn known(self) {
        self.log.step(self.step(StepStatus::Cached, self.total)).await;
        self.line(format!("{} CACHED", bytes(self.total))).await;
    }

    async fn line(&self, text: String) {
        let text = format!("#{} {} {text}", LAYERS.0, self.part);
        self.log.line(LogSource::System, text).await;
    }

    fn step(&self, status: StepStatus, current: u64) -> Step {
        Step {
            step: LAYERS.0,
            name: LAYERS.1.to_owned(),
            status,
            part: Some(self.part.clone()),
            current: Some(current),
            total: Some(self.total),
        }
    }
}

/// A number of bytes as Docker writes it: `28.5MB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count}B") } else { format!("{value:.1}{}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (count, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (28_512_345, "28.5MB"),
            (999_960, "1.0MB"),
            (1_073_741_824, "1.1GB"),
            (u64::MAX, "18446744.1TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
