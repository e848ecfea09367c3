//! A Slipway of one's own: nats-server, a scheduler, and workers, on free ports
//! and a temporary folder, with BuildKit and base images of the dev stack.

mod plan;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use slipway_api::Client;
use slipway_api::events::JobEvent;
use slipway_api::own::Job;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot, Snapshot};
use slipway_bus::topology::{BucketName, keys};
use slipway_context::{IgnoreRules, Packer};
use slipway_domain::organization::{ApiKeyRecord, Permission, key_hash};
use slipway_domain::{LogEntry, LogEvent, LogSeq, OrganizationId};
use slipway_testkit::{Child, Disk, NatsServer, stack};
use tempfile::TempDir;

use plan::write_scheduler;
pub use plan::{Plan, Stores};

pub const REGIONS: [&str; 3] = ["us", "eu", "us-east-1"];
/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Cluster {
    pub nats: NatsServer,
    pub scheduler: Child,
    pub api: SocketAddr,
    pub key: String,
    pub client: Client,
    workers: BTreeMap<String, Child>,
    stores: Stores,
    drain_grace: &'static str,
    worker_tables: String,
    buildkit: String,
    machine: Machine,
    folder: TempDir,
}

/// What Slipway's own processes run on.
#[derive(Default)]
struct Machine {
    env: Vec<(&'static str, String)>,
    disk: Option<Arc<Disk>>,
}

impl Cluster {
    /// A scheduler and one worker in `us`.
    pub async fn start() -> Self {
        Self::with(Plan::default()).await
    }

    pub async fn with(mut plan: Plan) -> Self {
        let folder = TempDir::with_prefix("slipway-system-").unwrap();
        let nats = match plan.disk.clone() {
            None => NatsServer::start().await,
            Some(disk) => {
                plan.stores = Stores::Disk(disk.path());
                NatsServer::start_on(disk).await
            }
        };
        if let Some(disk) = &plan.store_disk {
            plan.stores = Stores::Disk(disk.path());
        }
        let disk = plan.disk.clone().or_else(|| plan.store_disk.clone());
        let machine = Machine { env: plan.env.clone(), disk };
        let key = format!("dtn_{:064x}", rand::random::<u128>());
        std::fs::write(folder.path().join("api-key"), &key).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        write_scheduler(folder.path(), &nats, any, &plan);
        let (scheduler, api) = start_scheduler(folder.path(), &machine).await;
        // A restarted scheduler is where clients and workers know it.
        write_scheduler(folder.path(), &nats, api, &plan);
        let client = client(api, &key);
        let mut cluster = Self {
            nats,
            scheduler,
            api,
            key,
            client,
            workers: BTreeMap::new(),
            stores: plan.stores.clone(),
            drain_grace: plan.drain_grace,
            worker_tables: plan.worker_tables.clone(),
            buildkit: plan.buildkit.clone().unwrap_or_else(stack::buildkit_endpoint),
            machine,
            folder,
        };
        for (region, count) in &plan.workers {
            for n in 1..=*count {
                cluster.add_worker(region, n, plan.lease).await;
            }
        }
        cluster
    }

    /// One more worker.
    pub async fn add(&mut self, region: &str, n: u32) {
        self.add_worker(region, n, "10s").await;
    }

    async fn add_worker(&mut self, region: &str, n: u32, lease: &str) {
        let name = format!("{region}-{n}");
        let mut text = format!(
            "id = {name:?}\nregion = {region:?}\nnats = [{:?}]\nbuildkit = {:?}\n\
             store = {}\ncontexts = {}\nidentity_file = {:?}\nlease = {lease:?}\n\
             metrics_listen = \"127.0.0.1:0\"\ndrain_grace = {:?}\n",
            self.nats.url(),
            self.buildkit,
            self.stores.setting(self.folder.path(), region),
            self.stores.setting(self.folder.path(), "contexts"),
            self.identities(region),
            self.drain_grace,
        );
        if region == "us-east-1" {
            text.push_str("classes = [\"cpu\", \"gpu\"]\ngpu = \"simulated\"\n");
        }
        text.push_str(&self.worker_tables);
        std::fs::write(self.folder.path().join(format!("worker-{name}.toml")), text).unwrap();
        self.start_worker(&name).await;
    }

    /// A worker that simulates its jobs as `settings` (lines of TOML) say.
    pub async fn add_simulated(&mut self, region: &str, n: u32, slots: u32, settings: &str) {
        let name = format!("{region}-{n}");
        let text = format!(
            "id = {name:?}\nregion = {region:?}\nnats = [{:?}]\nstore = {}\ncontexts = {}\n\
             slots = {slots}\ndrain_grace = {:?}\n[executor.simulated]\n{settings}\n",
            self.nats.url(),
            self.stores.setting(self.folder.path(), region),
            self.stores.setting(self.folder.path(), "contexts"),
            self.drain_grace,
        );
        std::fs::write(self.folder.path().join(format!("worker-{name}.toml")), text).unwrap();
        self.start_worker(&name).await;
    }

    /// Starts a worker that was killed, or one that is new.
    pub async fn start_worker(&mut self, name: &str) {
        let config = self.folder.path().join(format!("worker-{name}.toml"));
        let child = role(&["worker", "run", "--config", config.to_str().unwrap()], &self.machine);
        child.output().line(|line| line.contains("the worker serves")).await.unwrap();
        self.workers.insert(name.to_owned(), child);
        eventually("the worker is listed", async || {
            let workers = self.client.workers().await.unwrap();
            workers.iter().any(|worker| worker.id == name).then_some(())
        })
        .await;
    }

    /// Starts a worker anew that reaches NATS by another address.
    pub async fn reroute(&mut self, name: &str, nats: SocketAddr) {
        let path = self.folder.path().join(format!("worker-{name}.toml"));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, text.replace(&self.nats.url(), &format!("nats://{nats}"))).unwrap();
        self.kill_worker(name).await;
        self.start_worker(name).await;
    }

    pub fn worker(&self, name: &str) -> &Child {
        &self.workers[name]
    }

    pub async fn kill_worker(&mut self, name: &str) {
        self.workers.remove(name).unwrap().kill9().await;
    }

    /// Adds tables to the scheduler's configuration, for its next start.
    pub fn configure(&self, tables: &str) {
        let path = self.folder.path().join("scheduler.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}\n{tables}")).unwrap();
    }

    /// Everything stops at once and forgets what its disk had not been made to
    /// keep; then everything is started again, but for the workers.
    pub async fn power_cut(&mut self) {
        let disk = self.machine.disk.clone().expect("the plan has a disk");
        disk.cut_power();
        self.nats.kill9().await;
        self.scheduler.kill9().await;
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.kill9().await;
        }
        disk.restore_power();
        self.nats.restart().await;
        self.restart_scheduler().await;
    }

    pub async fn restart_scheduler(&mut self) {
        self.scheduler.kill9().await;
        (self.scheduler, _) = start_scheduler(self.folder.path(), &self.machine).await;
    }

    /// Another scheduler on the same records, with an address of its own.
    pub async fn second_scheduler(&self) -> (Child, SocketAddr) {
        let text = std::fs::read_to_string(self.folder.path().join("scheduler.toml")).unwrap();
        let folder = self.folder.path().join("second");
        std::fs::create_dir_all(&folder).unwrap();
        let text = text.replace(&format!("\"{}\"", self.api), "\"127.0.0.1:0\"");
        std::fs::write(folder.join("scheduler.toml"), text).unwrap();
        start_scheduler(&folder, &self.machine).await
    }

    /// The folder of a region's object store.
    pub fn store(&self, region: &str) -> PathBuf {
        self.folder.path().join("stores").join(region)
    }

    /// The identities that the workers of a region share.
    pub fn identities(&self, region: &str) -> PathBuf {
        self.folder.path().join("identities").join(region)
    }

    /// Everything that the cluster's processes wrote, but for NATS.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn bus(&self) -> slipway_bus::Bus {
        slipway_bus::connect(&slipway_bus::Config::new(self.nats.url(), "test")).await.unwrap()
    }

    /// Another organization, and a client with its key.
    pub async fn foreign(&self) -> (OrganizationId, Client, String) {
        let organization = OrganizationId::from_uuid(uuid::Uuid::now_v7());
        let key = format!("dtn_{:064x}", rand::random::<u128>());
        let record = ApiKeyRecord {
            version: 1,
            organization,
            name: "foreign".into(),
            permissions: vec![Permission::WriteSnapshots, Permission::DeleteSnapshots],
            created_at: jiff::Timestamp::now(),
            expires_at: None,
            hint: String::new(),
        };
        let keys_bucket = self.bus().await.bucket(&BucketName::ApiKeys);
        keys_bucket.create(&keys::api_key(&key_hash(&key)), &record, None).await.unwrap();
        let client = client(self.api, &key);
        eventually("the new key is known", async || client.workers().await.ok()).await;
        (organization, client, key)
    }

    /// Packs and uploads a folder; returns its hash.
    pub async fn upload(&self, folder: &Path) -> String {
        upload(&self.client, folder).await
    }

    /// Submits a build in `us`.
    pub async fn submit(&self, name: &str, build: CreateBuildInfo) -> Snapshot {
        self.submit_in("us", name, build).await
    }

    pub async fn submit_in(&self, region: &str, name: &str, build: CreateBuildInfo) -> Snapshot {
        let wanted = CreateSnapshot {
            name: name.into(),
            region_id: Some(region.into()),
            build_info: Some(build),
            ..CreateSnapshot::default()
        };
        self.client.create_snapshot(&wanted).await.unwrap()
    }

    /// Submits a build and waits for its end.
    pub async fn build(&self, name: &str, build: CreateBuildInfo) -> (Snapshot, Vec<LogEntry>) {
        let snapshot = self.submit(name, build).await;
        let log = self.log(&snapshot).await;
        (self.ended(&snapshot.id).await, log)
    }

    /// The whole log of a snapshot's job, followed to its end.
    pub async fn log(&self, snapshot: &Snapshot) -> Vec<LogEntry> {
        follow(&self.client, snapshot, |_| false).await
    }

    /// Follows a log until a line contains `text`.
    pub async fn log_until(&self, snapshot: &Snapshot, text: &str) -> Vec<LogEntry> {
        let log = follow(&self.client, snapshot, |line| line.contains(text)).await;
        assert!(
            log.iter().any(|entry| line(entry).is_some_and(|line| line.contains(text))),
            "{log:?}"
        );
        log
    }

    pub async fn ended(&self, id: &str) -> Snapshot {
        eventually("the snapshot has ended", async || {
            let snapshot = self.client.snapshot(id).await.unwrap();
            let over = matches!(snapshot.state.as_str(), "active" | "error" | "build_failed");
            over.then_some(snapshot)
        })
        .await
    }

    pub async fn job(&self, snapshot: &Snapshot) -> Job {
        self.client.job(snapshot.job_id.as_ref().unwrap()).await.unwrap()
    }
}

/// Runs the program under test.
pub fn slipway(args: &[&str]) -> Child {
    role(args, &Machine::default())
}

fn role(args: &[&str], machine: &Machine) -> Child {
    let program = env!("CARGO_BIN_EXE_slipway");
    let mut command =
        machine.disk.as_ref().map_or_else(|| Command::new(program), |disk| disk.command(program));
    command.args(args).env_remove("RUST_LOG").env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    command.envs(machine.env.iter().map(|(name, value)| (name, value)));
    Child::spawn(command).unwrap()
}

pub fn client(api: SocketAddr, key: &str) -> Client {
    let url = format!("http://{api}/api").parse().unwrap();
    Client::new(url, &key.to_owned().into()).unwrap()
}

pub async fn upload(client: &Client, folder: &Path) -> String {
    let mut tar = Vec::new();
    let packed = Packer::new(folder, IgnoreRules::none()).pack(&mut tar, |_| {}).unwrap();
    put(client, &packed.digest.hex(), tar).await;
    packed.digest.hex()
}

/// Uploads an archive as it is.
pub async fn put(client: &Client, hash: &str, tar: Vec<u8>) {
    let tar = bytes::Bytes::from(tar);
    let body = || futures::stream::iter([Ok::<_, std::io::Error>(tar.clone())]);
    client.put_context(hash, tar.len() as u64, body).await.unwrap();
}

async fn start_scheduler(folder: &Path, machine: &Machine) -> (Child, SocketAddr) {
    let config = folder.join("scheduler.toml");
    let child = role(&["scheduler", "--config", config.to_str().unwrap()], machine);
    let line = child.output().line(|line| line.contains("the API serves")).await.unwrap();
    let address = line.rsplit_once("address=").unwrap().1.trim().parse().unwrap();
    (child, address)
}

async fn follow(
    client: &Client,
    snapshot: &Snapshot,
    enough: impl Fn(&str) -> bool,
) -> Vec<LogEntry> {
    let job = snapshot.job_id.as_ref().unwrap();
    let mut events = client.job_events(job, LogSeq::ZERO, true).unwrap();
    let mut log = vec![];
    let read = async {
        while let Some(event) = events.next().await {
            let entry = match event.unwrap() {
                JobEvent::Log(entry) => entry,
                JobEvent::Job(_) | JobEvent::Reconnecting { .. } => continue,
            };
            let done = line(&entry).is_some_and(&enough);
            log.push(entry);
            if done {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.expect("the log ends in time");
    log
}

/// The text of an entry that is a line.
pub fn line(entry: &LogEntry) -> Option<&str> {
    match &entry.event {
        LogEvent::Line { text, .. } => Some(text),
        LogEvent::Step(_) | LogEvent::End { .. } => None,
    }
}

/// The lines that a RUN step printed, without the step's number and time.
pub fn printed(log: &[LogEntry]) -> Vec<String> {
    let from_process = log.iter().filter_map(|entry| match &entry.event {
        LogEvent::Line { source, text } if *source != slipway_domain::log::LogSource::System => {
            text.splitn(3, ' ').nth(2).map(ToOwned::to_owned)
        }
        _ => None,
    });
    from_process.collect()
}

/// Every entry follows its predecessor, and the last one is the end.
pub fn assert_gapless(log: &[LogEntry]) {
    let mut before = LogSeq::ZERO;
    for entry in log {
        assert!(entry.seq.follows(before), "{} after {before}", entry.seq);
        before = entry.seq;
    }
    assert_eq!(before, LogSeq::END, "the log ends");
}

/// A Dockerfile on the base image of the dev stack. The marker keeps BuildKit's
/// cache of earlier runs out.
pub fn dockerfile(steps: &str) -> CreateBuildInfo {
    let marker = uuid::Uuid::new_v4();
    CreateBuildInfo {
        dockerfile_content: format!("FROM {}\nENV MARKER={marker}\n{steps}\n", stack::base_image()),
        ..CreateBuildInfo::default()
    }
}

/// A step that prints `tick 1`, `tick 2`, … five times a second.
pub fn ticking(count: u32) -> CreateBuildInfo {
    dockerfile(&format!(
        "RUN i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo tick $i; sleep 0.2; done"
    ))
}

/// Looks until there is a result, as an observer from outside has to.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}
