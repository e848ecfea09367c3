//! `slipway loadtest`: what the command line says becomes a plan, and what the
//! run found out is shown.

use std::fs::File;
use std::future::Future;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use clap::{Args, Subcommand};
use slipway_api::Client;
use slipway_loadtest::{Report, Run, builds, logs, plot, storm};
use tokio_util::sync::CancellationToken;

use super::chaos;
use super::error::Error;
use super::interrupt::Interrupt;
use super::list;

/// `slipway loadtest …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make many small builds, and time each from its request to the active snapshot
    #[command(after_help = BUILDS_HELP)]
    Builds(Builds),
    /// Let many readers follow the log of one build, and compare what they got
    #[command(after_help = LOGS_HELP)]
    Logs(Logs),
    /// Run a system of its own, hurt it, and check that nothing was lost
    #[command(after_help = chaos::HELP)]
    Chaos(Box<chaos::Chaos>),
    /// Give a scheduler very many snapshots, and time its start, its lists and its reads
    #[command(after_help = list::HELP)]
    List(Box<list::List>),
    /// Ask for many snapshots at a rate, or as fast as they go, beside what bare NATS would take
    #[command(after_help = STORM_HELP)]
    Storm(Storm),
}

const BUILDS_HELP: &str = "\
Every snapshot is deleted as soon as its build is over, and also on Ctrl-C. What
the rows of the table mean is explained in loadtest/README.md.

Examples:
  slipway loadtest builds
  slipway loadtest builds --count 500 --concurrency 20 --region us --json report.json
  slipway loadtest builds --count 200 --rate 5 --concurrency 25
  slipway loadtest builds --dockerfile Dockerfile --no-cache";

const LOGS_HELP: &str = "\
The image needs a shell, `seq` and `sleep`, and a worker must be able to pull it.

Examples:
  slipway loadtest logs --lines 100000 --followers 20
  slipway loadtest logs --lines 2000 --rate 200 --followers 1000";

const STORM_HELP: &str = "\
Meant for workers with simulated jobs (`[executor.simulated]`, see
docs/configuration.md): with BuildKit, it is BuildKit that is measured. What
becomes of the jobs is seen over NATS. The floor creates streams FLOOR_* and
deletes them. Every snapshot is deleted at the end, also on Ctrl-C.

Examples:
  slipway loadtest storm --rate 200 --count 6000 --plot storm.svg
  slipway loadtest storm --count 5000 --concurrency 256 --quota 10000
  slipway loadtest storm --nats nats://127.0.0.1:4222 --rate 50 --no-floor";

/// `slipway loadtest storm`
#[derive(Debug, Args)]
pub struct Storm {
    /// Snapshots asked for in all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Requests per second; times count from when a request was due [default: as fast as they go]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Jobs at once where no rate is given
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// NATS server of the system, where its events are seen and the floor is measured
    #[arg(long, env = "NATS_URL", value_name = "URL", default_value = "nats://127.0.0.1:4222")]
    nats: String,
    /// NATS credentials file (JWT and nkey seed)
    #[arg(long, value_name = "FILE")]
    nats_credentials: Option<PathBuf>,
    /// Do not measure what bare NATS takes
    #[arg(long)]
    no_floor: bool,
    /// Draw the latencies over time into this file, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// `slipway loadtest builds`
#[derive(Debug, Args)]
pub struct Builds {
    /// Builds in all
    #[arg(long, value_name = "N", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Builds at once, at most
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Builds begun per second; times then count from when a build was due [default: the next
    /// one begins when one ends]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Dockerfile to build without a context; it is given another build argument
    /// SLIPWAY_LOADTEST for every build [default: one small layer, from scratch]
    #[arg(short = 'f', long, value_name = "FILE")]
    dockerfile: Option<PathBuf>,
    /// Run every step anew instead of taking it from the cache
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    common: Common,
}

/// `slipway loadtest logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// Lines that the build prints
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    lines: u64,
    /// Readers who follow it
    #[arg(long, value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    followers: u16,
    /// Lines printed per second, at most [default: as fast as they come]
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Image whose shell prints them
    #[arg(long, env = "SLIPWAY_BASE_IMAGE", value_name = "IMAGE", default_value = "busybox")]
    image: String,
    #[command(flatten)]
    common: Common,
}

/// Options of every scenario.
#[derive(Debug, Args)]
struct Common {
    /// Region to build in [default: the server's]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// How long a build may take before it counts as failed
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = time)]
    timeout: Duration,
    /// Snapshots that the server lets the organization hold
    #[arg(long, value_name = "N", default_value_t = 30)]
    quota: usize,
    /// Write the report to this file as JSON, too; `-` writes it instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().map_err(|error| error.to_string())?;
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err("not a rate above 0".to_owned()) }
}

fn time(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// Runs the command.
pub async fn run(client: Client, command: Command) -> Result<(), Error> {
    let interrupt = Interrupt::install();
    let run = Run::new(client, CancellationToken::new());
    match command {
        Command::Builds(mut args) => {
            let out = Out::open(args.common.json.take())?;
            let plan = args.plan()?;
            out.show(&stoppable(run.stop(), &interrupt, builds::run(&run, plan)).await?)
        }
        Command::Logs(mut args) => {
            let out = Out::open(args.common.json.take())?;
            let plan = args.plan();
            out.show(&stoppable(run.stop(), &interrupt, logs::run(&run, plan)).await?)
        }
        Command::Chaos(args) => chaos::run(*args).await,
        Command::List(args) => list::run(*args).await,
        Command::Storm(args) => args.run(&run, &interrupt).await,
    }
}

impl Storm {
    async fn run(mut self, run: &Run, interrupt: &Interrupt) -> Result<(), Error> {
        let out = Out::open(self.common.json.take())?;
        let bus = self.bus().await?;
        let plot = self.plot.take();
        let plan = storm::Plan {
            count: self.count,
            rate: self.rate,
            concurrency: self.concurrency.into(),
            region: self.common.region,
            limit: self.common.timeout,
            quota: self.common.quota,
            floor: !self.no_floor,
            message_bytes: storm::MESSAGE_BYTES,
        };
        // Boxed, since it holds the futures of three measurements.
        let scenario = Box::pin(storm::run(run, &bus, plan));
        let report = stoppable(run.stop(), interrupt, scenario).await?;
        if let Some(path) = plot {
            let written = std::fs::write(&path, plot::svg(&report));
            written.map_err(|source| Error::Report { path, source })?;
        }
        out.show(&report)
    }

    async fn bus(&self) -> Result<slipway_bus::Bus, Error> {
        let credentials = self.nats_credentials.clone();
        let credentials =
            credentials.map_or(slipway_bus::Credentials::None, slipway_bus::Credentials::File);
        let config = slipway_bus::Config {
            credentials,
            patience: Duration::from_secs(5),
            ..slipway_bus::Config::new(&*self.nats, "slipway-loadtest")
        };
        slipway_bus::connect(&config).await.map_err(Error::Nats)
    }
}

impl Builds {
    fn plan(self) -> Result<builds::Plan, Error> {
        let dockerfile = match self.dockerfile {
            None => builds::DOCKERFILE.to_owned(),
            Some(path) => std::fs::read_to_string(&path)
                .map_err(|source| Error::Dockerfile { path, source })?,
        };
        Ok(builds::Plan {
            count: self.count,
            concurrency: self.concurrency.into(),
            rate: self.rate,
            region: self.common.region,
            dockerfile,
            no_cache: self.no_cache,
            limit: self.common.timeout,
            quota: self.common.quota,
        })
    }
}

impl Logs {
    fn plan(self) -> logs::Plan {
        logs::Plan {
            lines: self.lines,
            followers: self.followers.into(),
            rate: self.rate,
            image: self.image,
            region: self.common.region,
            limit: self.common.timeout,
            quota: self.common.quota,
        }
    }
}

/// Lets Ctrl-C end a scenario in order: it cleans up and still reports.
pub(super) async fn stoppable(
    stop: &CancellationToken,
    interrupt: &Interrupt,
    scenario: impl Future<Output = Result<Report, slipway_loadtest::Error>>,
) -> Result<Report, Error> {
    let mut scenario = pin!(scenario);
    // Cancel-safe: the scenario goes on below.
    let report = tokio::select! {
        report = &mut scenario => report,
        () = interrupt.pressed() => {
            stop.cancel();
            scenario.await
        }
    };
    report.map_err(|error| match error {
        slipway_loadtest::Error::Api(error) => Error::Api(error),
        error => Error::Loadtest(error),
    })
}

/// Where the report goes.
pub(super) enum Out {
    Text,
    Json,
    Both { path: PathBuf, file: File },
}

impl Out {
    /// Opened before the run, so that no run is made in vain.
    pub(super) fn open(json: Option<PathBuf>) -> Result<Self, Error> {
        match json {
            None => Ok(Self::Text),
            Some(path) if path == Path::new("-") => Ok(Self::Json),
            Some(path) => match File::create(&path) {
                Ok(file) => Ok(Self::Both { path, file }),
                Err(source) => Err(Error::Report { path, source }),
            },
        }
    }

    /// Shows the report, and says what it means for the exit code.
    pub(super) fn show(self, report: &Report) -> Result<(), Error> {
        match self {
            Self::Text => write!(io::stdout(), "{report}")?,
            Self::Json => write_json(io::stdout(), report)?,
            Self::Both { path, file } => {
                write!(io::stdout(), "{report}")?;
                let written = write_json(file, report);
                written.map_err(|source| Error::Report { path, source })?;
            }
        }
        if report.stopped {
            let advice = Some("interrupted; the figures are those until then".to_owned());
            return Err(Error::Interrupted { advice });
        }
        if report.is_success() { Ok(()) } else { Err(Error::Partly) }
    }
}

fn write_json(mut to: impl io::Write, report: &Report) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut to, report)?;
    writeln!(to)
}

#[cfg(test)]
mod tests {
    use super::rate;

    #[test]
    fn a_rate_is_above_zero() {
        assert_eq!(rate("2.5"), Ok(2.5));
        for bad in ["0", "-1", "inf", "nan", "fast"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
