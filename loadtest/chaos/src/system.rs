//! The system as separate processes: nats-server, schedulers, workers, each with a
//! proxy of its own between it and NATS.
//!
//! Owns the configuration files, the processes and what is done to them. Invariant:
//! a process that shall run is started again when it ends, and none outlives the run.

mod files;
mod process;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use slipway_faults::TcpProxy;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::error::Error;
use crate::history::{History, What};
use crate::plan::{Fault, Target};
use crate::settings::Settings;
use process::Process;

/// How long a process may take to stop by itself.
const GRACE: Duration = Duration::from_secs(40);
/// Between two looks at something.
pub(crate) const LOOK: Duration = Duration::from_millis(100);
/// How long the system may take to come up.
const START: Duration = Duration::from_secs(120);

/// The processes.
#[derive(Debug)]
pub(crate) struct System {
    folder: PathBuf,
    history: Arc<History>,
    parts: BTreeMap<Target, Process>,
    /// Addresses of the schedulers.
    pub(crate) apis: Vec<SocketAddr>,
    /// Address of NATS, past all proxies.
    pub(crate) nats: SocketAddr,
    /// The API key.
    pub(crate) key: String,
}

impl System {
    /// Writes the files and starts everything.
    pub(crate) async fn start(settings: &Settings, history: Arc<History>) -> Result<Self, Error> {
        let nats = free_port().await?;
        let mut system = Self {
            folder: settings.folder.clone(),
            history,
            parts: BTreeMap::new(),
            apis: vec![],
            nats,
            key: format!("dtn_{:064x}", rand::random::<u128>()),
        };
        system.add_servers(settings)?;
        for target in settings.shape().clients() {
            let proxy = TcpProxy::bind(nats).await.map_err(Error::Port)?;
            let (text, role) = match &target {
                Target::Worker { region, n } => {
                    (files::worker(settings, &proxy, region, *n), &["worker", "run"][..])
                }
                _ => {
                    let listen = free_port().await?;
                    system.apis.push(listen);
                    (files::scheduler(settings, &proxy, listen), &["scheduler"][..])
                }
            };
            let file = system.folder.join(format!("{target}.toml"));
            write(&file, &text)?;
            let mut words: Vec<String> = role.iter().map(ToString::to_string).collect();
            words.extend(["--config".to_owned(), file.display().to_string()]);
            system.add(target, settings.program.clone(), words, Some(proxy));
        }
        system.up().await?;
        Ok(system)
    }

    fn add_servers(&mut self, settings: &Settings) -> Result<(), Error> {
        let logs = self.folder.join("logs");
        std::fs::create_dir_all(&logs)
            .map_err(|source| Error::Write { path: logs.clone(), source })?;
        write(&self.folder.join("api-key"), &self.key)?;
        let file = self.folder.join("nats.conf");
        write(&file, &files::nats(&self.folder, self.nats))?;
        let words = vec!["--config".to_owned(), file.display().to_string()];
        self.add(Target::Nats, settings.nats_server.clone(), words, None);
        if let Some(command) = &settings.buildkit_command {
            let words = vec!["-c".to_owned(), format!("exec {command}")];
            self.add(Target::Buildkit, "sh".into(), words, None);
        }
        Ok(())
    }

    fn add(
        &mut self,
        target: Target,
        program: PathBuf,
        args: Vec<String>,
        proxy: Option<TcpProxy>,
    ) {
        let log = self.log(&target);
        self.parts.insert(target, Process::new(program, args, log, proxy));
    }

    fn log(&self, target: &Target) -> PathBuf {
        self.folder.join("logs").join(format!("{target}.log"))
    }

    /// Starts what shall run and waits until all ports are served.
    async fn up(&self) -> Result<(), Error> {
        self.spawn(&Target::Nats)?;
        self.serves(self.nats, "nats-server").await?;
        for target in self.parts.keys() {
            self.spawn(target)?;
            // Schedulers set up what workers wait on.
            if let Target::Scheduler { n } = target {
                self.serves(self.apis[*n as usize - 1], &target.to_string()).await?;
            }
        }
        Ok(())
    }

    fn spawn(&self, target: &Target) -> Result<(), Error> {
        let started = self.parts[target].run();
        started.map_err(|source| Error::Start { process: target.to_string(), source })
    }

    async fn serves(&self, address: SocketAddr, name: &str) -> Result<(), Error> {
        let deadline = Instant::now() + START;
        while TcpStream::connect(address).await.is_err() {
            self.tend();
            if Instant::now() > deadline {
                let waiting = format!("{name} does not listen on {address}");
                return Err(Error::NotUp { waiting, logs: self.folder.join("logs") });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Starts again what ended by itself.
    pub(crate) fn tend(&self) {
        for (target, process) in &self.parts {
            if let Some(status) = process.tend() {
                self.history.note(What::Died { process: target.to_string(), status });
            }
        }
    }

    /// Ends every fault: all run, none is paused, no way is cut.
    pub(crate) fn heal(&self) {
        for region in crate::settings::REGIONS {
            let _ = std::fs::remove_file(files::faults(&self.folder, region));
        }
        for (target, process) in &self.parts {
            process.heal();
            if let Err(error) = process.run() {
                tracing::warn!(process = %target, %error, "a process was not started");
            }
        }
    }

    /// Lets a fault happen, and returns when it is over. Faults on streams and
    /// queues are not for here.
    pub(crate) async fn suffer(&self, fault: &Fault) {
        match fault {
            Fault::Kill { target, down_ms } => {
                self.parts[target].kill().await;
                pause(*down_ms).await;
                self.run_again(target);
            }
            Fault::Outage { for_ms } => {
                self.parts[&Target::Nats].kill().await;
                pause(*for_ms).await;
                self.run_again(&Target::Nats);
            }
            Fault::KillAll { down_ms } => {
                let killed = self.parts.values().map(Process::kill);
                futures::future::join_all(killed).await;
                pause(*down_ms).await;
                self.parts.keys().for_each(|target| self.run_again(target));
            }
            Fault::Restart { target } => {
                self.parts[target].stop(GRACE).await;
                self.run_again(target);
            }
            Fault::Pause { target, for_ms } => {
                self.parts[target].freeze(true);
                pause(*for_ms).await;
                self.parts[target].freeze(false);
            }
            Fault::CutOnce { target } => self.way(target, TcpProxy::cut_once),
            Fault::Cut { target, for_ms } => {
                self.way(target, TcpProxy::cut);
                pause(*for_ms).await;
                self.way(target, TcpProxy::resume);
            }
            Fault::Freeze { target, for_ms } => {
                self.way(target, TcpProxy::pause);
                pause(*for_ms).await;
                self.way(target, TcpProxy::resume);
            }
            Fault::Delay { target, by_ms, for_ms } => {
                self.way(target, |proxy| proxy.delay(Duration::from_millis(*by_ms)));
                pause(*for_ms).await;
                self.way(target, |proxy| proxy.delay(Duration::ZERO));
            }
            Fault::StoreFails { region, percent, for_ms } => {
                self.script(region, &format!("{{\"fail_percent\": {percent}}}"), *for_ms).await;
            }
            Fault::StoreSlow { region, by_ms, for_ms } => {
                self.script(region, &format!("{{\"delay_ms\": {by_ms}}}"), *for_ms).await;
            }
            Fault::RepeatJobs { .. } | Fault::RepeatEvents { .. } => {}
        }
    }

    fn run_again(&self, target: &Target) {
        if let Err(error) = self.parts[target].run() {
            tracing::warn!(process = %target, %error, "a process was not started again");
        }
    }

    fn way(&self, target: &Target, hurt: impl Fn(&TcpProxy)) {
        if let Some(proxy) = self.parts[target].proxy() {
            hurt(proxy);
        }
    }

    async fn script(&self, region: &str, text: &str, for_ms: u64) {
        let file = files::faults(&self.folder, region);
        if let Err(error) = std::fs::write(&file, text) {
            tracing::warn!(%error, "the store's faults were not written");
        }
        pause(for_ms).await;
        let _ended_early = std::fs::remove_file(&file);
    }

    /// Lines in which a process says that it panicked.
    pub(crate) fn panics(&self) -> Vec<(String, String)> {
        let mut found = vec![];
        for target in self.parts.keys() {
            let text = std::fs::read(self.log(target)).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let lines = text.lines().filter(|line| line.contains("panicked at"));
            found.extend(lines.map(|line| (target.to_string(), line.to_owned())));
        }
        found
    }

    /// The address of a region's object store, past its faults.
    pub(crate) fn store(&self, region: &str) -> String {
        files::store_url(&self.folder, region)
    }

    /// Ends everything. BuildKit may clean up after itself: what it has on the
    /// machine, mounts and networks, would outlive it.
    pub(crate) async fn stop(&self) {
        if let Some(buildkit) = self.parts.get(&Target::Buildkit) {
            buildkit.stop(GRACE).await;
        }
        futures::future::join_all(self.parts.values().map(Process::kill)).await;
    }
}

async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A port of loopback that nobody has now.
async fn free_port() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Port)?;
    listener.local_addr().map_err(Error::Port)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

/// A command with its arguments and no settings of the surroundings that change
/// what it logs.
fn command(program: &Path, args: &[String]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_remove("RUST_LOG").env("NO_COLOR", "1").env("RUST_BACKTRACE", "0");
    command
}
