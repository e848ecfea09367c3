//! The processes of the scenario: a nats-server, and a scheduler.
//!
//! Owns their files and their memory's figures. Invariant: none outlives the run.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use slipway_faults::Child;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::Plan;
use super::seed::REGION;
use crate::error::Error;
use crate::report::{Figure, Report};

/// Between two looks whether a process serves.
const LOOK: Duration = Duration::from_millis(10);
/// Ticks of a second in what Linux tells of processes, on every machine that it runs on.
const TICKS: f64 = 100.0;

/// A server that serves.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    /// From its start until it served.
    pub(super) took: Duration,
}

impl Server {
    async fn start(
        command: Command,
        address: SocketAddr,
        log: &Path,
        limit: Duration,
    ) -> Result<Self, Error> {
        let begun = Instant::now();
        let program = command.get_program().to_string_lossy().into_owned();
        let child = Child::spawn_into(command, log)
            .map_err(|source| Error::Start { program: program.clone(), source })?;
        while TcpStream::connect(address).await.is_err() {
            if child.status().is_some() || begun.elapsed() > limit {
                return Err(Error::NotUp { program, log: log.to_owned() });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Self { child, address, took: begun.elapsed() })
    }

    /// Where NATS clients find it.
    pub(super) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Seconds of the processor that it has used, in user code and in the kernel.
    pub(super) fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.unwrap_or_default();
        // The name of the program, in brackets, may hold spaces (proc_pid_stat(5)).
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let ticks =
            fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
        ticks.sum::<u64>() as f64 / TICKS
    }

    /// A line of the process's memory, as `VmRSS`, in bytes.
    fn memory(&self, what: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kibibytes.unwrap_or(0_u64) * 1024
    }
}

/// Starts a nats-server with a store of its own.
pub(super) async fn start_nats(plan: &Plan) -> Result<Server, Error> {
    let (listen, store) = (free_port().await?, plan.folder.join("nats"));
    let text = format!(
        "listen: \"{listen}\"\njetstream {{ store_dir: {store:?}, max_file_store: 1TB }}\n"
    );
    let file = write(&plan.folder.join("nats.conf"), &text)?;
    let mut command = Command::new(&plan.nats_server);
    command.arg("--config").arg(file);
    Server::start(command, listen, &plan.folder.join("nats.log"), plan.limit).await
}

/// A scheduler that serves.
pub(super) struct System {
    scheduler: Server,
    /// What NATS used of the processor meanwhile, in seconds.
    nats_processor: f64,
}

impl System {
    /// Starts a scheduler, and returns when its API is served: then it has read
    /// everything.
    pub(super) async fn start(plan: &Plan, nats: &Server, name: &str) -> Result<Self, Error> {
        let (listen, folder) = (free_port().await?, &plan.folder);
        let store = |name: &str| format!("file://{}", folder.join("stores").join(name).display());
        let text = format!(
            "listen = \"{listen}\"\nnats = [{:?}]\ncontexts = {{ url = {:?} }}\n\
             default_region = {REGION:?}\n\n[limits]\nsnapshots = 10000000\n\n\
             [regions.{REGION}]\nstore = {{ url = {:?} }}\n",
            nats.url(),
            store("contexts"),
            store(REGION),
        );
        let file = write(&folder.join(format!("scheduler-{name}.toml")), &text)?;
        let mut command = Command::new(&plan.program);
        command
            .arg("scheduler")
            .arg("--config")
            .arg(file)
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1");
        let log = folder.join(format!("scheduler-{name}.log"));
        let before = nats.processor();
        let scheduler = Server::start(command, listen, &log, plan.limit).await?;
        Ok(Self { scheduler, nats_processor: nats.processor() - before })
    }

    /// The address of the API.
    pub(super) fn url(&self) -> String {
        format!("http://{}/api", self.scheduler.address)
    }

    /// Bytes that it has in memory.
    pub(super) fn resident(&self) -> u64 {
        self.scheduler.memory("VmRSS")
    }

    /// Adds what is to be said about its start and size, where one without snapshots
    /// takes `base` bytes.
    pub(super) fn tell(&self, report: &mut Report, base: u64, snapshots: usize) {
        let processor = self.scheduler.processor();
        let each = |bytes: u64| bytes.saturating_sub(base) as f64 / snapshots.max(1) as f64;
        let (now, most) = (self.resident(), self.scheduler.memory("VmHWM"));
        let mut figure = |name, value, unit| report.figures.push(Figure { name, value, unit });
        figure("start", self.scheduler.took.as_secs_f64(), " s");
        figure("start, target", 20.0, " s");
        figure("start, processor", processor, " s");
        figure("start, processor, NATS", self.nats_processor, " s");
        figure("memory", now as f64 / 1e6, " MB");
        figure("memory without", base as f64 / 1e6, " MB");
        figure("memory each", each(now), " B");
        figure("memory each, target", 1500.0, " B");
        figure("memory each, peak", each(most), " B");
    }
}

/// A port of loopback that nobody has now.
async fn free_port() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    listener.and_then(|listener| listener.local_addr()).map_err(Error::Port)
}

fn write(path: &Path, text: &str) -> Result<PathBuf, Error> {
    let written = std::fs::write(path, text);
    written
        .map(|()| path.to_owned())
        .map_err(|source| Error::Write { path: path.to_owned(), source })
}
