//! Which requests ask for the same work.
//!
//! Owns the identity of a build or pull: organization, region, class, and all that
//! goes into the result, with what the *server* saw of the contexts in place of
//! what their client calls them. Refuses to tell what cannot be known: a build
//! without cache has no identity, nor has a pull by tag. Invariant: an identity is
//! of one organization and one region; a new field of a spec is part of it without
//! further ado.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_oci::{Digest, ImageReference};

use crate::ids::{JobId, OrganizationId, SnapshotId};
use crate::message;
use crate::region::{Class, Region};
use crate::spec::JobSpec;

/// SHA-256 over everything that decides what a job makes, in hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkIdentity(String);

impl fmt::Display for WorkIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is hashed. The form has a version, so that a change of meaning makes
/// other identities.
#[derive(Serialize)]
struct Work<'a> {
    form: u32,
    organization: OrganizationId,
    region: &'a Region,
    class: Class,
    spec: &'a JobSpec,
}

impl WorkIdentity {
    /// The identity of `spec`; `contexts` is what the server saw of each of a
    /// build's contexts, in the order of the spec.
    ///
    /// None, if the result is not a matter of the request alone: a build that asks
    /// for every step anew, one whose contexts are not all known, a pull by tag.
    #[must_use]
    pub fn of(
        organization: OrganizationId,
        region: &Region,
        class: Class,
        spec: &JobSpec,
        contexts: &[Digest],
    ) -> Option<Self> {
        let mut spec = spec.clone();
        match &mut spec {
            JobSpec::Build(build) => {
                if build.no_cache || build.contexts.len() != contexts.len() {
                    return None;
                }
                build.contexts = contexts.iter().map(ToString::to_string).collect();
            }
            JobSpec::Pull(pull) => {
                pull.image.parse::<ImageReference>().ok()?.digest()?;
            }
        }
        let work = Work { form: 1, organization, region, class, spec: &spec };
        let bytes = serde_json::to_vec(&work).ok()?;
        Some(Self(hex::encode(Sha256::digest(bytes))))
    }
}

/// Who shares a job, under `work.<organization>.<identity>` in `records`. Written
/// by compare-and-set, it settles which job does the work, and whether the last
/// one who wanted it is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkRecord {
    /// Form of this record.
    pub version: u32,
    /// The job that does the work.
    pub job: JobId,
    /// The snapshots that stand on it, or will in a moment.
    pub sharers: Vec<SnapshotId>,
}

/// More do not share one job: the record must stay small.
const MOST_SHARERS: usize = 1000;

impl WorkRecord {
    /// Work that is begun for one snapshot.
    #[must_use]
    pub fn new(job: JobId, snapshot: SnapshotId) -> Self {
        Self { version: message::VERSION, job, sharers: vec![snapshot] }
    }

    /// The record with one sharer more, unless there are too many.
    #[must_use]
    pub fn joined(&self, snapshot: SnapshotId) -> Option<Self> {
        if self.sharers.len() >= MOST_SHARERS {
            return None;
        }
        let mut next = self.clone();
        if !next.sharers.contains(&snapshot) {
            next.sharers.push(snapshot);
        }
        Some(next)
    }

    /// The record without a sharer.
    #[must_use]
    pub fn left(&self, snapshot: SnapshotId) -> Self {
        let mut next = self.clone();
        next.sharers.retain(|sharer| *sharer != snapshot);
        next
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use uuid::Uuid;

    use super::*;
    use crate::spec::{BuildSpec, PullSpec};

    fn build() -> BuildSpec {
        BuildSpec {
            dockerfile: "FROM scratch".into(),
            contexts: vec!["claimed".into()],
            context_filtered: false,
            build_args: BTreeMap::from([("a".into(), "1".into())]),
            target: None,
            no_cache: false,
            labels: BTreeMap::new(),
            platform: "linux/amd64".into(),
        }
    }

    fn digest(n: u8) -> Digest {
        format!("sha256:{}", format!("{n:02x}").repeat(32)).parse().unwrap()
    }

    fn identity(
        organization: u128,
        region: &str,
        spec: BuildSpec,
        context: u8,
    ) -> Option<WorkIdentity> {
        let organization = OrganizationId::from_uuid(Uuid::from_u128(organization));
        let region = region.parse().unwrap();
        let spec = JobSpec::Build(spec);
        WorkIdentity::of(organization, &region, Class::Cpu, &spec, &[digest(context)])
    }

    #[test]
    fn a_context_counts_by_what_the_server_saw() {
        let first = identity(1, "us", build(), 1);
        let renamed = BuildSpec { contexts: vec!["another name".into()], ..build() };
        assert!(first.is_some());
        assert_eq!(identity(1, "us", renamed, 1), first);
        assert_ne!(identity(1, "us", build(), 2), first);
        let unknown = BuildSpec { contexts: vec!["a".into(), "b".into()], ..build() };
        assert_eq!(identity(1, "us", unknown, 1), None);
    }

    #[test]
    fn everything_that_decides_the_result_counts() {
        let changes: [fn(&mut BuildSpec); 6] = [
            |spec| spec.dockerfile.push('\n'),
            |spec| spec.context_filtered = true,
            |spec| drop(spec.build_args.insert("a".into(), "2".into())),
            |spec| spec.target = Some("x".into()),
            |spec| drop(spec.labels.insert("l".into(), "1".into())),
            |spec| spec.platform = "linux/arm64".into(),
        ];
        let mut seen = vec![
            identity(1, "us", build(), 1).unwrap(),
            identity(2, "us", build(), 1).unwrap(),
            identity(1, "eu", build(), 1).unwrap(),
        ];
        for change in changes {
            let mut spec = build();
            change(&mut spec);
            seen.push(identity(1, "us", spec, 1).unwrap());
        }
        let distinct: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!(distinct.len(), seen.len());
        assert_eq!(identity(1, "us", BuildSpec { no_cache: true, ..build() }, 1), None);
    }

    #[test]
    fn a_pull_is_known_by_digest_and_not_by_tag() {
        let pull = |image: &str| {
            let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
            let spec = JobSpec::Pull(PullSpec {
                image: image.into(),
                platform: "linux/amd64".into(),
                max_size: 1,
                entrypoint: None,
            });
            WorkIdentity::of(organization, &"us".parse().unwrap(), Class::Cpu, &spec, &[])
        };
        assert_eq!(pull("python:3.12"), None);
        assert!(pull(&format!("python@{}", digest(1))).is_some());
    }

    #[test]
    fn sharers_come_and_go_once() {
        let id = |n| SnapshotId::from_uuid(Uuid::from_u128(n));
        let record = WorkRecord::new(JobId::from_uuid(Uuid::from_u128(9)), id(1));
        let both = record.joined(id(2)).unwrap().joined(id(2)).unwrap();
        assert_eq!(both.sharers, [id(1), id(2)]);
        assert_eq!(both.left(id(1)).left(id(1)).sharers, [id(2)]);
        let full = (0..2000).try_fold(record, |record, n| record.joined(id(n)));
        assert_eq!(full, None);
    }
}
