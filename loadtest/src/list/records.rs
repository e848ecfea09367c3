//! The records of a snapshot that is done with: as the scheduler stores them, with
//! contents as varied as people's.
//!
//! Owns what is drawn. Half of the bytes of a Dockerfile are what Dockerfiles have in
//! common; names, versions and checksums are drawn anew for each, so that records do
//! not compress better than true ones would. Invariant: the same seed gives the same
//! records but for their ids.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use slipway_domain::attempt::Nonce;
use slipway_domain::failure::{Failure, FailureKind};
use slipway_domain::identity::{WorkIdentity, WorkRecord};
use slipway_domain::image::BuiltImage;
use slipway_domain::job::{JobEvent, JobRecord, JobTrace, NewJob, RetryPolicy};
use slipway_domain::snapshot::name::NameRecord;
use slipway_domain::snapshot::{NewSnapshot, SnapshotRecord};
use slipway_domain::spec::{BuildSpec, JobSpec, PullSpec, Resources};
use slipway_domain::{
    Attempt, AttemptNumber, Class, JobId, OrganizationId, Region, SnapshotId, WorkerId,
};
use slipway_oci::Digest;
use uuid::Uuid;

const PACKAGES: [&str; 20] = [
    "curl",
    "git",
    "build-essential",
    "libpq-dev",
    "ffmpeg",
    "libssl-dev",
    "ca-certificates",
    "jq",
    "ripgrep",
    "vim",
    "unzip",
    "gnupg",
    "libffi-dev",
    "zlib1g-dev",
    "libjpeg-dev",
    "tini",
    "nginx",
    "redis-tools",
    "postgresql-client",
    "graphviz",
];
const MODULES: [&str; 20] = [
    "numpy",
    "pandas",
    "requests",
    "fastapi",
    "uvicorn",
    "pydantic",
    "sqlalchemy",
    "torch",
    "transformers",
    "boto3",
    "pillow",
    "scipy",
    "httpx",
    "celery",
    "redis",
    "pytest",
    "ruff",
    "mypy",
    "flask",
    "django",
];
/// Snapshots were made over so many days, so that none is idle yet.
const DAYS: i64 = 10;
/// Of a hundred snapshots so many were used, and so many failed.
const USED_PERCENT: u8 = 60;
const FAILED_PERCENT: u8 = 5;

/// All records of one snapshot.
pub(super) struct Records {
    pub(super) snapshot: SnapshotRecord,
    pub(super) job: JobRecord,
    pub(super) name: NameRecord,
    pub(super) work: Option<WorkRecord>,
}

/// Draws records.
pub(super) struct Source {
    random: StdRng,
    organization: OrganizationId,
    region: Region,
    builds_percent: u8,
    begin: Timestamp,
    step: SignedDuration,
    made: u64,
}

impl Source {
    pub(super) fn new(
        seed: u64,
        organization: OrganizationId,
        region: Region,
        (count, builds_percent): (u64, u8),
    ) -> Self {
        let days = SignedDuration::from_hours(24 * DAYS);
        let step = days / i32::try_from(count.max(1)).unwrap_or(i32::MAX);
        let begin = Timestamp::now() - days;
        let random = StdRng::seed_from_u64(seed);
        Self { random, organization, region, builds_percent, begin, step, made: 0 }
    }

    /// The next snapshot, later than those before it.
    pub(super) fn draw(&mut self) -> Records {
        let made = i32::try_from(self.made).unwrap_or(i32::MAX);
        self.made += 1;
        let asked = self.begin + self.step * made;
        let context = self.digest();
        let source = self.source(context.hex());
        let class = Class::Cpu;
        let contexts = if matches!(source, JobSpec::Build(_)) { vec![context] } else { vec![] };
        let identity = WorkIdentity::of(self.organization, &self.region, class, &source, &contexts);
        let (id, job) = (SnapshotId::from_uuid(self.id(asked)), JobId::from_uuid(self.id(asked)));
        let work = identity.as_ref().map(|_| WorkRecord { version: 1, job, sharers: vec![id] });
        let snapshot = SnapshotRecord::new(
            NewSnapshot {
                id,
                organization: self.organization,
                name: self.name(),
                region: self.region.clone(),
                class,
                resources: Resources::default(),
                source,
                job,
            },
            asked,
        );
        let mut job = self.job(&snapshot, asked);
        (job.identity, job.contexts) = (identity, contexts);
        let snapshot = self.followed(&snapshot, &job);
        Records { name: NameRecord::new(id), snapshot, job, work }
    }

    /// An id of version 7 of that time.
    fn id(&mut self, time: Timestamp) -> Uuid {
        let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random.random()).into_uuid()
    }

    fn name(&mut self) -> String {
        let (team, service) = (self.random.random_range(0..100), self.random.random::<u32>());
        format!("team-{team}/service-{service:08x}-{}", self.made)
    }

    fn source(&mut self, context: String) -> JobSpec {
        if self.random.random_range(0..100) < self.builds_percent {
            return JobSpec::Build(BuildSpec {
                dockerfile: self.dockerfile(),
                contexts: vec![context],
                context_filtered: true,
                build_args: BTreeMap::new(),
                target: None,
                no_cache: false,
                labels: BTreeMap::new(),
                platform: "linux/amd64".to_owned(),
            });
        }
        let random = &mut self.random;
        let (team, service) = (random.random_range(0..100), random.random_range(0..1000));
        let version = format!("v{}.{}", random.random_range(0..40), random.random_range(0..40));
        JobSpec::Pull(PullSpec {
            image: format!("ghcr.io/team-{team}/service-{service}:{version}"),
            platform: "linux/amd64".to_owned(),
            max_size: 10 << 30,
            entrypoint: None,
        })
    }

    /// About 900 bytes.
    fn dockerfile(&mut self) -> String {
        let (base, tool) = (self.digest(), self.digest());
        let mut text = format!(
            "FROM python:3.{}-slim-bookworm@{base}\n\nENV PYTHONUNBUFFERED=1 \\\n    \
             PIP_NO_CACHE_DIR=1\n\nRUN apt-get update && apt-get install -y \
             --no-install-recommends \\\n",
            self.version(1)
        );
        for _ in 0..7 {
            let package = PACKAGES[self.random.random_range(0..PACKAGES.len())];
            text.push_str(&format!("    {package}={}-{} \\\n", self.version(3), self.version(1)));
        }
        text.push_str("    && rm -rf /var/lib/apt/lists/*\n\nWORKDIR /srv/app\n");
        text.push_str(&format!(
            "ADD --checksum={tool} https://example.com/tool-{}.tar.gz /opt/\n\
             COPY requirements.txt ./\nRUN pip install \\\n",
            self.version(3)
        ));
        for _ in 0..7 {
            let module = MODULES[self.random.random_range(0..MODULES.len())];
            text.push_str(&format!("    {module}=={} \\\n", self.version(3)));
        }
        text.push_str(&format!(
            "    && python -m compileall .\nCOPY . .\nEXPOSE {}\n\
             CMD [\"uvicorn\", \"app.main:app\", \"--host\", \"0.0.0.0\"]\n",
            self.random.random_range(1024..65_000)
        ));
        text
    }

    fn version(&mut self, parts: usize) -> String {
        let parts = (0..parts).map(|_| self.random.random_range(0..40).to_string());
        parts.collect::<Vec<_>>().join(".")
    }

    fn digest(&mut self) -> Digest {
        Digest::Sha256(self.random.random())
    }

    /// The job of a snapshot, as it is when it is over and its log archived.
    fn job(&mut self, snapshot: &SnapshotRecord, asked: Timestamp) -> JobRecord {
        let (trace, own) = (self.random.random::<u128>(), self.random.random::<u64>());
        let own = format!("00-{trace:032x}-{own:016x}-01");
        let parent = format!("00-{trace:032x}-{:016x}-01", self.random.random::<u64>());
        let new = NewJob {
            id: snapshot.job,
            organization: snapshot.organization,
            snapshot: snapshot.id,
            region: snapshot.region.clone(),
            class: snapshot.class,
            kind: snapshot.source.kind(),
            trace: Some(JobTrace::new(&own, Some(&parent))),
        };
        let nonce =
            Nonce::from_uuid(uuid::Builder::from_random_bytes(self.random.random()).into_uuid());
        let attempt = Attempt { number: AttemptNumber::FIRST, nonce };
        let worker: WorkerId = format!("us-{}", self.random.random_range(1..20))
            .parse()
            .expect("letters, digits and a hyphen are a worker's name");
        let end = if self.random.random_range(0..100) < FAILED_PERCENT {
            let message = "process \"/bin/sh -c pip install\" did not complete successfully";
            let failure = Failure::new(FailureKind::RunFailed, message);
            JobEvent::Failed { attempt, worker: worker.clone(), failure }
        } else {
            JobEvent::Published { attempt, worker: worker.clone(), image: self.image() }
        };
        let events = [JobEvent::Started { attempt, worker }, end, JobEvent::LogArchived];
        let mut job = JobRecord::new(new, asked);
        let mut time = asked;
        for event in events {
            time += SignedDuration::from_nanos(self.random.random_range(1..60_000_000_000));
            let moved = job.apply(event, time, &RetryPolicy::default());
            job = moved.expect("these events follow each other").next;
        }
        job
    }

    fn image(&mut self) -> BuiltImage {
        let command = ["uvicorn", "app.main:app", "--host", "0.0.0.0"];
        BuiltImage {
            digest: self.digest(),
            config_digest: self.digest(),
            size: self.random.random_range(20_000_000..3_000_000_000),
            entrypoint: vec![],
            cmd: command.map(str::to_owned).to_vec(),
            layers: self.random.random_range(4..20),
            cached_steps: self.random.random_range(0..8),
            total_steps: 11,
        }
    }

    /// The snapshot when it has heard how its job ended, and maybe was used since.
    fn followed(&mut self, snapshot: &SnapshotRecord, job: &JobRecord) -> SnapshotRecord {
        let followed = snapshot.follow(job).expect("a job that is over has something to say");
        let later = self.random.random_range(0..3600 * 24);
        let used = followed.used(job.updated_at + SignedDuration::from_secs(later));
        let is_used = self.random.random_range(0..100) < USED_PERCENT;
        used.filter(|_| is_used).unwrap_or(followed)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn records_are_those_of_snapshots_that_are_done_with() {
        let own = OrganizationId::from_uuid(Uuid::from_u128(1));
        let mut source = Source::new(1, own, "us".parse().unwrap(), (200, 50));
        let drawn: Vec<Records> = (0..200).map(|_| source.draw()).collect();
        for Records { snapshot, job, name, work } in &drawn {
            assert_eq!(
                (name.holder(), snapshot.job, job.snapshot),
                (snapshot.id, job.id, snapshot.id)
            );
            assert!(job.state.is_over() && snapshot.follow(job).is_none());
            assert_eq!(work.is_some(), job.identity.is_some());
        }
        let mut texts = drawn.iter().filter_map(|records| match &records.snapshot.source {
            JobSpec::Build(build) => Some(build.dockerfile.len()),
            JobSpec::Pull(_) => None,
        });
        let (builds, bytes) =
            texts.try_fold((0, 0), |(n, all), len| Some((n + 1, all + len))).unwrap();
        assert!((60..140).contains(&builds), "{builds} of 200 are builds");
        assert!((850..950).contains(&(bytes / builds)), "{} bytes each", bytes / builds);
        let used = drawn.iter().filter(|records| records.snapshot.last_used_at.is_some()).count();
        assert!((80..150).contains(&used), "{used} of 200 were used");
        assert!(drawn.is_sorted_by_key(|records| records.snapshot.created_at));
    }
}
