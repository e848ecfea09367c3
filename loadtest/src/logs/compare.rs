//! The same build with its output and without, one after the other, to see what
//! the log costs the build.

use std::time::Duration;

use jiff::Timestamp;
use slipway_api::events::JobEvent;
use slipway_api::types::CreateBuildInfo;
use slipway_domain::LogEvent;
use slipway_domain::log::StepStatus;

use super::Plan;
use crate::failures::{Failure, Failures};
use crate::job;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;

/// How long the printing step took, in seconds.
#[derive(Debug, Default)]
pub(super) struct Compared {
    lines: u64,
    silent: Vec<f64>,
    loud: Vec<f64>,
}

/// Makes the pairs of the plan; nothing if it wants none.
pub(super) async fn pairs(run: &Run, plan: &Plan, failures: &mut Failures) -> Option<Compared> {
    let mut compared = Compared { lines: plan.lines, ..Compared::default() };
    let progress = Progress::new(u64::from(plan.pairs) * 2);
    progress.say("builds with and without output");
    for pair in 0..u64::from(plan.pairs) {
        for turn in 0..2 {
            // Numbers after that of the build with many readers; the order alternates.
            let (n, is_silent) = (1 + pair * 2 + turn, (pair + turn) % 2 == 0);
            let took = tokio::select! {
                took = step(run, plan, n, is_silent) => took,
                () = run.stop().cancelled() => return None,
            };
            match took {
                Ok(took) if is_silent => compared.silent.push(took.as_secs_f64()),
                Ok(took) => compared.loud.push(took.as_secs_f64()),
                Err(failure) => failures.add(failure),
            }
            progress.at(n);
        }
    }
    (plan.pairs > 0).then_some(compared)
}

/// Makes one build, which is deleted with the run, and gives the time of its step.
async fn step(run: &Run, plan: &Plan, n: u64, is_silent: bool) -> Result<Duration, Failure> {
    let text = if is_silent { plan.silent_dockerfile() } else { plan.dockerfile() };
    let build =
        CreateBuildInfo { dockerfile_content: text, no_cache: true, ..CreateBuildInfo::default() };
    let snapshot = run.submit(n, plan.region.as_deref(), build).await?;
    let mut span = Span::default();
    let id = job::id(&snapshot)?;
    job::read(run.client(), id, true, |event| span.take(event)).await?;
    let job = run.client().job(id).await.map_err(|error| Failure::api("get", &error))?;
    job::judge(run.client(), &job).await?;
    run.delete(&snapshot).await?;
    span.took().ok_or_else(|| Failure::new("log", "no step", format!("of job {id}")))
}

/// When the printing step began and ended, by the worker's clock.
#[derive(Debug, Default)]
struct Span {
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
}

impl Span {
    fn take(&mut self, event: &JobEvent) {
        let JobEvent::Log(entry) = event else { return };
        let LogEvent::Step(step) = &entry.event else { return };
        if !step.name.contains("RUN sleep 1") {
            return;
        }
        match step.status {
            StepStatus::Running => _ = self.began.get_or_insert(entry.time),
            StepStatus::Done => self.ended = Some(entry.time),
            StepStatus::Cached | StepStatus::Failed => {}
        }
    }

    fn took(&self) -> Option<Duration> {
        Some(job::between(self.began?, self.ended?))
    }
}

impl Compared {
    pub(super) fn tell(self, report: &mut Report) {
        let (silent, loud) = (median(self.silent), median(self.loud));
        let Some((silent, loud)) = silent.zip(loud) else { return };
        // The step sleeps for a second first.
        let rate = Figure::rate("lines of the step", self.lines, (loud - 1.0).max(0.0));
        report.figures.extend([
            Figure { name: "step, silent", value: silent, unit: " s" },
            Figure { name: "step, with output", value: loud, unit: " s" },
            Figure { name: "slowed to", value: loud / silent.max(f64::MIN_POSITIVE), unit: "x" },
            rate,
        ]);
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use slipway_domain::log::Step;
    use slipway_domain::{AttemptNumber, LogEntry, LogSeq};

    use super::*;

    fn step(name: &str, status: StepStatus, millis: i64) -> JobEvent {
        let (name, seq) = (name.to_owned(), LogSeq::new(AttemptNumber::FIRST, 1));
        let step = Step { step: 1, name, status, part: None, current: None, total: None };
        let time = Timestamp::from_millisecond(millis).unwrap();
        JobEvent::Log(LogEntry { seq, time, event: LogEvent::Step(step) })
    }

    #[test]
    fn the_printing_step_is_timed_and_no_other() {
        let mut span = Span::default();
        span.take(&step("[1/2] FROM busybox", StepStatus::Running, 10));
        assert_eq!(span.took(), None);
        span.take(&step("[2/2] RUN sleep 1 && seq 1 9", StepStatus::Running, 20));
        span.take(&step("[2/2] RUN sleep 1 && seq 1 9", StepStatus::Done, 1270));
        span.take(&step("exporting to image", StepStatus::Done, 2000));
        assert_eq!(span.took(), Some(Duration::from_millis(1250)));
    }

    #[test]
    fn medians_are_held_against_each_other() {
        let (silent, loud) = (vec![2.0, 9.0, 1.0], vec![2.0, 3.0, 2.5]);
        let mut report = Report::new("logs", &(), "http://s/api");
        Compared { lines: 75, silent, loud }.tell(&mut report);
        let values: Vec<_> = report.figures.iter().map(|figure| figure.value).collect();
        assert_eq!(values, [2.0, 2.5, 1.25, 50.0]);
        Compared::default().tell(&mut report);
        assert_eq!(report.figures.len(), 4);
    }
}
