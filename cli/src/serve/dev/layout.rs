//! The data folder: ports, keys, configuration files, and what is told to users.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use super::stack::Stack;
use super::{DevArgs, programs};

/// The regions of the stack; the last one has the GPU class.
pub const REGIONS: [&str; 3] = ["us", "eu", "us-east-1"];
/// The region with a GPU class.
const GPU_REGION: &str = "us-east-1";

/// The scheduler's name among the parts that have metrics.
const SCHEDULER: &str = "scheduler";

/// The data folder, prepared.
#[derive(Debug)]
pub struct Layout {
    /// The folder, absolute.
    pub data: PathBuf,
    /// Ports, the same at every start.
    pub ports: Ports,
    /// The first API key.
    pub api_key: String,
    /// Who vouches for the door for uploads.
    pub authority: Authority,
    /// nats-server.
    pub nats_server: PathBuf,
    /// BuildKit.
    pub buildkit: String,
    _lock: fs::File,
}

/// Ports of the stack. Kept in the folder, since references of snapshots name
/// the registries' ports.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    /// The API.
    pub api: u16,
    /// NATS.
    pub nats: u16,
    /// The door for uploads.
    #[serde(default)]
    pub uploads: u16,
    /// Registries by worker name.
    pub registries: BTreeMap<String, u16>,
    /// Metrics by part: `scheduler`, and workers by name.
    #[serde(default)]
    pub metrics: BTreeMap<String, u16>,
}

impl Layout {
    /// Finds what the machine has, makes the folder and writes its files.
    ///
    /// # Errors
    /// Something is missing, or another stack runs on the folder.
    pub fn prepare(args: &DevArgs) -> anyhow::Result<Self> {
        let nats_server = programs::nats_server(args.nats_server.as_deref())?;
        let buildkit = programs::buildkit(args.buildkit.as_deref())?;
        let data = &args.data_dir;
        fs::create_dir_all(data.join("logs"))
            .with_context(|| format!("cannot make the data folder `{}`", data.display()))?;
        let data = data.canonicalize().context("cannot resolve the data folder")?;
        let lock = lock(&data)?;
        let names: Vec<String> = workers(args).into_iter().map(|worker| worker.name).collect();
        let ports = ports(&data, &names)?;
        let api_key = api_key(&data)?;
        let authority = Authority::prepare(&data)?;
        if args.trust {
            authority.trust()?;
        }
        let layout = Self { data, ports, api_key, authority, nats_server, buildkit, _lock: lock };
        layout.write_configuration(args)?;
        Ok(layout)
    }

    /// A file below the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.data.join(name)
    }

    /// Address of the API, without `/api`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.api)
    }

    /// Address of NATS.
    #[must_use]
    pub fn nats_url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.nats)
    }

    fn store(&self, args: &DevArgs, name: &str) -> String {
        match &args.store {
            Some(url) => format!("{}/{name}", url.as_str().trim_end_matches('/')),
            None => format!("file://{}", self.data.join("stores").join(name).display()),
        }
    }

    fn write_configuration(&self, args: &DevArgs) -> anyhow::Result<()> {
        // By itself the server takes three quarters of the free disk as its limit, and
        // refuses streams that may grow beyond; what really fills the disk is little.
        let nats = format!(
            "listen: \"127.0.0.1:{}\"\nmax_payload: 1MB\n\
             jetstream {{ store_dir: {}, sync_interval: always, max_file_store: 1TB }}\n",
            self.ports.nats,
            quoted(&self.path("nats").display().to_string()),
        );
        write(&self.path("nats.conf"), &nats)?;
        write(&self.path("scheduler.toml"), &self.scheduler(args))?;
        for worker in workers(args) {
            write(
                &self.path(&format!("worker-{}.toml", worker.name)),
                &self.worker(args, &worker),
            )?;
        }
        Ok(())
    }

    fn metrics_port(&self, part: &str) -> u16 {
        self.ports.metrics.get(part).copied().unwrap_or_default()
    }

    fn scheduler(&self, args: &DevArgs) -> String {
        let mut text = format!(
            "listen = \"127.0.0.1:{}\"\nnats = [\"{}\"]\ncontexts = {}\ndefault_region = \"us\"\n\
             metrics_listen = \"127.0.0.1:{}\"\nbuild_time_limit = \"{}\"\nbootstrap_key_file = {}\n",
            self.ports.api,
            self.nats_url(),
            quoted(&self.store(args, "contexts")),
            self.metrics_port(SCHEDULER),
            humantime::format_duration(args.build_time_limit),
            quoted(&self.path("api-key").display().to_string()),
        );
        let authority = &self.authority;
        text.push_str(&format!(
            "\n[uploads.door]\nlisten = \"127.0.0.1:{}\"\ntls = {{ cert = {}, key = {} }}\n",
            self.ports.uploads,
            quoted(&authority.server.display().to_string()),
            quoted(&authority.server_key.display().to_string()),
        ));
        for region in REGIONS {
            let classes = if region == GPU_REGION { r#"["cpu", "gpu"]"# } else { r#"["cpu"]"# };
            text.push_str(&format!(
                "\n[regions.{region}]\nclasses = {classes}\nstore = {}\n",
                quoted(&self.store(args, region))
            ));
        }
        text
    }

    fn worker(&self, args: &DevArgs, worker: &WorkerName) -> String {
        let mut text = format!(
            "id = \"{}\"\nregion = \"{}\"\nnats = [\"{}\"]\nbuildkit = {}\nstore = {}\n\
             contexts = {}\nidentity_file = {}\nlisten = \"127.0.0.1:{}\"\nmetrics_listen = \"127.0.0.1:{}\"\n\
             slots = {}\nlease = \"{}\"\ndrain_grace = \"0s\"\n",
            worker.name,
            worker.region,
            self.nats_url(),
            quoted(&self.buildkit),
            quoted(&self.store(args, worker.region)),
            quoted(&self.store(args, "contexts")),
            // One key pair for each region: its workers share the file.
            quoted(&self.path(&format!("identities/{}", worker.region)).display().to_string()),
            self.ports.registries.get(&worker.name).copied().unwrap_or_default(),
            self.metrics_port(&worker.name),
            args.slots,
            humantime::format_duration(args.lease),
        );
        if worker.region == GPU_REGION {
            let gpu = programs::gpu_name().unwrap_or_else(|| "simulated".to_owned());
            text.push_str(&format!("classes = [\"cpu\", \"gpu\"]\ngpu = {}\n", quoted(&gpu)));
        }
        text
    }

    /// Says that everything serves: on the terminal, in `dev.env`, and by the
    /// ready file.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn announce(&self, args: &DevArgs, stack: &Stack) -> anyhow::Result<()> {
        let variables = self.variables(args);
        let lines =
            variables.iter().map(|(name, value)| format!("export {name}={}\n", shell(value)));
        let mut lines: String = lines.collect();
        if let Some(folder) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
            // So that `slipway` is this very program in the terminal that reads it.
            let folder = shell(&folder.display().to_string());
            lines.push_str(&format!("export PATH={folder}:\"$PATH\"\n"));
        }
        let env = self.path("dev.env");
        write_secret(&env, &lines)?;
        println!("Slipway serves on this machine alone, until Ctrl-C.\n");
        println!("  API         {}/api", self.api_url());
        for (region, address) in self.registries() {
            println!("  registry    {address}  ({region})");
        }
        println!("  uploads     https://127.0.0.1:{}", self.ports.uploads);
        println!("  authority   {}", self.authority.certificate.display());
        println!("              {}", self.authority.told());
        let parts = workers(args).into_iter().map(|worker| worker.name);
        for part in std::iter::once(SCHEDULER.to_owned()).chain(parts) {
            println!(
                "  metrics     http://127.0.0.1:{}/metrics  ({part})",
                self.metrics_port(&part)
            );
        }
        println!("  NATS        {}", self.nats_url());
        println!("  BuildKit    {}", self.buildkit);
        println!("  API key     {}", self.api_key);
        println!("  logs        {}", stack.logs().display());
        println!("\nIn another terminal:\n");
        println!("  . {}", shell(&env.display().to_string()));
        println!("  slipway snapshot create hello --dockerfile Dockerfile --context .\n");
        if let Some(ready) = &args.ready_file {
            write(ready, "")?;
        }
        Ok(())
    }

    /// Takes back what [`Layout::announce`] left.
    pub fn withdraw(&self, args: &DevArgs) {
        for file in args.ready_file.iter().chain([&self.path("dev.env")]) {
            // It may have been removed by hand.
            let _gone = fs::remove_file(file);
        }
    }

    /// The first registry of each region.
    fn registries(&self) -> impl Iterator<Item = (&'static str, String)> {
        REGIONS.into_iter().filter_map(|region| {
            let port = self.ports.registries.get(&format!("{region}-1"))?;
            Some((region, format!("127.0.0.1:{port}")))
        })
    }

    fn variables(&self, args: &DevArgs) -> Vec<(String, String)> {
        let upper = |region: &str| region.to_uppercase().replace('-', "_");
        let mut variables = vec![
            ("SLIPWAY_API_URL".to_owned(), format!("{}/api", self.api_url())),
            ("SLIPWAY_API_KEY".to_owned(), self.api_key.clone()),
            ("DAYTONA_API_URL".to_owned(), format!("{}/api", self.api_url())),
            ("DAYTONA_API_KEY".to_owned(), self.api_key.clone()),
            ("NATS_URL".to_owned(), self.nats_url()),
            // Node trusts these beside its own; Daytona's SDK for TypeScript runs in it.
            ("NODE_EXTRA_CA_CERTS".to_owned(), self.authority.certificate.display().to_string()),
        ];
        for (region, address) in self.registries() {
            variables.push((format!("SLIPWAY_REGISTRY_{}", upper(region)), address));
            variables.push((format!("SLIPWAY_STORE_{}", upper(region)), self.store(args, region)));
        }
        variables
    }
}

/// A worker of the stack.
#[derive(Debug, Clone)]
pub struct WorkerName {
    /// Its name, `<region>-<n>`.
    pub name: String,
    /// Its region.
    pub region: &'static str,
}

/// Every worker that the options ask for.
#[must_use]
pub fn workers(args: &DevArgs) -> Vec<WorkerName> {
    let of = |region| (1..=args.workers).map(move |n| (region, n));
    let all = REGIONS.into_iter().flat_map(of);
    all.map(|(region, n)| WorkerName { name: format!("{region}-{n}"), region }).collect()
}

/// Only one stack on a folder.
fn lock(data: &Path) -> anyhow::Result<fs::File> {
    let file = fs::File::create(data.join("lock")).context("cannot write in the data folder")?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!(
            "another `slipway dev` runs on `{}`: stop it, or choose another --data-dir",
            data.display()
        ),
        Err(fs::TryLockError::Error(error)) => Err(error).context("cannot lock the data folder"),
    }
}

/// The ports of the last start, and new ones for what is new: the usual one if
/// it is free, any free one otherwise.
fn ports(data: &Path, workers: &[String]) -> anyhow::Result<Ports> {
    let file = data.join("ports.json");
    let known: Option<Ports> = match fs::read(&file) {
        Ok(text) => Some(serde_json::from_slice(&text).context("`ports.json` is not readable")?),
        Err(_) => None,
    };
    let fresh = Ports {
        api: 0,
        nats: 0,
        uploads: 0,
        registries: BTreeMap::new(),
        metrics: BTreeMap::new(),
    };
    let mut ports = known.unwrap_or(fresh);
    // Held until all are chosen, so that no port is chosen twice.
    let mut held = vec![];
    let old = [ports.api, ports.nats, ports.uploads]
        .into_iter()
        .chain(ports.registries.values().copied())
        .chain(ports.metrics.values().copied());
    for port in old.filter(|port| *port != 0) {
        hold_known_port(port, &mut held)?;
    }
    if ports.api == 0 {
        ports.api = free_port(3000, &mut held)?;
    }
    if ports.nats == 0 {
        ports.nats = free_port(4222, &mut held)?;
    }
    if ports.uploads == 0 {
        ports.uploads = free_port(3443, &mut held)?;
    }
    for (n, worker) in (5100..).zip(workers) {
        if !ports.registries.contains_key(worker) {
            ports.registries.insert(worker.clone(), free_port(n, &mut held)?);
        }
    }
    let parts = std::iter::once(SCHEDULER).chain(workers.iter().map(String::as_str));
    for (n, part) in (9600..).zip(parts) {
        if !ports.metrics.contains_key(part) {
            ports.metrics.insert(part.to_owned(), free_port(n, &mut held)?);
        }
    }
    write(&file, &serde_json::to_string_pretty(&ports)?)?;
    Ok(ports)
}

/// A port of the last start must be ours again: references of snapshots name the
/// registries' ports, and a stranger's nats-server is not to be taken for ours.
fn hold_known_port(port: u16, held: &mut Vec<TcpListener>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| {
        format!(
            "port {port} of the last start is taken by another program: stop that, or remove \
             `ports.json` in the data folder (references of its snapshots change then)"
        )
    })?;
    held.push(listener);
    Ok(())
}

fn free_port(usual: u16, held: &mut Vec<TcpListener>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, usual))
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .context("no free port")?;
    let port = listener.local_addr().context("no free port")?.port();
    held.push(listener);
    Ok(port)
}

/// The first API key: made once, readable by its owner alone.
fn api_key(data: &Path) -> anyhow::Result<String> {
    let file = data.join("api-key");
    if let Ok(text) = fs::read_to_string(&file) {
        return Ok(text.trim().to_owned());
    }
    let random = |_| format!("{:032x}", rand::random::<u128>());
    let key = format!("dtn_{}", (0..2).map(random).collect::<String>());
    write_secret(&file, &key)?;
    Ok(key)
}

pub(super) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

pub(super) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// A TOML basic string; the same form is a string of nats-server's syntax.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A word of a shell.
fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn more_workers_do_not_share_the_ports_of_those_before() {
        let data = tempfile::tempdir().unwrap();
        let names = |n: &[&str]| n.iter().map(ToString::to_string).collect::<Vec<_>>();
        let few = ports(data.path(), &names(&["us-1", "eu-1"])).unwrap();
        let more = ports(data.path(), &names(&["us-1", "us-2", "eu-1", "eu-2"])).unwrap();
        assert_eq!(more.registries["eu-1"], few.registries["eu-1"]);
        let all: std::collections::BTreeSet<u16> = more.registries.values().copied().collect();
        assert_eq!(all.len(), 4);
        assert_eq!((few.metrics.len(), more.metrics.len()), (3, 5));
        assert!(few.metrics.iter().all(|(part, port)| more.metrics.get(part) == Some(port)));
        assert!(!all.contains(&more.api) && !all.contains(&more.nats));
    }

    #[test]
    fn a_port_that_somebody_else_took_is_named() {
        let data = tempfile::tempdir().unwrap();
        let first = ports(data.path(), &["us-1".to_owned()]).unwrap();
        let _stranger = TcpListener::bind((Ipv4Addr::LOCALHOST, first.nats)).unwrap();
        let error = ports(data.path(), &["us-1".to_owned()]).unwrap_err();
        assert!(error.to_string().contains(&format!("port {}", first.nats)), "{error}");
    }
}
