//! The scheduler's configuration.
//!
//! [`File`] is what stands in the TOML file; [`Config`] is the same, checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;
use slipway_blobstore::Config as Store;
use slipway_domain::job::RetryPolicy;
use slipway_domain::{Class, GpuType, Region};
use slipway_oci::Platform;
use slipway_runtime::config::Error;

use crate::queue::MAX_WEIGHT;

/// The TOML file of `slipway scheduler`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Address of the HTTP API, for example `127.0.0.1:3000`.
    pub listen: SocketAddr,
    /// Address of the metrics for scrapers, by `GET /metrics`; none without it.
    pub metrics_listen: Option<SocketAddr>,
    /// Address under which clients reach the API, without `/api`. Default:
    /// `http://` and the listen address.
    pub public_url: Option<String>,
    /// NATS servers, for example `["nats://127.0.0.1:4222"]`.
    pub nats: Vec<String>,
    /// NATS credentials file (JWT and nkey seed), if the servers want one.
    pub nats_credentials: Option<PathBuf>,
    /// Store of build contexts: `file:///dir` or `s3://bucket/prefix`.
    pub contexts: Store,
    /// The region of requests that name none.
    pub default_region: Region,
    /// Every region.
    pub regions: BTreeMap<Region, RegionFile>,
    /// Replicas of streams and buckets: 1, 3 or 5.
    #[serde(default = "one")]
    pub replicas: usize,
    /// How long a build may take. Default: 60 min.
    #[serde(default = "default_time_limit", with = "humantime_serde")]
    pub build_time_limit: Duration,
    /// How often a failure of the infrastructure is tried again. Default: 5 attempts in all.
    #[serde(default = "default_attempts")]
    pub max_attempts: u32,
    /// How often the reconcilers look over everything. Default: 5 s.
    #[serde(default = "default_reconcile", with = "humantime_serde")]
    pub reconcile_interval: Duration,
    /// How long holders of leases have, after NATS was away, to renew them: longer than
    /// the longest `lease` of a worker. Default: 15 s.
    #[serde(default = "default_outage_grace", with = "humantime_serde")]
    pub outage_grace: Duration,
    /// What an organization may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// Snapshots that every organization may use, made from registry images.
    #[serde(default)]
    pub default_snapshots: Vec<DefaultSnapshot>,
    /// How many requests an organization may make. Default: any number.
    pub rate_limit: Option<RateLimit>,
    /// How clients of S3, such as Daytona's SDKs, upload build contexts.
    #[serde(default)]
    pub uploads: slipway_uploads::config::File,
    /// File with a first API key, made usable at start; see `slipway dev`.
    pub bootstrap_key_file: Option<PathBuf>,
}

/// One region in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionFile {
    /// Classes that the region is meant to have. Default: `["cpu"]`.
    #[serde(default = "only_cpu")]
    pub classes: Vec<Class>,
    /// Kinds of GPU that it has. Default: those of the workers that are alive.
    pub gpu_types: Option<Vec<GpuType>>,
    /// The platform of its snapshots. Default: `linux/amd64`.
    pub platform: Option<String>,
    /// The region's object store: `file:///dir` or `s3://bucket/prefix`.
    pub store: Store,
}

/// A snapshot that every organization may use. Sizes in GiB.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultSnapshot {
    /// Its name, for example `daytona-small`.
    pub name: String,
    /// The registry image, with a tag or a digest.
    pub image: String,
    /// Where. Default: the default region.
    pub region: Option<Region>,
    /// Virtual CPUs of a sandbox. Default: 1.
    pub cpu: Option<u32>,
    /// GPUs of a sandbox, 0 or 1. Default: 0.
    pub gpu: Option<u32>,
    /// Memory of a sandbox. Default: 1.
    pub memory: Option<u32>,
    /// Disk of a sandbox. Default: 3.
    pub disk: Option<u32>,
}

/// How many requests an organization may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So many.
    pub requests: NonZeroU32,
    /// In so much time. Default: 1 min.
    #[serde(default = "default_window", with = "humantime_serde")]
    pub window: Duration,
}

/// What an organization may ask for. Sizes in GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Snapshots that are pending, building or active at once.
    pub snapshots: u32,
    /// Virtual CPUs of a sandbox.
    pub cpu: u32,
    /// Memory of a sandbox.
    pub memory: u32,
    /// Disk of a sandbox.
    pub disk: u32,
    /// Compressed size of a snapshot.
    pub snapshot_size: u32,
    /// Bytes of one build context.
    pub context_bytes: u64,
    /// Share of a region's workers among organizations whose jobs wait, 1 to 1000.
    pub weight: u32,
    /// Jobs that run at once, in all regions; any number if absent.
    pub jobs_at_once: Option<NonZeroU32>,
    /// A sandbox with a GPU.
    pub gpu: SandboxLimits,
}

/// What a sandbox may have. Sizes in GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandboxLimits {
    /// Virtual CPUs.
    pub cpu: u32,
    /// Memory.
    pub memory: u32,
    /// Disk.
    pub disk: u32,
}

impl Default for SandboxLimits {
    /// The limits of a sandbox with a GPU: others have theirs in [`Limits`].
    fn default() -> Self {
        Self { cpu: 16, memory: 192, disk: 512 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            snapshots: 30,
            cpu: 4,
            memory: 8,
            disk: 10,
            snapshot_size: 20,
            context_bytes: 20 << 30,
            weight: 1,
            jobs_at_once: None,
            gpu: SandboxLimits::default(),
        }
    }
}

/// The checked configuration.
#[derive(Debug)]
pub struct Config {
    /// Address of the HTTP API.
    pub listen: SocketAddr,
    /// Address of the metrics.
    pub metrics_listen: Option<SocketAddr>,
    /// Base address for clients, without `/api` and without a slash at the end;
    /// if absent, the address listened on.
    pub public_url: Option<String>,
    /// NATS servers.
    pub nats: Vec<String>,
    /// NATS credentials file.
    pub nats_credentials: Option<PathBuf>,
    /// Store of build contexts.
    pub contexts: Store,
    /// The region of requests that name none.
    pub default_region: Region,
    /// Every region.
    pub regions: BTreeMap<Region, RegionConfig>,
    /// Replicas of streams and buckets.
    pub replicas: usize,
    /// How long a build may take.
    pub build_time_limit: Duration,
    /// How failures of the infrastructure are retried.
    pub retry: RetryPolicy,
    /// How often the reconcilers look over everything.
    pub reconcile_interval: Duration,
    /// How long holders of leases have, after NATS was away, to renew them.
    pub outage_grace: Duration,
    /// What an organization may ask for.
    pub limits: Limits,
    /// Snapshots that every organization may use.
    pub default_snapshots: Vec<DefaultSnapshot>,
    /// How many requests an organization may make, if that is limited.
    pub rate_limit: Option<RateLimit>,
    /// How clients of S3 bring build contexts.
    pub uploads: slipway_uploads::config::Config,
    /// A first API key.
    pub bootstrap_key: Option<SecretString>,
}

/// One region, checked.
#[derive(Debug, Clone)]
pub struct RegionConfig {
    /// Its classes, at least one.
    pub classes: Vec<Class>,
    /// Kinds of GPU that it has, if they are listed.
    pub gpu_types: Option<Vec<GpuType>>,
    /// The platform of its snapshots.
    pub platform: Platform,
    /// Its object store.
    pub store: Store,
}

impl TryFrom<File> for Config {
    type Error = Error;

    fn try_from(file: File) -> Result<Self, Error> {
        if !file.regions.contains_key(&file.default_region) {
            let reason = format!("there is no `[regions.{}]`", file.default_region);
            return Err(Error::Invalid { key: "default_region", reason });
        }
        if file.regions.values().any(|region| region.classes.is_empty()) {
            let reason = "name at least one of `cpu` and `gpu`".to_owned();
            return Err(Error::Invalid { key: "regions.*.classes", reason });
        }
        if !matches!(file.replicas, 1 | 3 | 5) {
            let reason = "JetStream keeps 1, 3 or 5 replicas".to_owned();
            return Err(Error::Invalid { key: "replicas", reason });
        }
        if file.max_attempts == 0 {
            let reason = "at least one attempt is needed".to_owned();
            return Err(Error::Invalid { key: "max_attempts", reason });
        }
        if !(1..=MAX_WEIGHT).contains(&file.limits.weight) {
            let reason = format!("it must be from 1 to {MAX_WEIGHT}");
            return Err(Error::Invalid { key: "limits.weight", reason });
        }
        let mut wanted = file.default_snapshots.iter().filter_map(|one| one.region.as_ref());
        if let Some(region) = wanted.find(|region| !file.regions.contains_key(*region)) {
            let reason = format!("there is no `[regions.{region}]`");
            return Err(Error::Invalid { key: "default_snapshots.region", reason });
        }
        if file.nats.is_empty() {
            let reason = "name at least one server".to_owned();
            return Err(Error::Invalid { key: "nats", reason });
        }
        let regions = file.regions.into_iter().map(|(name, file)| Ok((name, region(file)?)));
        let regions = regions.collect::<Result<_, Error>>()?;
        Ok(Self {
            listen: file.listen,
            metrics_listen: file.metrics_listen,
            public_url: file.public_url.map(|url| url.trim_end_matches('/').to_owned()),
            nats: file.nats,
            nats_credentials: file.nats_credentials,
            default_region: file.default_region,
            regions,
            replicas: file.replicas,
            build_time_limit: file.build_time_limit,
            retry: RetryPolicy { max_attempts: file.max_attempts, ..RetryPolicy::default() },
            reconcile_interval: file.reconcile_interval,
            outage_grace: file.outage_grace,
            limits: file.limits,
            default_snapshots: file.default_snapshots,
            rate_limit: file.rate_limit,
            uploads: file.uploads.check(&file.contexts)?,
            contexts: file.contexts,
            bootstrap_key: file.bootstrap_key_file.map(read_key).transpose()?,
        })
    }
}

fn region(file: RegionFile) -> Result<RegionConfig, Error> {
    let RegionFile { classes, gpu_types, platform, store } = file;
    let platform = platform.map_or_else(|| Ok(Platform::linux_amd64()), |text| text.parse());
    let platform = platform.map_err(|error: slipway_oci::error::Platform| {
        let reason = format!("{error}: write it like `linux/amd64` or `linux/arm64`");
        Error::Invalid { key: "regions.*.platform", reason }
    })?;
    Ok(RegionConfig { classes, gpu_types, platform, store })
}

fn read_key(path: PathBuf) -> Result<SecretString, Error> {
    let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
    let key = text.trim();
    if key.len() < 32 {
        let reason = "the file must hold a key of at least 32 characters".to_owned();
        return Err(Error::Invalid { key: "bootstrap_key_file", reason });
    }
    Ok(key.to_owned().into())
}

fn one() -> usize {
    1
}

fn only_cpu() -> Vec<Class> {
    vec![Class::Cpu]
}

fn default_time_limit() -> Duration {
    Duration::from_secs(60 * 60)
}

fn default_window() -> Duration {
    Duration::from_secs(60)
}

fn default_attempts() -> u32 {
    5
}

fn default_outage_grace() -> Duration {
    Duration::from_secs(15)
}

fn default_reconcile() -> Duration {
    Duration::from_secs(5)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SAMPLE: &str = r#"
        listen = "127.0.0.1:3000"
        nats = ["nats://127.0.0.1:4222"]
        contexts = "file:///tmp/contexts"
        default_region = "us"
        build_time_limit = "10 min"
        [[default_snapshots]]
        name = "daytona-small"
        image = "docker.io/daytonaio/sandbox:0.5.0-slim"
        [rate_limit]
        requests = 1000
        [regions.us]
        store = "file:///tmp/us"
        platform = "linux/arm64"
        [regions.us-east-1]
        store = "s3://bucket/us-east-1"
        classes = ["cpu", "gpu"]
    "#;

    #[test]
    fn the_documented_sample_is_valid() {
        let config = Config::try_from(toml::from_str::<File>(SAMPLE).unwrap()).unwrap();
        assert_eq!(config.public_url, None);
        assert_eq!(config.outage_grace, Duration::from_secs(15));
        assert_eq!(config.build_time_limit, Duration::from_secs(600));
        assert_eq!(config.regions.len(), 2);
        let platforms = config.regions.values().map(|region| region.platform.to_string());
        assert_eq!(platforms.collect::<Vec<_>>(), ["linux/arm64", "linux/amd64"]);
        let odd = SAMPLE.replace("linux/arm64", "arm64");
        let error = Config::try_from(toml::from_str::<File>(&odd).unwrap()).unwrap_err();
        assert!(error.to_string().contains("regions.*.platform"), "{error}");
    }

    #[test]
    fn a_default_region_that_does_not_exist_names_the_key() {
        let text = SAMPLE.replace("default_region = \"us\"", "default_region = \"mars\"");
        let error = Config::try_from(toml::from_str::<File>(&text).unwrap()).unwrap_err();
        assert!(error.to_string().contains("default_region"), "{error}");
    }
}
