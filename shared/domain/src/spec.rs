//! What a job is asked to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use slipway_oci::ImageReference;

use crate::dockerfile;
use crate::gpu::GpuType;

/// The work of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobSpec {
    /// Build a Dockerfile.
    Build(BuildSpec),
    /// Pull a registry image.
    Pull(PullSpec),
}

impl JobSpec {
    /// The token of the kind in subjects.
    #[must_use]
    pub const fn kind(&self) -> JobKind {
        match self {
            Self::Build(_) => JobKind::Build,
            Self::Pull(_) => JobKind::Pull,
        }
    }

    /// The images that the work takes something from, as far as can be read.
    #[must_use]
    pub fn images(&self) -> Vec<ImageReference> {
        match self {
            Self::Build(build) => dockerfile::images(&build.dockerfile, &build.build_args),
            Self::Pull(pull) => pull.image.parse().into_iter().collect(),
        }
    }
}

/// The kind of a job: a token of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// From a Dockerfile.
    Build,
    /// From a registry image.
    Pull,
}

impl JobKind {
    /// The token used in subjects.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Pull => "pull",
        }
    }
}

/// A Dockerfile build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSpec {
    /// The Dockerfile's text.
    pub dockerfile: String,
    /// Hashes under which the contexts were uploaded (`<org>/<hash>/context.tar`);
    /// the build context is their union, later ones override earlier ones.
    #[serde(default)]
    pub contexts: Vec<String>,
    /// Whether `.dockerignore` was applied already, by whoever packed them.
    #[serde(default)]
    pub context_filtered: bool,
    /// Build arguments.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// The stage to build; the last one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Run every step anew.
    #[serde(default)]
    pub no_cache: bool,
    /// Labels added to the image.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The platform, for example `linux/amd64`.
    pub platform: String,
}

impl BuildSpec {
    /// The reference that Daytona's clients know a build by:
    /// `daytona-<sha256 of Dockerfile and sorted context hashes>:daytona`.
    /// It names, it does not identify: see the build identity in ARCHITECTURE.md.
    #[must_use]
    pub fn snapshot_ref(&self) -> String {
        let mut contexts = self.contexts.clone();
        contexts.sort();
        let mut hasher = Sha256::new();
        hasher.update(&self.dockerfile);
        for context in &contexts {
            hasher.update(context);
        }
        format!("daytona-{}:daytona", hex::encode(hasher.finalize()))
    }
}

/// The pull of a registry image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSpec {
    /// The image as its user wrote it, with a tag or a digest.
    pub image: String,
    /// The platform, for example `linux/amd64`.
    pub platform: String,
    /// Largest compressed size in bytes that the organization may have.
    pub max_size: u64,
    /// What sandboxes run instead of the image's entrypoint and command; the
    /// image itself is not changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
}

/// What a sandbox made from the snapshot gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Virtual CPUs.
    pub cpu: u32,
    /// GPUs.
    pub gpu: u32,
    /// Memory in GiB.
    pub memory: u32,
    /// Disk in GiB.
    pub disk: u32,
    /// The kind of its GPU, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<GpuType>,
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpu: 1, gpu: 0, memory: 1, disk: 3, gpu_type: None }
    }
}
