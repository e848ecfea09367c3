//! A real registry of the distribution project: Debian's `docker-registry`.
//!
//! Owns: one process with storage of its own on a free port of loopback.
//! Refuses: a machine without the program; `deploy/dev/stack deps` brings it.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use crate::{Child, stack};

/// The password of user `tester` of a registry with [`RegistryAuth::Password`].
pub const REGISTRY_PASSWORD: &str = "correct horse";
/// `tester` with [`REGISTRY_PASSWORD`], hashed by bcrypt with the least cost.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

/// How a registry asks who somebody is.
#[derive(Debug, Clone)]
pub enum RegistryAuth {
    /// It does not ask.
    None,
    /// By name and password: `tester` and [`REGISTRY_PASSWORD`].
    Password,
    /// By tokens of a token server.
    Token {
        /// URL of the token server.
        realm: String,
        /// Certificate of the key that signs tokens, in PEM. Tokens name the
        /// issuer `issuer` and are for the service `registry`.
        certificate: String,
    },
}

/// A running registry; it ends, and forgets everything, on drop.
#[derive(Debug)]
pub struct DockerRegistry {
    address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl DockerRegistry {
    /// Starts an empty registry on a free port and waits until it listens.
    ///
    /// # Panics
    /// With the remedy, if the program is missing; with what it printed, if it
    /// does not start.
    pub async fn start(auth: RegistryAuth) -> Self {
        let program = stack::folder().join("registry/usr/bin/docker-registry");
        assert!(
            program.is_file(),
            "`{}` is missing. Remedy: `make deps`, or run the tests by `make test`",
            program.display()
        );
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = |name: &str| folder.path().join(name);
        let auth = match auth {
            RegistryAuth::None => String::new(),
            RegistryAuth::Password => {
                fs::write(path("htpasswd"), HTPASSWD).expect("the folder takes files");
                format!(
                    "auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n",
                    path("htpasswd").display()
                )
            }
            RegistryAuth::Token { realm, certificate } => {
                fs::write(path("ca.pem"), certificate).expect("the folder takes files");
                format!(
                    "auth: {{ token: {{ realm: {realm}, service: registry, issuer: issuer, \
                     rootcertbundle: {} }} }}\n",
                    path("ca.pem").display()
                )
            }
        };
        let config = format!(
            "version: 0.1\nlog: {{ level: info, accesslog: {{ disabled: true }} }}\n\
             storage:\n  filesystem: {{ rootdirectory: {} }}\n  delete: {{ enabled: true }}\n\
             http: {{ addr: \"127.0.0.1:0\" }}\n{auth}",
            path("data").display()
        );
        fs::write(path("config.yml"), config).expect("the folder takes files");
        let mut command = Command::new(program);
        command.arg("serve").arg(path("config.yml"));
        let child = Child::spawn(command).expect("docker-registry can be started");
        let line = child.output().line(|line| line.contains("listening on")).await;
        let line = line.unwrap_or_else(|ended| panic!("docker-registry does not start: {ended}"));
        let address = listening(&line).unwrap_or_else(|| panic!("no address in `{line}`"));
        Self { address, child, folder }
    }

    /// `127.0.0.1:PORT`, as references name it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process, to pause or kill it.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// The folder of everything that it stores.
    pub fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }
}

/// `… msg="listening on 127.0.0.1:5000" …`
fn listening(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(|letter: char| !(letter.is_ascii_digit() || ".:".contains(letter)));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_log() {
        let line = r#"time="x" level=info msg="listening on 127.0.0.1:41001" go.version=go1.19"#;
        assert_eq!(listening(line), Some(SocketAddr::from(([127, 0, 0, 1], 41001))));
        assert_eq!(listening("starting"), None);
    }
}
