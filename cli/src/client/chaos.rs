//! `slipway loadtest chaos`: runs a system of its own, hurts it, and says whether
//! it kept its promises.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use slipway_chaos::history::{Entry, Observe, What};
use slipway_chaos::{Outcome, Settings};
use slipway_loadtest::Progress;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::interrupt::Interrupt;
use crate::serve::dev::programs;

pub const HELP: &str = "\
Starts nats-server, schedulers and workers of two regions as processes of its own,
below a folder of its own; no server that runs already is touched. For some minutes
it asks for builds and pulls over HTTP, while processes are killed and paused,
connections cut, messages repeated, and object stores made to fail: by a plan that
follows from the seed alone. Then it waits until nothing moves any more, and checks
over the whole history that

  - every acknowledged request reached exactly one terminal state,
  - every snapshot has one published digest,
  - no event of a stale attempt took effect,
  - every blob of an active manifest is present and hashes right,
  - there are no orphans,
  - every log is gapless and ends,
  - no process panicked.

If a promise was broken it prints the seed, what was broken, the history (JSON lines;
with --history or --folder only where it lies), and where the logs lie, and ends with
exit code 1.

Examples:
  slipway loadtest chaos --seed 7 --minutes 2
  slipway loadtest chaos --seed 7 --minutes 0.5 --workers 6 --history history.jsonl
  slipway loadtest chaos --seed 7 --minutes 3 --outage 2min
  slipway loadtest chaos --seed 7 --minutes 5 --buildkit docker:///var/run/docker.sock";

/// `slipway loadtest chaos`
#[derive(Debug, Args)]
pub struct Chaos {
    /// What is done to the system follows from it [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long the system is hurt
    #[arg(long, value_name = "M", default_value = "2", value_parser = minutes)]
    minutes: Duration,
    /// Workers of the first region; the second has half of them
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=32))]
    workers: u32,
    /// Schedulers
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8))]
    schedulers: u32,
    /// BuildKit for the builds of each region's first worker [default: all builds are simulated]
    #[arg(long, value_name = "ENDPOINT")]
    buildkit: Option<String>,
    /// Shell command that runs this BuildKit; then it is started, killed and started again
    #[arg(long, value_name = "COMMAND", requires = "buildkit")]
    buildkit_command: Option<String>,
    /// Take nats-server away for so long, once, 10 s after the beginning
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    outage: Option<Duration>,
    /// nats-server to use, 2.15.1 or newer [default: one beside this program, or on PATH]
    #[arg(long, env = "SLIPWAY_NATS_SERVER", value_name = "PROGRAM")]
    nats_server: Option<PathBuf>,
    /// File for the history [default: history.jsonl in the folder of the run]
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Folder of the run, which stays [default: a new one, removed if all went well]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// How long the system may take to come to rest when the blows are over
    #[arg(long, value_name = "TIME", default_value = "5min", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Break something on purpose before the check, to see that it is seen
    #[arg(long, value_name = "WHAT", hide_short_help = true)]
    spoil: Option<Spoil>,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

/// What can be broken on purpose.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Spoil {
    /// A blob of an active snapshot is deleted
    Blob,
    /// A blob of an active snapshot gets other bytes
    Byte,
    /// The archived log of a job is deleted
    Log,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().map_err(|error| error.to_string())?;
    if minutes > 0.0 && minutes < 1e5 {
        Ok(Duration::from_secs_f64(minutes * 60.0))
    } else {
        Err("not a number of minutes above 0".to_owned())
    }
}

/// Runs the command.
pub async fn run(args: Chaos) -> Result<(), Error> {
    let is_json = args.json;
    let (settings, kept) = args.settings()?;
    eprintln!("chaos: seed {}, in {}", settings.seed, settings.folder.display());
    let (interrupt, stop) = (Interrupt::install(), CancellationToken::new());
    let mut run = pin!(slipway_chaos::run(&settings, progress(settings.length), &stop));
    // Cancel-safe: the run goes on below.
    let outcome = tokio::select! {
        outcome = &mut run => outcome,
        () = interrupt.pressed() => {
            eprintln!("chaos: no more blows; waiting until nothing moves");
            stop.cancel();
            run.await
        }
    };
    let outcome = outcome.map_err(|source| Error::Chaos { seed: settings.seed, source })?;
    show(&outcome, is_json)?;
    if !outcome.violations.is_empty() {
        let (folder, history) = (&settings.folder, &settings.history);
        if kept.is_some() {
            // Nobody has said where to keep it, as where others start the run.
            eprint!("{}", std::fs::read_to_string(history).unwrap_or_default());
        }
        eprintln!("chaos: the history is {}", history.display());
        eprintln!("chaos: the logs are in {}", folder.join("logs").display());
        eprintln!("chaos: again: slipway loadtest chaos --seed {}", outcome.seed);
        return Err(Error::Partly);
    }
    if let Some(folder) = kept {
        // What is left of it harms nobody.
        let _gone = std::fs::remove_dir_all(folder);
    }
    if outcome.stopped {
        let advice = Some("interrupted; until then all promises were kept".to_owned());
        return Err(Error::Interrupted { advice });
    }
    Ok(())
}

/// A line that says how far a run of this length is.
fn progress(length: Duration) -> Box<Observe> {
    let line = Progress::new(length.as_secs());
    line.say("starting");
    let (blows, requests) = (AtomicU64::new(0), AtomicU64::new(0));
    Box::new(move |entry: &Entry| {
        line.at(entry.at_ms / 1000);
        let counter = match entry.what {
            What::Blow(_) => &blows,
            What::Asked { .. } => &requests,
            What::Settled { .. } | What::Unsettled { .. } => return line.say("judging"),
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let [blows, requests] = [&blows, &requests].map(|count| count.load(Ordering::Relaxed));
        line.say(format!("{blows} blows, {requests} requests"));
    })
}

fn show(outcome: &Outcome, is_json: bool) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    if is_json {
        serde_json::to_writer_pretty(&mut out, outcome).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{outcome}")?;
    }
    Ok(())
}

impl Chaos {
    /// The settings, and the folder if it is to be removed after a good run.
    fn settings(self) -> Result<(Settings, Option<PathBuf>), Error> {
        let nats_server = programs::nats_server(self.nats_server.as_deref());
        let nats_server = nats_server.map_err(|error| Error::NatsServer(error.into()))?;
        let seed = self.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
        let own = self.folder.is_none();
        let folder = self.folder.unwrap_or_else(|| {
            let name = format!("slipway-chaos-{seed}-{:08x}", rand::random::<u32>());
            std::env::temp_dir().join(name)
        });
        let unusable = |source| Error::Report { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        let history = self.history.unwrap_or_else(|| folder.join("history.jsonl"));
        let settings = Settings {
            seed,
            length: self.minutes,
            workers: self.workers,
            schedulers: self.schedulers,
            program: std::env::current_exe()?,
            nats_server,
            buildkit: self.buildkit,
            buildkit_command: self.buildkit_command,
            folder: folder.clone(),
            history,
            outage: self.outage,
            settle: self.settle,
            spoil: self.spoil.map(|spoil| match spoil {
                Spoil::Blob => slipway_chaos::Spoil::Blob,
                Spoil::Byte => slipway_chaos::Spoil::Byte,
                Spoil::Log => slipway_chaos::Spoil::Log,
            }),
        };
        Ok((settings, own.then_some(folder)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_may_be_parts_of_one() {
        assert_eq!(minutes("0.25"), Ok(Duration::from_secs(15)));
        for bad in ["0", "-1", "inf", "nan", "soon"] {
            assert!(minutes(bad).is_err(), "{bad}");
        }
    }
}
