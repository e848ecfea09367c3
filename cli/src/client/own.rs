//! Options of load tests that run a system of their own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use slipway_loadtest::{Own, Report};

use super::error::Error;
use crate::serve::dev::programs;

/// The system of the run.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// nats-server to use, 2.15.1 or newer [default: one beside this program, or on PATH]
    #[arg(long, env = "SLIPWAY_NATS_SERVER", value_name = "PROGRAM")]
    nats_server: Option<PathBuf>,
    /// Folder of the run, which stays [default: a new one, removed if all went well]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// The folder of a run, if it is to be removed after a good one.
pub struct Folder(Option<PathBuf>);

impl OwnArgs {
    /// The system, whose programs may take `limit` to start, and its folder.
    pub fn system(self, name: &str, limit: Duration) -> Result<(Own, Folder), Error> {
        let nats_server = programs::nats_server(self.nats_server.as_deref());
        let nats_server = nats_server.map_err(|error| Error::NatsServer(error.into()))?;
        let is_new = self.folder.is_none();
        let folder = self.folder.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("slipway-{name}-{:08x}", rand::random::<u32>()))
        });
        let unusable = |source| Error::Report { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(unusable)?;
        let folder = folder.canonicalize().map_err(unusable)?;
        let program = std::env::current_exe()?;
        let own = Own { program, nats_server, folder: folder.clone(), limit };
        Ok((own, Folder(is_new.then_some(folder))))
    }
}

impl Folder {
    /// Removes it after a good run.
    pub fn clear(self, report: &Report) {
        if let Some(folder) = self.0.filter(|_| report.is_success()) {
            // What is left of it harms nobody.
            let _gone = std::fs::remove_dir_all(folder);
        }
    }
}
