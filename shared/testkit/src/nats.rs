//! A real nats-server for one test.
//!
//! Owns: finding the program, one server per value with JetStream in a
//! temporary folder, killing and restarting it.
//! Refuses: servers older than [`FLOOR`], which silently ignore what Slipway uses.
//! Invariant: a restarted server has the port and the store of the first start.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use crate::{Child, Disk, stack};

/// The oldest nats-server that Slipway works with.
const FLOOR: [u32; 3] = [2, 15, 1];
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running nats-server with JetStream on loopback, ended on drop.
#[derive(Debug)]
pub struct NatsServer {
    child: Child,
    program: PathBuf,
    folder: TempDir,
    disk: Option<Arc<Disk>>,
    port: u16,
}

impl NatsServer {
    /// Starts a server on a free port and waits until it serves. Its JetStream
    /// store syncs every write, as Slipway's own servers do.
    ///
    /// # Panics
    /// With the remedy, if there is no nats-server or it does not start.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with more lines of nats-server configuration, for example accounts.
    ///
    /// # Panics
    /// As [`start`](Self::start); a configuration error is in the message.
    pub async fn start_with(configuration: &str) -> Self {
        Self::start_where(configuration, None).await
    }

    /// The same with its store on a disk of its own.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_on(disk: Arc<Disk>) -> Self {
        Self::start_where("", Some(disk)).await
    }

    async fn start_where(configuration: &str, disk: Option<Arc<Disk>>) -> Self {
        let program = program();
        let folder = TempDir::with_prefix("slipway-nats-").expect("a temporary folder can be made");
        let mut text = String::new();
        let place = disk.as_ref().map_or_else(|| folder.path().to_owned(), |disk| disk.path());
        let store = place.join("store");
        // By itself the server takes three quarters of the free disk as its
        // limit, and refuses streams that reserve more: tests are small, and
        // must not depend on how full the disk is.
        writeln!(
            text,
            "jetstream {{ store_dir: {store:?}, sync_interval: always, max_file_store: 1TB }}\n\
             {configuration}"
        )
        .expect("a string takes what is written to it");
        fs::write(folder.path().join("nats.conf"), text).expect("the configuration can be written");
        // -1 is nats-server's word for a free port.
        let (child, port) = launch(&program, folder.path(), disk.as_deref(), "-1").await;
        Self { child, program, folder, disk, port }
    }

    /// The folder of its configuration and of everything that it stores.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address for clients: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The address for a [`TcpProxy`](crate::TcpProxy) in front of the server.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// The port for clients, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process, to pause and resume it or to read its log.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// How many messages a stream holds. What its consumers say is to come is counted a
    /// moment after a message was acknowledged; this is not.
    ///
    /// # Panics
    /// If the server does not answer, or has no such stream.
    pub async fn messages(&self, stream: &str) -> u64 {
        let client = async_nats::connect(self.url()).await;
        let context = async_nats::jetstream::new(client.expect("the server can be reached"));
        let stream = context.get_stream(stream).await;
        stream.expect("the stream is there").cached_info().state.messages
    }

    /// Kills the server without warning; it is dead when this returns.
    pub async fn kill9(&self) {
        self.child.kill9().await;
    }

    /// Starts the server again on its port and its store, killing it first if it runs.
    ///
    /// # Panics
    /// If the server does not come up again.
    pub async fn restart(&mut self) {
        self.child.kill9().await;
        let port = self.port.to_string();
        let disk = self.disk.as_deref();
        (self.child, _) = launch(&self.program, self.folder.path(), disk, &port).await;
    }
}

/// Starts the server and returns it with its port once it serves.
async fn launch(program: &Path, folder: &Path, disk: Option<&Disk>, port: &str) -> (Child, u16) {
    let mut command = disk.map_or_else(|| Command::new(program), |disk| disk.command(program));
    command.args(["--addr", "127.0.0.1", "--port", port, "--config"]).arg(folder.join("nats.conf"));
    let child = Child::spawn(command)
        .unwrap_or_else(|error| panic!("`{}` cannot be started: {error}", program.display()));
    let ready = timeout(START_LIMIT, child.output().line(|line| line.ends_with("Server is ready")))
        .await
        .unwrap_or_else(|_| panic!("nats-server did not serve within {START_LIMIT:?}"));
    ready.unwrap_or_else(|ended| panic!("nats-server did not start: {ended}"));
    let port = child
        .output()
        .lines()
        .iter()
        .find_map(|line| line.split_once("Listening for client connections on 127.0.0.1:"))
        .and_then(|(_, port)| port.parse().ok());
    (child, port.expect("a server that is ready has said its port"))
}

fn program() -> PathBuf {
    let program = stack::setting("SLIPWAY_NATS_SERVER").map(PathBuf::from);
    let program = program
        .or_else(|| Some(stack::folder().join("bin/nats-server")).filter(|file| file.exists()))
        .unwrap_or_else(|| PathBuf::from("nats-server"));
    let version = Command::new(&program).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match version {
        Ok(version) if is_new_enough(&version) => program,
        Ok(version) => panic!(
            "`{}` is `{version}`, older than {FLOOR:?}. Remedy: make deps",
            program.display()
        ),
        Err(error) => {
            panic!("no nats-server (`{}`: {error}). Remedy: make deps", program.display())
        }
    }
}

/// Reads the answer to `nats-server --version`, such as `nats-server: v2.15.1`.
fn is_new_enough(answer: &str) -> bool {
    let Some((_, version)) = answer.split_once(": v") else {
        return false;
    };
    let version = version.split('-').next().unwrap_or_default();
    let parts: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    parts.as_slice() >= FLOOR.as_slice()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use async_nats::jetstream;

    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for new_enough in ["2.15.1", "2.15.10", "2.16.0", "3.0.0", "2.16.0-RC.1"] {
            assert!(is_new_enough(&format!("nats-server: v{new_enough}")), "{new_enough}");
        }
        for old in ["2.15.0", "2.9.10", "2.14.9"] {
            assert!(!is_new_enough(&format!("nats-server: v{old}")), "{old}");
        }
        assert!(!is_new_enough("something else"));
    }

    #[tokio::test]
    async fn two_servers_run_side_by_side() {
        let (one, two) = (NatsServer::start().await, NatsServer::start().await);
        assert_ne!(one.port(), two.port());
        async_nats::connect(one.url()).await.unwrap();
        async_nats::connect(two.url()).await.unwrap();
    }

    #[tokio::test]
    async fn acknowledged_message_survives_kill9_and_restart() {
        let mut server = NatsServer::start().await;
        let url = server.url();
        let context = jetstream::new(async_nats::connect(&url).await.unwrap());
        let config = jetstream::stream::Config {
            name: "T".into(),
            subjects: vec!["t".into()],
            ..Default::default()
        };
        context.create_stream(config).await.unwrap();
        context.publish("t", "kept".into()).await.unwrap().await.unwrap();
        server.kill9().await;
        assert!(async_nats::connect(&url).await.is_err());
        server.restart().await;
        assert_eq!(server.url(), url);
        let context = jetstream::new(async_nats::connect(&url).await.unwrap());
        let mut stream = context.get_stream("T").await.unwrap();
        assert_eq!(stream.info().await.unwrap().state.messages, 1);
    }

    #[tokio::test]
    async fn configuration_lines_are_used() {
        let server = NatsServer::start_with("authorization { user: u, password: p }").await;
        assert!(async_nats::connect(server.url()).await.is_err());
        let options = async_nats::ConnectOptions::with_user_and_password("u".into(), "p".into());
        options.connect(server.url()).await.unwrap();
    }

    #[tokio::test]
    #[should_panic(expected = "nats-server did not start")]
    async fn configuration_error_is_in_the_panic() {
        NatsServer::start_with("no such option: {").await;
    }
}
