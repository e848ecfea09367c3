//! The worker's configuration.
//!
//! [`File`] is what stands in the TOML file; [`Config`] is the same, checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use slipway_blobstore::Config as Store;
use slipway_buildkit::Endpoint;
use slipway_domain::worker::Gpu;
use slipway_domain::{Class, Region, WorkerId};
use slipway_runtime::config::Error;

use crate::simulated;

/// The TOML file of `slipway worker`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its name, unique among live workers.
    pub id: WorkerId,
    /// The region that it is pinned to.
    pub region: Region,
    /// What it takes. Default: `["cpu"]`.
    #[serde(default = "only_cpu")]
    pub classes: Vec<Class>,
    /// Its GPU: a name, or `simulated`. Needed with class `gpu`.
    pub gpu: Option<String>,
    /// NATS servers, for example `["nats://127.0.0.1:4222"]`.
    pub nats: Vec<String>,
    /// NATS credentials file (JWT and nkey seed), if the servers want one.
    pub nats_credentials: Option<PathBuf>,
    /// BuildKit: `docker:///var/run/docker.sock`, `unix:///…` or `tcp://host:port`.
    /// Needed unless jobs are simulated.
    pub buildkit: Option<String>,
    /// What runs jobs, if not BuildKit.
    #[serde(default)]
    pub executor: simulated::ExecutorFile,
    /// The region's object store: `file:///dir` or `s3://bucket/prefix`.
    pub store: Store,
    /// Store of build contexts, as the scheduler has it.
    pub contexts: Store,
    /// Address of the registry routes, which BuildKit must reach. Default:
    /// `127.0.0.1:0`, any free port.
    #[serde(default = "any_port")]
    pub listen: SocketAddr,
    /// Address of the metrics for scrapers, by `GET /metrics`; none without it.
    pub metrics_listen: Option<SocketAddr>,
    /// `host:port` under which clients in the region reach the registry routes.
    /// Default: the address listened on.
    pub advertise: Option<String>,
    /// Further `host:port` of the region's registry, such as that of a `slipway
    /// registry`: images there are read from the region's store.
    #[serde(default)]
    pub registry_names: Vec<String>,
    /// File of the identities that open registry credentials, one per line; made
    /// with a first one if absent, and shared by the region's workers if they
    /// can. Without it the worker uses no registry credentials.
    pub identity_file: Option<PathBuf>,
    /// The registry routes over TLS, for clients elsewhere; BuildKit goes on to
    /// use `listen`. Needs `advertise`.
    pub tls: Option<Tls>,
    /// Whether clients fetch blobs from the object store by themselves, by URLs
    /// that are good for 15 min. The store must be a bucket within reach of all
    /// clients, BuildKit included. Default: false.
    #[serde(default)]
    pub redirect_blobs: bool,
    /// How roles of Amazon ECR are assumed; without it they are not.
    pub ecr: Option<slipway_ecr::File>,
    /// Jobs at the same time. Default: 2.
    #[serde(default = "two")]
    pub slots: u32,
    /// How registries that images are pulled from are reached.
    #[serde(default)]
    pub source: slipway_source::File,
    /// Layers that one pull fetches at the same time. Default: 4.
    #[serde(default = "four")]
    pub layers_at_once: usize,
    /// When what nobody has any more is taken out of the region's store.
    #[serde(default)]
    pub sweep: SweepFile,
    /// How long the lease of a worker that died stays. Default: 10 s.
    #[serde(default = "default_lease", with = "humantime_serde")]
    pub lease: Duration,
    /// How long what runs may go on after SIGTERM or SIGINT; it is handed back then.
    /// Default: 10 min.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    pub drain_grace: Duration,
    /// How long what runs goes on while NATS cannot be reached. Default: 10 min.
    #[serde(default = "ten_minutes", with = "humantime_serde")]
    pub outage_patience: Duration,
}

/// Sweeps of the store in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SweepFile {
    /// How often, on average. Default: 6 h.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How long nobody must have had it: longer than any build, pull or push
    /// takes, at least 1 s. Default: 24 h.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for SweepFile {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { interval: 6 * hour, grace: 24 * hour }
    }
}

/// Sweeps of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sweep {
    /// How often, on average; 1 s or more.
    pub interval: Duration,
    /// How long nobody must have had what goes; 1 s or more.
    pub grace: Duration,
}

/// TLS in the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// File of the certificate, with those that link it to its authority after
    /// it, in PEM.
    pub cert: PathBuf,
    /// File of its private key, in PEM.
    pub key: PathBuf,
}

/// What runs jobs.
#[derive(Debug)]
pub enum Executor {
    /// BuildKit builds; pulls are the worker's own.
    Buildkit(Endpoint),
    /// Nothing is built or pulled.
    Simulated(simulated::Plan),
}

/// The checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Its name.
    pub id: WorkerId,
    /// Where it works.
    pub region: Region,
    /// What it takes, at least one.
    pub classes: Vec<Class>,
    /// Its GPU; there if and only if it takes class `gpu`.
    pub gpu: Option<Gpu>,
    /// NATS servers.
    pub nats: Vec<String>,
    /// NATS credentials file.
    pub nats_credentials: Option<PathBuf>,
    /// What runs jobs.
    pub executor: Executor,
    /// The region's object store.
    pub store: Store,
    /// Store of build contexts.
    pub contexts: Store,
    /// Address of the registry routes.
    pub listen: SocketAddr,
    /// Address of the metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// Address of the registry routes for others, if it is another.
    pub advertise: Option<String>,
    /// Further `host:port` of the region's registry.
    pub registry_names: Vec<String>,
    /// File of the identities that open registry credentials.
    pub identity_file: Option<PathBuf>,
    /// The registry routes over TLS; only with `advertise`.
    pub tls: Option<Tls>,
    /// Whether clients fetch blobs from the object store by themselves.
    pub redirect_blobs: bool,
    /// How roles of Amazon ECR are assumed.
    pub ecr: slipway_ecr::Config,
    /// Jobs at the same time, at least one.
    pub slots: u32,
    /// How registries that images are pulled from are reached.
    pub source: slipway_source::Config,
    /// Layers that one pull fetches at the same time, at least one.
    pub layers_at_once: usize,
    /// Sweeps of the store.
    pub sweep: Sweep,
    /// How long a lease lasts without renewal: 2 s or more.
    pub lease: Duration,
    /// How long what runs may go on once the process is to stop.
    pub drain_grace: Duration,
    /// How long what runs goes on while NATS cannot be reached; at least a lease.
    pub outage_patience: Duration,
}

impl TryFrom<File> for Config {
    type Error = Error;

    fn try_from(file: File) -> Result<Self, Error> {
        let invalid = |key, reason: &str| Err(Error::Invalid { key, reason: reason.to_owned() });
        if file.classes.is_empty() {
            return invalid("classes", "name at least one of `cpu` and `gpu`");
        }
        if file.slots == 0 {
            return invalid("slots", "a worker needs at least one");
        }
        if file.layers_at_once == 0 {
            return invalid("layers_at_once", "a pull needs at least one");
        }
        if file.nats.is_empty() {
            return invalid("nats", "name at least one server");
        }
        if file.lease < Duration::from_secs(2) {
            return invalid(
                "lease",
                "NATS counts whole seconds, and a renewal needs time: 2 s or more",
            );
        }
        let SweepFile { interval, grace } = file.sweep;
        if interval.min(grace) < Duration::from_secs(1) {
            return invalid("sweep", "`interval` and `grace` are 1 s or more");
        }
        if file.tls.is_some() && file.advertise.is_none() {
            return invalid("tls", "set `advertise` to the name that the certificate is for");
        }
        let gpu = match (file.gpu, file.classes.contains(&Class::Gpu)) {
            (Some(name), true) if name == "simulated" => Some(Gpu::Simulated),
            (Some(name), true) => Some(Gpu::Present { name }),
            (None, true) => return invalid("gpu", "class `gpu` needs its name, or `simulated`"),
            (Some(_), false) => return invalid("gpu", "add `gpu` to `classes`, or leave it out"),
            (None, false) => None,
        };
        let executor = executor(file.buildkit, file.executor.simulated)?;
        let source = file.source.try_into().map_err(|error: slipway_source::ConfigError| {
            let reason = slipway_runtime::telemetry::chain(&error);
            Error::Invalid { key: "source", reason }
        })?;
        let ecr = file.ecr.map_or_else(|| Ok(slipway_ecr::Config::default()), TryInto::try_into);
        let ecr = ecr.map_err(|error: slipway_ecr::ConfigError| {
            let reason = slipway_runtime::telemetry::chain(&error);
            Error::Invalid { key: "ecr", reason }
        })?;
        Ok(Self {
            id: file.id,
            region: file.region,
            classes: file.classes,
            gpu,
            nats: file.nats,
            nats_credentials: file.nats_credentials,
            executor,
            store: file.store,
            contexts: file.contexts,
            listen: file.listen,
            metrics_listen: file.metrics_listen,
            advertise: file.advertise,
            registry_names: file.registry_names,
            identity_file: file.identity_file,
            ecr,
            tls: file.tls,
            redirect_blobs: file.redirect_blobs,
            slots: file.slots,
            source,
            layers_at_once: file.layers_at_once,
            sweep: Sweep { interval, grace },
            lease: file.lease,
            drain_grace: file.drain_grace,
            outage_patience: file.outage_patience.max(file.lease),
        })
    }
}

fn executor(
    buildkit: Option<String>,
    simulated: Option<simulated::File>,
) -> Result<Executor, Error> {
    let invalid = |reason: String| Err(Error::Invalid { key: "buildkit", reason });
    match (buildkit, simulated) {
        (Some(endpoint), None) => match endpoint.parse() {
            Ok(endpoint) => Ok(Executor::Buildkit(endpoint)),
            Err(error) => {
                let error: slipway_buildkit::endpoint::Error = error;
                invalid(error.to_string())
            }
        },
        (None, Some(file)) => file.try_into().map(Executor::Simulated),
        (None, None) => invalid(
            "say where BuildKit is, for example `docker:///var/run/docker.sock`; only \
             `[executor.simulated]` does without"
                .to_owned(),
        ),
        (Some(_), Some(_)) => {
            invalid("leave it out: with `[executor.simulated]` nothing is built".to_owned())
        }
    }
}

fn only_cpu() -> Vec<Class> {
    vec![Class::Cpu]
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn two() -> u32 {
    2
}

fn four() -> usize {
    4
}

fn default_lease() -> Duration {
    Duration::from_secs(10)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SAMPLE: &str = r#"
        id = "us-east-1-gpu"
        region = "us-east-1"
        classes = ["cpu", "gpu"]
        gpu = "simulated"
        nats = ["nats://127.0.0.1:4222"]
        buildkit = "docker:///var/run/docker.sock"
        store = "file:///tmp/us-east-1"
        contexts = "file:///tmp/contexts"
        lease = "5 s"
    "#;

    #[test]
    fn the_documented_sample_is_valid() {
        let config = Config::try_from(toml::from_str::<File>(SAMPLE).unwrap()).unwrap();
        assert_eq!(config.gpu, Some(Gpu::Simulated));
        assert_eq!(config.lease, Duration::from_secs(5));
        assert_eq!(config.drain_grace, Duration::from_secs(600));
        assert_eq!(config.outage_patience, Duration::from_secs(600));
    }

    #[test]
    fn tls_comes_with_the_name_that_it_is_for() {
        let tls = "\n[tls]\nlisten = \"0.0.0.0:5443\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n";
        let alone = toml::from_str::<File>(&format!("{SAMPLE}{tls}")).unwrap();
        let error = Config::try_from(alone).unwrap_err();
        assert!(error.to_string().contains("`tls`"), "{error}");
        let named = format!("{SAMPLE}advertise = \"registry.example:5443\"\n{tls}");
        let config = Config::try_from(toml::from_str::<File>(&named).unwrap()).unwrap();
        assert!(config.tls.is_some() && !config.redirect_blobs);
    }

    #[test]
    fn sweeps_have_their_times() {
        let text = format!("{SAMPLE}[sweep]\ngrace = \"2 days\"\n");
        let config = Config::try_from(toml::from_str::<File>(&text).unwrap()).unwrap();
        assert_eq!(config.sweep.grace, Duration::from_secs(172_800));
        assert_eq!(config.sweep.interval, Duration::from_secs(21_600));
        let text = format!("{SAMPLE}[sweep]\ngrace = \"0 s\"\n");
        let error = Config::try_from(toml::from_str::<File>(&text).unwrap()).unwrap_err();
        assert!(error.to_string().contains("`sweep`"), "{error}");
    }

    #[test]
    fn a_gpu_worker_says_what_gpu_it_has() {
        let text = SAMPLE.replace("gpu = \"simulated\"\n", "");
        let error = Config::try_from(toml::from_str::<File>(&text).unwrap()).unwrap_err();
        assert!(error.to_string().contains("`gpu`"), "{error}");
    }

    #[test]
    fn a_worker_has_either_buildkit_or_a_simulation() {
        let without = SAMPLE.replace("buildkit = \"docker:///var/run/docker.sock\"\n", "");
        let simulated = "\n[executor.simulated]\nduration = \"2 s\"\n";
        let of = |text: &str| Config::try_from(toml::from_str::<File>(text).unwrap());
        for bad in [without.clone(), format!("{SAMPLE}{simulated}")] {
            let error = of(&bad).unwrap_err().to_string();
            assert!(error.contains("`buildkit`"), "{error}");
            assert!(error.contains("[executor.simulated]"), "{error}");
        }
        let config = of(&format!("{without}{simulated}")).unwrap();
        let Executor::Simulated(plan) = config.executor else { panic!("{config:?}") };
        assert_eq!(plan.duration, Duration::from_secs(2));
        assert!(toml::from_str::<File>(&format!("{without}{simulated}speed = 3\n")).is_err());
    }
}
