//! Every stream, subject, bucket, key and consumer name, and how each is set up.
//!
//! Owns all names of NATS: no file but this and the ones below it writes one down. Refuses IO; creating
//! and updating is [`ensure`](crate::ensure). Invariants: whatever belongs to a
//! region has the region in its name, so that permissions can be cut per region
//! and a region can move to a JetStream domain of its own; every bucket keeps
//! one value per key, on which watching relies.

mod buckets;
pub(crate) mod floor;
pub mod keys;

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Placement, RetentionPolicy, StorageType,
};
use slipway_domain::spec::JobKind;
use slipway_domain::{Class, JobId, Region, WorkerId};

pub use buckets::BucketName;
pub(crate) use buckets::{bucket_config, buckets};

/// Events are kept this long; a scheduler that was away longer reconciles.
pub const EVENTS_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Log chunks are kept this long; by then they are archived or abandoned.
pub const LOGS_MAX_AGE: Duration = Duration::from_secs(3 * 24 * 3600);
/// Bytes that the log stream of one region keeps, unless configured.
pub const LOGS_MAX_BYTES: u64 = 16 << 30;
/// A delivered job that is not acked within this time is delivered again. A
/// worker acks right after its claim, so this only has to outlast a claim.
pub const JOB_ACK_WAIT: Duration = Duration::from_secs(15);
/// Jobs delivered and not yet acked, per region and class.
pub const JOB_MAX_ACK_PENDING: i64 = 10_000;
/// Free slots that may wait for a job at the same time, per region and class.
pub const JOB_MAX_WAITING: i64 = 5_000;
/// An event that is not acked within this time is delivered again.
pub const EVENT_ACK_WAIT: Duration = Duration::from_secs(30);
/// Events delivered and not yet acked, over all scheduler replicas.
pub const EVENT_MAX_ACK_PENDING: i64 = 1_000;
/// The subject on which NATS clients submit snapshots.
pub const SUBMIT: &str = "slipway.submit";
/// The subject on which NATS clients cancel jobs.
pub const CANCEL: &str = "slipway.cancel";
/// The subject on which workers ask whether an API key may pull.
pub const AUTHORIZE: &str = "slipway.authorize";
/// The subject on which workers ask for the registry credentials of a job.
pub const CREDENTIALS: &str = "slipway.credentials";
/// The name of the service that each worker offers on [`vault_subject`].
pub const VAULT: &str = "slipway-vault";
/// The subject on which registries report that a manifest was served.
pub const USED: &str = "slipway.used";
/// The durable consumer of events that all scheduler replicas share.
pub const EVENTS_CONSUMER: &str = "scheduler";

/// Since 2.15 a stream has at most 1000 consumers unless told otherwise, and
/// every watcher and every log follower is one.
const MAX_CONSUMERS: i32 = 100_000;
/// Within this time a repeat with the same message id is recognised.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(10 * 60);

/// What exists: the regions with their classes, and how durable it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The regions served.
    pub regions: Vec<RegionTopology>,
    /// Copies of every stream: 1 on a single server, 3 in production.
    pub replicas: usize,
    /// Bytes that the log stream of one region keeps.
    pub logs_max_bytes: u64,
}

impl Topology {
    /// One region with every class on a single server, as in development.
    #[must_use]
    pub fn single(region: Region) -> Self {
        let region = RegionTopology { region, classes: Class::ALL.to_vec(), placement: None };
        Self { regions: vec![region], replicas: 1, logs_max_bytes: LOGS_MAX_BYTES }
    }
}

/// One region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionTopology {
    /// Its name.
    pub region: Region,
    /// The classes of workers that it has.
    pub classes: Vec<Class>,
    /// Which servers hold its streams; absent on a single server.
    pub placement: Option<ServerPlacement>,
}

/// Which servers hold a region's streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlacement {
    /// The NATS cluster, if there are several.
    pub cluster: Option<String>,
    /// Server tags, all of which must match, for example `region:eu`.
    pub tags: Vec<String>,
}

/// The stream of a region's jobs.
#[must_use]
pub fn jobs_stream(region: &Region) -> String {
    format!("JOBS_{region}")
}

/// The stream of a region's events.
#[must_use]
pub fn events_stream(region: &Region) -> String {
    format!("EVENTS_{region}")
}

/// The stream of a region's logs.
#[must_use]
pub fn logs_stream(region: &Region) -> String {
    format!("LOGS_{region}")
}

/// The stream under a bucket.
#[must_use]
pub fn bucket_stream(bucket: &BucketName) -> String {
    format!("KV_{bucket}")
}

/// The subject of a key (ADR-8), or of keys where `key` holds wildcards.
#[must_use]
pub fn key_subject(bucket: &BucketName, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The durable consumer of one class's jobs in the stream of a region.
#[must_use]
pub const fn jobs_consumer(class: Class) -> &'static str {
    class.as_str()
}

/// Where a job is published.
#[must_use]
pub fn job_subject(region: &Region, class: Class, kind: JobKind, job: &JobId) -> String {
    format!("slipway.jobs.{region}.{class}.{}.{job}", kind.as_str())
}

/// Every message of one job, whatever its class and kind.
#[must_use]
pub fn job_filter(region: &Region, job: &JobId) -> String {
    format!("slipway.jobs.{region}.*.*.{job}")
}

/// Where a worker reports on a job.
#[must_use]
pub fn event_subject(region: &Region, worker: &WorkerId, job: &JobId) -> String {
    format!("slipway.events.{region}.{worker}.{job}")
}

/// Every event of a job, whoever reports it.
#[must_use]
pub fn event_filter(region: &Region, job: &JobId) -> String {
    format!("slipway.events.{region}.*.{job}")
}

/// Every event of a region.
#[must_use]
pub fn events_filter(region: &Region) -> String {
    format!("slipway.events.{region}.>")
}

/// Where a worker writes a job's log.
#[must_use]
pub fn log_subject(region: &Region, worker: &WorkerId, job: &JobId) -> String {
    format!("slipway.logs.{region}.{worker}.{job}")
}

/// A job's log, whoever wrote it.
#[must_use]
pub fn log_filter(region: &Region, job: &JobId) -> String {
    format!("slipway.logs.{region}.*.{job}")
}

/// Where a worker listens for a word from the scheduler.
#[must_use]
pub fn control_subject(region: &Region, worker: &WorkerId, verb: &str) -> String {
    format!("slipway.control.{region}.{worker}.{verb}")
}

/// Where a worker is asked to use its identities.
#[must_use]
pub fn vault_subject(region: &Region, worker: &WorkerId) -> String {
    format!("slipway.vault.{region}.{worker}")
}

/// What a client of the server may do, as in the server's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects on which it may publish.
    pub publish: Vec<String>,
    /// Subjects to which it may subscribe.
    pub subscribe: Vec<String>,
}

/// All that a worker needs, and no more: nothing outside of its region, and
/// nothing in the name of another worker. It also answers what it is asked
/// (`allow_responses` of the server's configuration). It connects with the inbox prefix
/// `_INBOX.<worker>` and [`VersionCheck::ServerVersion`](crate::connection::VersionCheck).
#[must_use]
pub fn worker_permissions(region: &Region, classes: &[Class], worker: &WorkerId) -> Permissions {
    let (jobs, leases) = (jobs_stream(region), BucketName::Leases(region.clone()));
    let mut publish: Vec<_> = classes
        .iter()
        .flat_map(|class| {
            let consumer = jobs_consumer(*class);
            [
                format!("$JS.API.CONSUMER.MSG.NEXT.{jobs}.{consumer}"),
                // Servers before 2.16 name acks in the first way, later ones in
                // the second, after domain and account.
                format!("$JS.ACK.{jobs}.{consumer}.>"),
                format!("$JS.ACK.*.*.{jobs}.{consumer}.>"),
            ]
        })
        .collect();
    publish.extend([
        format!("$JS.API.STREAM.MSG.GET.{}", bucket_stream(&leases)),
        key_subject(&leases, ">"),
        format!("slipway.events.{region}.{worker}.>"),
        format!("slipway.logs.{region}.{worker}.>"),
        AUTHORIZE.to_owned(),
        USED.to_owned(),
        CREDENTIALS.to_owned(),
        // A new service asks itself whether it is there.
        format!("$SRV.PING.{VAULT}.>"),
    ]);
    let subscribe = vec![
        format!("_INBOX.{worker}.>"),
        control_subject(region, worker, ">"),
        vault_subject(region, worker),
        "$SRV.>".to_owned(),
    ];
    Permissions { publish, subscribe }
}

/// The job of a job subject.
pub(crate) fn job_of(subject: &str) -> Option<JobId> {
    subject.rsplit('.').next()?.parse().ok()
}

/// Worker and job of an event or log subject.
pub(crate) fn worker_and_job(subject: &str) -> Option<(WorkerId, JobId)> {
    let mut tokens = subject.split('.').skip(3);
    let worker = tokens.next()?.parse().ok()?;
    let job = tokens.next()?.parse().ok()?;
    tokens.next().is_none().then_some((worker, job))
}

/// Streams of a region, without its bucket.
pub(crate) fn region_streams(topology: &Topology, region: &RegionTopology) -> [Config; 3] {
    let name = &region.region;
    let jobs = Config {
        name: jobs_stream(name),
        subjects: vec![format!("slipway.jobs.{name}.>")],
        retention: RetentionPolicy::WorkQueue,
        // A queue never forgets a job to make room for another.
        discard: DiscardPolicy::New,
        ..base(topology, region.placement.as_ref())
    };
    let events = Config {
        name: events_stream(name),
        subjects: vec![format!("slipway.events.{name}.>")],
        max_age: EVENTS_MAX_AGE,
        ..base(topology, region.placement.as_ref())
    };
    let logs = Config {
        name: logs_stream(name),
        subjects: vec![format!("slipway.logs.{name}.>")],
        max_age: LOGS_MAX_AGE,
        max_bytes: i64::try_from(topology.logs_max_bytes).unwrap_or(i64::MAX),
        ..base(topology, region.placement.as_ref())
    };
    [jobs, events, logs]
}

/// What all streams share.
fn base(topology: &Topology, placement: Option<&ServerPlacement>) -> Config {
    Config {
        storage: StorageType::File,
        num_replicas: topology.replicas,
        max_consumers: MAX_CONSUMERS,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        placement: placement
            .map(|place| Placement { cluster: place.cluster.clone(), tags: place.tags.clone() }),
        ..Config::default()
    }
}

/// Every event of every region.
pub(crate) const EVENTS_FILTER: &str = "slipway.events.*.*.*";

/// The consumer of one class's jobs. It never gives up on a message: how often
/// a job is tried is for the records to say.
pub(crate) fn jobs_consumer_config(region: &Region, class: Class) -> pull::Config {
    pull::Config {
        durable_name: Some(jobs_consumer(class).to_owned()),
        filter_subject: format!("slipway.jobs.{region}.{class}.>"),
        ack_policy: AckPolicy::Explicit,
        ack_wait: JOB_ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: JOB_MAX_ACK_PENDING,
        max_waiting: JOB_MAX_WAITING,
        ..pull::Config::default()
    }
}

/// The consumer of a region's events.
pub(crate) fn events_consumer_config() -> pull::Config {
    pull::Config {
        durable_name: Some(EVENTS_CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: EVENT_ACK_WAIT,
        max_deliver: -1,
        max_ack_pending: EVENT_MAX_ACK_PENDING,
        ..pull::Config::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ID: &str = "018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f";

    #[test]
    fn subjects_hold_region_worker_and_job() {
        let (region, worker, job) =
            ("us-east-1".parse().unwrap(), "gpu-7".parse().unwrap(), ID.parse().unwrap());
        let subject = event_subject(&region, &worker, &job);
        assert_eq!(subject, format!("slipway.events.us-east-1.gpu-7.{ID}"));
        assert_eq!(worker_and_job(&subject), Some((worker, job)));
        assert_eq!(worker_and_job("slipway.events.us.w"), None);
        assert_eq!(job_of(&job_subject(&region, Class::Cpu, JobKind::Pull, &job)), Some(job));
        assert_eq!(job_of("slipway.jobs.us.cpu.build.x"), None);
        assert_eq!(
            job_subject(&region, Class::Gpu, JobKind::Build, &job),
            format!("slipway.jobs.us-east-1.gpu.build.{ID}")
        );
    }

    #[test]
    fn names_that_keys_cannot_hold_are_encoded() {
        let key = keys::snapshot_name(&ID.parse().unwrap(), "my app:1.0 ü");
        assert!(key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)), "{key}");
        let parsed = (ID.parse().unwrap(), "my app:1.0 ü".to_owned());
        assert_eq!(keys::parse_snapshot_name(&key), Some(parsed));
        assert_eq!(keys::parse_snapshot_name("name.x.eA"), None);
    }

    #[test]
    fn every_class_of_a_region_has_a_filter_of_its_own() {
        let region = "us".parse().unwrap();
        let filters: Vec<_> = Class::ALL
            .iter()
            .map(|class| jobs_consumer_config(&region, *class).filter_subject)
            .collect();
        assert_eq!(filters, ["slipway.jobs.us.cpu.>", "slipway.jobs.us.gpu.>"]);
    }
}
