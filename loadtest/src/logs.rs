//! The scenario `logs`: one build that prints many lines, and many readers who
//! follow it. Every reader must get the same log, without a gap, and as the last
//! one who reads it when the build is over.

mod compare;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use slipway_api::events::JobEvent;
use slipway_api::types::{CreateBuildInfo, Snapshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::builds::seconds;
use crate::error::Error;
use crate::failures::{Failure, Failures};
use crate::job;
use crate::progress::Progress;
use crate::report::{Figure, Report};
use crate::run::Run;

use compare::Compared;
use reader::{Delays, Log, Reader};

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Lines that the build prints.
    pub lines: u64,
    /// Readers who follow it; from 1.
    pub followers: usize,
    /// Lines per second, at most; as fast as they come without.
    pub rate: Option<f64>,
    /// An image with a shell, `seq` and `sleep`, for example busybox.
    pub image: String,
    /// The region; the server's default if absent.
    pub region: Option<String>,
    /// After so many seconds the build counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
    /// Snapshots that the organization may hold.
    pub quota: usize,
    /// Whether the workers run on this machine: then lines carry the kernel's clock,
    /// and are timed from the container on.
    pub same_machine: bool,
    /// Builds with and without output that are held against each other afterwards, so
    /// many of each.
    pub pairs: u32,
}

/// Above this rate lines come in bursts: a shell does not pause that often.
const BURSTS_ABOVE: f64 = 500.0;
/// Bursts per second, at most: the kernel's clock has hundredths.
const BURSTS: f64 = 100.0;

impl Plan {
    /// The Dockerfile of a build that prints the numbers from 1. Before, it
    /// gives the readers a second to join; whoever comes later is told apart.
    #[must_use]
    pub fn dockerfile(&self) -> String {
        self.step(&self.print())
    }

    /// The same build, whose output is thrown away.
    pub(crate) fn silent_dockerfile(&self) -> String {
        self.step(&format!("{{ {}; }} >/dev/null", self.print()))
    }

    fn step(&self, print: &str) -> String {
        let image = &self.image;
        format!("FROM {image}\nARG SLIPWAY_LOADTEST\nRUN sleep 1 && {print}\n")
    }

    fn print(&self) -> String {
        let lines = self.lines;
        let (clock, line) = if self.same_machine {
            ("read up idle </proc/uptime; ", "echo $up $i")
        } else {
            ("", "echo $i")
        };
        match self.rate {
            None if !self.same_machine => format!("seq 1 {lines}"),
            None => format!("for i in $(seq 1 {lines}); do {clock}{line}; done"),
            Some(rate) if rate <= BURSTS_ABOVE => {
                let pause = 1.0 / rate;
                format!("for i in $(seq 1 {lines}); do {clock}{line}; sleep {pause:.6}; done")
            }
            Some(rate) => {
                // What is due by the clock, so that the rate holds however long the
                // printing and the pauses take. `seq` writes many lines at once, a
                // shell each by itself.
                let (burst, pause) = ((rate / BURSTS).round(), 1.0 / BURSTS);
                let now = "read up idle </proc/uptime; t=${up%.*}${up#*.}";
                let numbers = "seq $((n + 1)) $m";
                let print = match self.same_machine {
                    true => format!("for i in $({numbers}); do {line}; done"),
                    false => numbers.to_owned(),
                };
                format!(
                    "{now}; b=$t; n=0; while [ $n -lt {lines} ]; do {now}; \
                     m=$(((t - b + 1) * {burst})); [ $m -le {lines} ] || m={lines}; \
                     [ $m -le $n ] || {print}; n=$m; sleep {pause:.6}; done"
                )
            }
        }
    }
}

/// Runs the scenario and deletes its snapshot, also when the run is stopped.
///
/// # Errors
/// Nothing was begun: the server cannot be asked, or has no room.
pub async fn run(run: &Run, plan: Plan) -> Result<Report, Error> {
    run.check_room(1, plan.quota).await?;
    let mut report = Report::new("logs", &plan, run.client().base().as_str());
    let progress = Progress::new(plan.lines);
    progress.say("submitting");
    let mut findings = Findings::default();
    let begun = Instant::now();
    let build = CreateBuildInfo {
        dockerfile_content: plan.dockerfile(),
        no_cache: true,
        ..CreateBuildInfo::default()
    };
    match run.submit(0, plan.region.as_deref(), build).await {
        Err(failure) => findings.failures.add(failure),
        Ok(snapshot) => {
            // Cancel-safe: what is dropped only reads.
            tokio::select! {
                () = findings.collect(run, &plan, &snapshot, &progress) => {}
                () = run.stop().cancelled() => {}
                () = tokio::time::sleep(plan.limit) => {
                    let message = format!("not over after {} s", plan.limit.as_secs_f64());
                    findings.failures.add(Failure::new("build", "too slow", message));
                }
            }
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    drop(progress);
    findings.compared = Box::pin(compare::pairs(run, &plan, &mut findings.failures)).await;
    report.stopped = run.stop().is_cancelled();
    report.left_behind = run.sweep().await;
    findings.tell(&mut report);
    Ok(report)
}

/// What was found out so far.
#[derive(Debug, Default)]
struct Findings {
    /// Logs read to their end, each by the reader who followed it.
    logs: Vec<Log>,
    delays: Arc<Delays>,
    compared: Option<Compared>,
    failures: Failures,
}

impl Findings {
    async fn collect(&mut self, run: &Run, plan: &Plan, snapshot: &Snapshot, shown: &Progress) {
        let id = match job::id(snapshot) {
            Ok(id) => id,
            Err(failure) => return self.failures.add(failure),
        };
        // Ends its tasks when it is dropped.
        let mut readers = JoinSet::new();
        for _ in 1..plan.followers {
            let (client, id, delays) = (run.client().clone(), id.to_owned(), self.delays.clone());
            readers.spawn(async move {
                let mut reader = Reader::new(&delays);
                job::read(&client, &id, true, |event| reader.take(event)).await?;
                Ok::<Log, Failure>(reader.log())
            });
        }
        // The remaining one shows how far it is.
        let mut watcher = Reader::new(&self.delays);
        let watched = job::read(run.client(), id, true, |event| {
            watcher.take(event);
            shown.at(watcher.lines());
            if let JobEvent::Job(job) = event {
                shown.say(job.waiting.clone().unwrap_or_else(|| job.state.clone()));
            }
        });
        match watched.await {
            Ok(()) => self.logs.push(watcher.log()),
            Err(failure) => self.failures.add(failure),
        }
        while let Some(read) = readers.join_next().await {
            match read {
                Ok(Ok(log)) => self.logs.push(log),
                Ok(Err(failure)) => self.failures.add(failure),
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
        if let Err(failure) = self.compare(run, plan, id).await {
            self.failures.add(failure);
        }
    }

    /// Holds every log against what a reader gets who comes afterwards.
    async fn compare(&mut self, run: &Run, plan: &Plan, id: &str) -> Result<(), Failure> {
        let job = run.client().job(id).await.map_err(|error| Failure::api("get", &error))?;
        job::judge(run.client(), &job).await?;
        let nobody = Delays::default();
        let mut late = Reader::new(&nobody);
        job::read(run.client(), id, false, |event| late.take(event)).await?;
        let stored = late.log();
        if stored.lines != plan.lines {
            let message = format!("{} lines of {}", stored.lines, plan.lines);
            return Err(Failure::new("log", "lines are missing", message));
        }
        for log in self.logs.iter().filter(|log| log.digest != stored.digest) {
            let message = format!("{} lines, {} afterwards", log.lines, stored.lines);
            self.failures.add(Failure::new("log", "differs from what is stored", message));
        }
        Ok(())
    }

    fn tell(self, report: &mut Report) {
        let printed = self.logs.first().and_then(|log| log.printed);
        let mut read: Vec<_> = self.logs.iter().filter_map(|log| log.read).collect();
        read.sort_unstable();
        let lines = self.logs.first().map_or(0, |log| log.lines);
        let late = self.logs.iter().filter(|log| log.was_late).count();
        report.figures = vec![
            Figure::count("lines", lines),
            Figure::count("readers to the end", self.logs.len() as u64),
            Figure::count("of these late", late as u64),
        ];
        for (name, time) in [
            ("lines written", printed),
            ("lines read, median", read.get(read.len() / 2).copied()),
            ("lines read, slowest", read.last().copied()),
        ] {
            let rate = time.map(|time| Figure::rate(name, lines, time.as_secs_f64()));
            report.figures.extend(rate);
        }
        report.add_latency("line to reader", &self.delays.since_worker());
        report.add_latency("container to reader", &self.delays.since_container());
        self.compared.into_iter().for_each(|compared| compared.tell(report));
        report.failures = self.failures;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn bursts_print_every_number_once() {
        let mut plan = Plan {
            lines: 1234,
            followers: 1,
            rate: Some(50_000.0),
            image: String::new(),
            region: None,
            limit: Duration::ZERO,
            quota: 1,
            same_machine: true,
            pairs: 0,
        };
        for same_machine in [true, false] {
            plan.same_machine = same_machine;
            let printed = std::process::Command::new("sh").args(["-c", &plan.print()]).output();
            let printed = String::from_utf8(printed.unwrap().stdout).unwrap();
            let numbers = printed.lines().map(|line| line.rsplit(' ').next().unwrap().parse());
            let numbers: Vec<u64> = numbers.map(Result::unwrap).collect();
            assert_eq!(numbers, (1..=1234).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_build_prints_at_once_or_at_a_rate() {
        let mut plan = Plan {
            lines: 300,
            followers: 1,
            rate: None,
            image: "busybox".to_owned(),
            region: None,
            limit: Duration::from_secs(1),
            quota: 30,
            same_machine: false,
            pairs: 0,
        };
        let dockerfile = "FROM busybox\nARG SLIPWAY_LOADTEST\nRUN sleep 1 && seq 1 300\n";
        assert_eq!(plan.dockerfile(), dockerfile);
        plan.rate = Some(200.0);
        let dockerfile = plan.dockerfile();
        assert!(dockerfile.ends_with("do echo $i; sleep 0.005000; done\n"), "{dockerfile}");
        plan.same_machine = true;
        let silent = plan.silent_dockerfile();
        let loop_ =
            "do read up idle </proc/uptime; echo $up $i; sleep 0.005000; done; } >/dev/null";
        assert!(silent.trim_end().ends_with(loop_), "{silent}");
    }
}
