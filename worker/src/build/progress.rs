//! From BuildKit's events to log lines and signs of progress.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use slipway_buildkit::render::{Line, Renderer};
use slipway_buildkit::{BuildEvent, Stream};
use slipway_domain::log::{LogSource, Step, StepStatus};

use super::Steps;
use crate::log::{Lines, LogSink};

/// Writes a build's log.
pub(super) struct Progress {
    log: LogSink,
    renderer: Renderer,
    names: BTreeMap<u32, String>,
    cached: BTreeSet<u32>,
}

impl Progress {
    pub(super) fn new(log: LogSink) -> Self {
        let (names, cached) = (BTreeMap::new(), BTreeSet::new());
        Self { log, renderer: Renderer::new(), names, cached }
    }

    pub(super) async fn event(&mut self, event: BuildEvent, now: Instant) {
        if let Some(step) = self.step(&event) {
            self.log.step(step).await;
        }
        let renderer = &mut self.renderer;
        self.log.lines(|lines| renderer.event(event, now, |line| write(lines, &line))).await;
    }

    /// Completes when [`Progress::tick`] has something to do.
    pub(super) async fn tick_due(&self) {
        match self.renderer.next_tick() {
            Some(time) => tokio::time::sleep_until(time.into()).await,
            None => std::future::pending().await,
        }
    }

    pub(super) async fn tick(&mut self, now: Instant) {
        let renderer = &mut self.renderer;
        self.log.lines(|lines| renderer.tick(now, |line| write(lines, &line))).await;
    }

    pub(super) async fn finish(mut self) -> Steps {
        let renderer = std::mem::take(&mut self.renderer);
        self.log.lines(|lines| renderer.finish(|line| write(lines, &line))).await;
        let of_dockerfile = |index: &u32| self.names.get(index).is_some_and(|name| is_step(name));
        let total = self.names.keys().filter(|index| of_dockerfile(index)).count();
        let cached = self.cached.iter().filter(|index| of_dockerfile(index)).count();
        Steps { total: total as u32, cached: cached as u32 }
    }

    fn step(&mut self, event: &BuildEvent) -> Option<Step> {
        let (index, status) = match event {
            BuildEvent::VertexStarted { index, name } => {
                self.names.insert(*index, name.clone());
                (*index, StepStatus::Running)
            }
            BuildEvent::VertexCached { index } => {
                self.cached.insert(*index);
                (*index, StepStatus::Cached)
            }
            BuildEvent::VertexDone { index, .. } => (*index, StepStatus::Done),
            BuildEvent::VertexFailed { index, .. } | BuildEvent::VertexCanceled { index } => {
                (*index, StepStatus::Failed)
            }
            BuildEvent::Progress { index, id, current, total, done } => {
                let status = if done.is_some() { StepStatus::Done } else { StepStatus::Running };
                let mut step = self.named(*index, status);
                step.part = Some(id.clone());
                step.current = Some(*current);
                step.total = (*total > 0).then_some(*total);
                return Some(step);
            }
            BuildEvent::Log { .. }
            | BuildEvent::Warning { .. }
            | BuildEvent::VertexTimed { .. } => return None,
        };
        Some(self.named(index, status))
    }

    fn named(&self, index: u32, status: StepStatus) -> Step {
        let name = self.names.get(&index).cloned().unwrap_or_default();
        Step { step: index, name, status, part: None, current: None, total: None }
    }
}

fn write(lines: &mut Lines<'_, '_>, line: &Line<'_>) {
    let source = match line.stream {
        None => LogSource::System,
        Some(Stream::Stdout) => LogSource::Stdout,
        Some(Stream::Stderr) => LogSource::Stderr,
    };
    lines.add(source, line.text);
}

/// Whether a vertex is an instruction of the Dockerfile (`[2/5] RUN …`), rather
/// than what BuildKit does around them (`[internal] …`, `exporting to image`).
fn is_step(name: &str) -> bool {
    name.starts_with('[') && !name.starts_with("[internal]") && !name.starts_with("[auth]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instructions_count_as_steps() {
        assert!(is_step("[2/5] RUN make"));
        assert!(is_step("[build 1/2] FROM docker.io/library/busybox"));
        assert!(!is_step("[internal] load remote build context"));
        assert!(!is_step("exporting to image"));
    }
}
