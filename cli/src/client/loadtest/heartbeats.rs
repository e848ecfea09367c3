//! `slipway loadtest heartbeats`.

use std::time::Duration;

use clap::Args;
use slipway_loadtest::{Run, heartbeats};

use super::super::error::Error;
use super::super::interrupt::Interrupt;
use super::nats::Nats;
use super::{Common, Out, rate, stoppable, time};

pub(super) const HELP: &str = "\
The workers are records that are written as workers write them. They have no
slots and take no jobs, but they are listed and counted while the run lasts: not
for a system that people use. Needs the right to write the leases of the region.

Examples:
  slipway loadtest heartbeats
  slipway loadtest heartbeats --workers 1000 --jobs 20 --quota 2000
  slipway loadtest heartbeats --scheduler-pid $(pgrep -f 'slipway scheduler')";

/// `slipway loadtest heartbeats`
#[derive(Debug, Args)]
pub struct Heartbeats {
    /// Workers that give signs of life
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    workers: u32,
    /// How often each of them does; a real one three times in its `lease`
    #[arg(long, value_name = "TIME", default_value = "3333ms", value_parser = interval)]
    interval: Duration,
    /// How long the part without them and the part with them take, each
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    part: Duration,
    /// Jobs per second beside them
    #[arg(long, value_name = "PER_SECOND", default_value = "5", value_parser = rate)]
    jobs: f64,
    /// Reads of the API per second beside them
    #[arg(long, value_name = "PER_SECOND", default_value = "20", value_parser = rate)]
    reads: f64,
    /// Process of the scheduler on this machine, to show what it takes
    #[arg(long, value_name = "PID")]
    scheduler_pid: Option<u32>,
    /// The same of nats-server
    #[arg(long, value_name = "PID")]
    nats_pid: Option<u32>,
    #[command(flatten)]
    nats: Nats,
    #[command(flatten)]
    common: Common,
}

impl Heartbeats {
    pub(super) async fn run(mut self, run: &Run, interrupt: &Interrupt) -> Result<(), Error> {
        let out = Out::open(self.common.json.take())?;
        let bus = self.nats.bus().await?;
        let plan = heartbeats::Plan {
            workers: self.workers as usize,
            interval: self.interval,
            part: self.part,
            jobs: self.jobs,
            reads: self.reads,
            region: self.common.region,
            limit: self.common.timeout,
            quota: self.common.quota,
            scheduler: self.scheduler_pid,
            nats: self.nats_pid,
        };
        let scenario = Box::pin(heartbeats::run(run, &bus, plan));
        out.show(&stoppable(run.stop(), interrupt, scenario).await?)
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = time(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    if allowed.contains(&interval) { Ok(interval) } else { Err("not from 100ms to 1h".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_neither_nothing_nor_for_ever() {
        assert_eq!(interval("3333ms"), Ok(Duration::from_millis(3333)));
        for bad in ["0s", "99ms", "2h", "often"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
