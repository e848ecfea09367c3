//! A system of a run's own: a nats-server, a scheduler and workers, as processes below
//! a folder of the run.
//!
//! Owns their files. Invariant: none outlives the run.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use secrecy::SecretString;
use serde::Serialize;
use slipway_api::Client;
use slipway_faults::Child;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::builds::seconds;
use crate::error::Error;
use crate::process::Process;

/// The one region.
pub(crate) const REGION: &str = "us";
/// Between two looks whether a process serves.
const LOOK: Duration = Duration::from_millis(10);

/// What such a system is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Own {
    /// The program `slipway`.
    #[serde(skip)]
    pub program: PathBuf,
    /// The program nats-server.
    #[serde(skip)]
    pub nats_server: PathBuf,
    /// Where the processes keep and say everything.
    #[serde(skip)]
    pub folder: PathBuf,
    /// How long a process may take to start.
    #[serde(rename = "start_limit", serialize_with = "seconds")]
    pub limit: Duration,
}

impl Own {
    /// Starts a nats-server with a store of its own.
    pub(crate) async fn nats(&self) -> Result<Server, Error> {
        let (listen, store) = (free_port().await?, self.folder.join("nats"));
        let text = format!(
            "listen: \"{listen}\"\njetstream {{ store_dir: {store:?}, max_file_store: 1TB }}\n"
        );
        let file = self.write("nats.conf", &text)?;
        let mut command = Command::new(&self.nats_server);
        command.arg("--config").arg(file);
        self.serve(command, listen, "nats").await
    }

    /// Starts a scheduler, and returns when its API is served: then it has read
    /// everything.
    pub(crate) async fn scheduler(&self, nats: &Server, name: &str) -> Result<Scheduler, Error> {
        let (listen, key) = (free_port().await?, format!("dtn_{:064x}", rand::random::<u128>()));
        let key_file = self.write("api-key", &key)?;
        let text = format!(
            "listen = \"{listen}\"\nnats = [{:?}]\ncontexts = {:?}\ndefault_region = {REGION:?}\n\
             bootstrap_key_file = {key_file:?}\n\n[limits]\nsnapshots = 10000000\n\n\
             [regions.{REGION}]\nstore = {:?}\n",
            nats.url(),
            self.store("contexts"),
            self.store(REGION),
        );
        let command = self.role(&["scheduler"], name, &text)?;
        let before = nats.process.processor()?;
        let server = self.serve(command, listen, name).await?;
        let nats_processor = nats.process.processor()? - before;
        Ok(Scheduler { server, key, nats_processor })
    }

    /// Starts a worker with more settings (lines of TOML), and returns when the
    /// scheduler lists it.
    pub(crate) async fn worker(
        &self,
        (nats, client): (&Server, &Client),
        name: &str,
        settings: &str,
    ) -> Result<Worker, Error> {
        let text = format!(
            "id = {name:?}\nregion = {REGION:?}\nnats = [{:?}]\nstore = {:?}\ncontexts = {:?}\n\
             {settings}",
            nats.url(),
            self.store(REGION),
            self.store("contexts"),
        );
        let command = self.role(&["worker", "run"], name, &text)?;
        let (begun, log) = (Instant::now(), self.log(name));
        let child = spawn(command, &log)?;
        let is_listed = async || {
            let workers = client.workers().await.unwrap_or_default();
            workers.iter().any(|worker| worker.id == name)
        };
        while !is_listed().await {
            if child.status().is_some() || begun.elapsed() > self.limit {
                return Err(Error::NotUp { program: format!("worker {name}"), log });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Worker(child))
    }

    /// A command of `slipway` with a file of its own.
    fn role(&self, words: &[&str], name: &str, text: &str) -> Result<Command, Error> {
        let file = self.write(&format!("{name}.toml"), text)?;
        let mut command = Command::new(&self.program);
        command.args(words).arg("--config").arg(file);
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        Ok(command)
    }

    async fn serve(
        &self,
        command: Command,
        address: SocketAddr,
        name: &str,
    ) -> Result<Server, Error> {
        let (begun, log) = (Instant::now(), self.log(name));
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn(command, &log)?;
        let process = Process::watch(Path::new("/proc"), child.id())?;
        while TcpStream::connect(address).await.is_err() {
            if child.status().is_some() || begun.elapsed() > self.limit {
                return Err(Error::NotUp { program, log });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Server { _child: child, process, address, took: begun.elapsed() })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn store(&self, name: &str) -> String {
        format!("file://{}", self.folder.join("stores").join(name).display())
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let path = self.folder.join(name);
        match std::fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Write { path, source }),
        }
    }
}

/// A server that serves.
pub(crate) struct Server {
    _child: Child,
    /// What it takes, from its start.
    pub(crate) process: Process,
    address: SocketAddr,
    /// From its start until it served.
    pub(crate) took: Duration,
}

impl Server {
    /// Where NATS clients find it.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}

/// A scheduler that serves.
pub(crate) struct Scheduler {
    pub(crate) server: Server,
    key: String,
    /// What NATS used of the processor while it started, in seconds.
    pub(crate) nats_processor: f64,
}

impl Scheduler {
    /// The address of the API.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api", self.server.address)
    }

    /// A client with the scheduler's first key.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        self.client_with(&self.key)
    }

    /// A client with another key.
    pub(crate) fn client_with(&self, key: &str) -> Result<Client, Error> {
        let url = self.url().parse().expect("an address and a path make a URL");
        Ok(Client::new(url, &SecretString::from(key.to_owned()))?)
    }
}

/// A worker that serves.
pub(crate) struct Worker(Child);

impl Worker {
    /// `kill -9`; returns when it is gone.
    pub(crate) async fn kill(self) {
        self.0.kill9().await;
    }
}

fn spawn(command: Command, log: &Path) -> Result<Child, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    Child::spawn_into(command, log).map_err(|source| Error::Start { program, source })
}

/// A port of loopback that nobody has now.
async fn free_port() -> Result<SocketAddr, Error> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    listener.and_then(|listener| listener.local_addr()).map_err(Error::Port)
}
