//! The live view on a terminal: log lines run up, and below them stand the
//! steps that are under way.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::Duration;

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use slipway_api::own::Job;
use slipway_context::Packed;
use slipway_domain::LogEvent;
use slipway_domain::log::{Step, StepStatus};

use super::{Happening, Screen, context_line, job_line};
use crate::client::format;
use crate::client::report::Report;

/// How often what moves is drawn anew.
const TICK: Duration = Duration::from_millis(120);
/// Steps shown at once; more only count.
const SHOWN: usize = 8;

/// The screen of a terminal.
pub struct Live {
    all: MultiProgress,
    /// The line at the bottom: what the whole is doing.
    status: ProgressBar,
    upload: Option<ProgressBar>,
    /// By number, and by part if the part counts its bytes.
    steps: BTreeMap<(u32, Option<String>), ProgressBar>,
}

impl Live {
    pub fn new() -> Self {
        let all = MultiProgress::new();
        let status = all.add(ProgressBar::new_spinner().with_style(spinner()));
        status.enable_steady_tick(TICK);
        Self { all, status, upload: None, steps: BTreeMap::new() }
    }

    fn say(&self, line: &str) -> io::Result<()> {
        self.all.println(line)
    }

    fn uploading(&mut self, sent: u64, size: u64) {
        let bar = self.upload.get_or_insert_with(|| {
            let bar = ProgressBar::new(size).with_style(transfer());
            self.all.insert_before(&self.status, bar)
        });
        bar.set_position(sent);
        self.status.set_message("uploading the context");
    }

    fn step(&mut self, step: &Step) {
        let counted = step.part.clone().zip(step.total);
        let key = (step.step, counted.as_ref().map(|(part, _)| part.clone()));
        if step.status != StepStatus::Running {
            self.end(&key);
            return;
        }
        if !self.steps.contains_key(&key) && self.steps.len() < SHOWN {
            let bar = match &counted {
                Some((part, total)) => {
                    ProgressBar::new(*total).with_style(layer()).with_prefix(part.clone())
                }
                None => ProgressBar::new_spinner().with_style(running()),
            };
            let bar = self.all.insert_before(&self.status, bar);
            bar.enable_steady_tick(TICK);
            self.steps.insert(key.clone(), bar);
        }
        let Some(bar) = self.steps.get(&key) else { return };
        match counted {
            Some(_) => bar.set_position(step.current.unwrap_or_default()),
            None => bar.set_message(format!("{}{}", step.name, moved(step))),
        }
    }

    /// A step takes its parts with it.
    fn end(&mut self, key: &(u32, Option<String>)) {
        let ended =
            |known: &(u32, Option<String>)| known == key || (key.1.is_none() && known.0 == key.0);
        for (_, bar) in self.steps.extract_if(.., |known, _| ended(known)) {
            bar.finish_and_clear();
        }
    }

    fn context(&mut self, packed: &Packed, is_known: bool) -> io::Result<()> {
        if let Some(bar) = self.upload.take() {
            bar.finish_and_clear();
        }
        self.status.set_message("submitting");
        self.say(&context_line(packed, is_known))
    }

    fn job(&self, job: &Job) {
        if let Some(line) = job_line(job) {
            let is_waiting = job.waiting.is_some();
            let line = if is_waiting { style(line).yellow() } else { style(line) };
            self.status.set_message(line.for_stderr().to_string());
        }
    }

    fn finish(&mut self, report: &Report) -> io::Result<()> {
        self.close();
        if report.is_success() {
            let summary = report.summary();
            let (headline, details) = summary.split_once('\n').unwrap_or((&summary, ""));
            return write!(io::stdout(), "\n{}\n{details}", style(headline).green().bold());
        }
        let (headline, details) = report.failure();
        let label = style("error:").for_stderr().red().bold();
        eprint!("\n{label} {}\n{details}", style(headline).for_stderr().bold());
        Ok(())
    }

    /// Everything below the log lines begins anew.
    fn restart(&mut self) {
        for bar in std::mem::take(&mut self.steps).into_values() {
            bar.finish_and_clear();
        }
    }
}

impl Screen for Live {
    fn show(&mut self, happening: &Happening<'_>) -> io::Result<()> {
        match happening {
            Happening::Packing(seen) => {
                let files = format::count(seen.entries, "file");
                let size = format::bytes(seen.bytes);
                self.status.set_message(format!("packing the context: {files}, {size}"));
            }
            Happening::ContextChanged => {
                self.say("the context changed meanwhile, packing it once more")?;
            }
            Happening::Uploading { sent, size } => self.uploading(*sent, *size),
            Happening::ContextReady { packed, is_known } => self.context(packed, *is_known)?,
            Happening::Submitted(snapshot) => {
                self.say(&format!("submitted: snapshot {} ({})", snapshot.name, snapshot.id))?;
            }
            Happening::Detached(snapshot) => {
                self.close();
                writeln!(io::stdout(), "{}", snapshot.id)?;
            }
            Happening::Job(job) => self.job(job),
            Happening::Attempt(number) => {
                self.restart();
                let line = style(format!("starting again: attempt {number}")).yellow();
                self.say(&line.for_stderr().to_string())?;
            }
            Happening::Entry(entry) => match &entry.event {
                LogEvent::Line { text, .. } => self.say(text)?,
                LogEvent::Step(step) => self.step(step),
                LogEvent::End { .. } => {}
            },
            Happening::Reconnecting { pause } => {
                let line = format!("connection lost, again in {}", format::duration(*pause));
                self.status.set_message(style(line).for_stderr().yellow().to_string());
            }
            Happening::Finished(report) => self.finish(report)?,
        }
        Ok(())
    }

    fn close(&mut self) {
        self.restart();
        if let Some(bar) = self.upload.take() {
            bar.finish_and_clear();
        }
        self.status.finish_and_clear();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.close();
    }
}

/// The bytes of a step that counts them.
fn moved(step: &Step) -> String {
    let part = step.part.as_deref().map(|part| format!(" · {part}")).unwrap_or_default();
    match (step.current, step.total) {
        (Some(current), Some(total)) if total > 0 => {
            format!("{part} {} / {}", format::bytes(current), format::bytes(total))
        }
        (Some(current), _) if current > 0 => format!("{part} {}", format::bytes(current)),
        _ => part,
    }
}

fn spinner() -> ProgressStyle {
    styled("{spinner:.cyan} {wide_msg} {elapsed}")
}

fn running() -> ProgressStyle {
    styled("  {spinner:.green} {wide_msg} {elapsed:>5}")
}

fn layer() -> ProgressStyle {
    styled("  {prefix} {wide_bar:.cyan/blue} {decimal_bytes} / {decimal_total_bytes} {elapsed:>5}")
}

fn transfer() -> ProgressStyle {
    styled(
        "  {wide_bar:.cyan/blue} {decimal_bytes} / {decimal_total_bytes} {decimal_bytes_per_sec}",
    )
}

/// A template that is wrong is a mistake of this file; the tests would show it.
fn styled(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Step, StepStatus, moved};
    use indicatif::ProgressStyle;

    #[test]
    fn bytes_are_shown_where_a_step_counts_them() {
        let step = |part: Option<&str>, current, total| Step {
            step: 1,
            name: "x".to_owned(),
            status: StepStatus::Running,
            part: part.map(str::to_owned),
            current,
            total,
        };
        assert_eq!(moved(&step(None, None, None)), "");
        assert_eq!(moved(&step(None, Some(0), None)), "");
        assert_eq!(moved(&step(Some("layer"), Some(1500), Some(3000))), " · layer 1.5 KB / 3.0 KB");
    }

    #[test]
    fn templates_are_valid() {
        for template in [
            "{spinner:.cyan} {wide_msg} {elapsed}",
            "  {prefix} {wide_bar:.cyan/blue} {decimal_bytes}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
