//! What a cluster is made of, and the scheduler's configuration that follows from it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use slipway_testkit::{Disk, NatsServer};

use super::REGIONS;

/// What a cluster is made of.
pub struct Plan {
    pub workers: Vec<(&'static str, u32)>,
    /// Where stores are: folders, or buckets of an S3 server.
    pub stores: Stores,
    pub time_limit: &'static str,
    pub lease: &'static str,
    /// How long workers have after an outage to renew their leases.
    pub outage_grace: &'static str,
    /// How long a worker that is told to stop goes on with what it runs.
    pub drain_grace: &'static str,
    /// More tables of the scheduler's configuration.
    pub tables: &'static str,
    /// What stands in it for clients of S3 instead of Slipway's own door.
    pub uploads: Option<String>,
    /// More tables of the configuration of workers.
    pub worker_tables: String,
    /// Environment of the scheduler and the workers.
    pub env: Vec<(&'static str, String)>,
    /// Attempts in all.
    pub attempts: u32,
    /// A disk whose power can be cut, for NATS and the object stores.
    pub disk: Option<Arc<Disk>>,
    /// A disk for the object stores alone.
    pub store_disk: Option<Arc<Disk>>,
    /// A BuildKit that is not the stack's.
    pub buildkit: Option<String>,
}

/// Where object stores are.
#[derive(Debug, Clone)]
pub enum Stores {
    Folders,
    /// Folders that fail or dawdle as the file says that [`Stores::faults`] names.
    Faulty,
    /// Folders on the cluster's own disk.
    Disk(PathBuf),
    S3 {
        endpoint: String,
        bucket: String,
    },
}

impl Stores {
    /// Where it says how stores fail.
    pub fn faults(folder: &Path) -> PathBuf {
        folder.join("store-faults.json")
    }

    /// The value of a store's key in a configuration file.
    pub(super) fn setting(&self, folder: &Path, name: &str) -> String {
        let within =
            |folder: &Path| format!("\"file://{}\"", folder.join("stores").join(name).display());
        match self {
            Self::Folders => within(folder),
            Self::Faulty => {
                let faults = Self::faults(folder);
                format!("{{ url = {}, faults = {faults:?} }}", within(folder))
            }
            Self::Disk(disk) => within(disk),
            Self::S3 { endpoint, bucket } => {
                // Clients write contexts where they would be in a bucket of their own.
                let prefix = if name == "contexts" { "" } else { name };
                format!(
                    "{{ url = \"s3://{bucket}/{prefix}\", endpoint = \"{endpoint}\", \
                     allow_http = true }}"
                )
            }
        }
    }
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            workers: vec![("us", 1)],
            stores: Stores::Folders,
            time_limit: "10min",
            lease: "10s",
            outage_grace: "6s",
            drain_grace: "0s",
            tables: "",
            uploads: None,
            worker_tables: String::new(),
            env: vec![],
            attempts: 5,
            disk: None,
            store_disk: None,
            buildkit: None,
        }
    }
}

/// Writes `scheduler.toml` into the folder.
pub(super) fn write_scheduler(folder: &Path, nats: &NatsServer, listen: SocketAddr, plan: &Plan) {
    let (time_limit, attempts, grace) = (plan.time_limit, plan.attempts, plan.outage_grace);
    let mut text = format!(
        "listen = \"{listen}\"\nnats = [{:?}]\ncontexts = {}\ndefault_region = \"us\"\n\
         build_time_limit = {time_limit:?}\nbootstrap_key_file = {:?}\nreconcile_interval = \"1s\"\n\
         metrics_listen = \"127.0.0.1:0\"\nmax_attempts = {attempts}\noutage_grace = {grace:?}\n",
        nats.url(),
        plan.stores.setting(folder, "contexts"),
        folder.join("api-key"),
    );
    for region in REGIONS {
        let classes = if region == "us-east-1" { r#"["cpu", "gpu"]"# } else { r#"["cpu"]"# };
        let store = plan.stores.setting(folder, region);
        writeln!(text, "[regions.{region}]\nclasses = {classes}\nstore = {store}").unwrap();
    }
    let uploads = plan.uploads.clone();
    text.push_str(&uploads.unwrap_or_else(|| crate::door::section(folder)));
    text.push_str(plan.tables);
    std::fs::write(folder.join("scheduler.toml"), text).unwrap();
}
