//! Bodies of Daytona's contract under `/api`, as its clients read and write
//! them: every key is present, null where nothing is known.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

/// `POST /api/snapshots`. Unknown keys are ignored, as Daytona's server does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateSnapshot {
    /// Unique name in the organization.
    pub name: String,
    /// A registry image; exclusive with `build_info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_name: Option<String>,
    /// Entrypoint of a registry image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Virtual CPUs, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// GPUs, 0 or 1, default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<u32>,
    /// The kind of GPU: one of `H100`, `H200`, `B200`, `B300`, `L40S`, `MI355X`,
    /// `RTX-PRO-6000`, `RTX-4090` and `RTX-5090`, alone or as a list of one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "one_or_many")]
    pub gpu_type: Option<Vec<String>>,
    /// Memory in GiB, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Disk in GiB, default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// A Dockerfile build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<CreateBuildInfo>,
    /// Where; the default region if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// Only `container` is made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_class: Option<String>,
    /// If there is a snapshot of this name, replace it: the name moves to the new
    /// one when that is active, and stays where it is if that fails. Slipway's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// A list, or its one item without brackets.
fn one_or_many<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::One(item) => vec![item],
        Either::Many(items) => items,
    }))
}

/// What to build. The keys after `context_hashes` are Slipway's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateBuildInfo {
    /// The Dockerfile's text.
    pub dockerfile_content: String,
    /// Hashes under which contexts were uploaded.
    #[serde(default)]
    pub context_hashes: Vec<String>,
    /// Build arguments.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
    /// The stage to build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Run every step anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Labels added to the image.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whether `.dockerignore` was applied when the context was packed. If not,
    /// the worker applies the one that it finds at the context's root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context_filtered: bool,
}

/// A snapshot, as every endpoint answers it (`SnapshotDto`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// UUID.
    pub id: String,
    /// Whose it is.
    pub organization_id: String,
    /// Whether every organization may use it.
    pub general: bool,
    /// Its name.
    pub name: String,
    /// The registry image it was made from; empty for builds.
    pub image_name: String,
    /// `pending`, `building`, `pulling`, `active`, `inactive`, `error`,
    /// `build_failed` or `removing`.
    pub state: String,
    /// Compressed size in GiB (2^30 bytes).
    pub size: Option<f64>,
    /// Entrypoint, then command, of the image.
    pub entrypoint: Option<Vec<String>>,
    /// Virtual CPUs.
    pub cpu: u32,
    /// GPUs.
    pub gpu: u32,
    /// The kind of GPU, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// Memory in GiB.
    pub mem: u32,
    /// Disk in GiB.
    pub disk: u32,
    /// Why it failed, if it did.
    pub error_reason: Option<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// When it was last used.
    pub last_used_at: Option<Timestamp>,
    /// Always null: Slipway makes no snapshots from sandboxes.
    pub source_sandbox_id: Option<String>,
    /// What was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_info: Option<BuildInfo>,
    /// The regions that have it.
    #[serde(default)]
    pub region_ids: Vec<String>,
    /// Always `container`.
    #[serde(default = "container")]
    pub sandbox_class: String,
    /// What an OCI client in its region pulls, `host/repository@digest`; set
    /// while it is active and a worker of its region serves the registry.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "ref")]
    pub reference: Option<String>,
    /// Digest of the image's manifest; set once it is active. Slipway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The id of the snapshot that has the name, while this one is not active yet
    /// and is to replace it. Slipway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// The job that makes it, or made it last. Slipway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_id: Option<String>,
}

/// The class of sandboxes that servers without this key make.
fn container() -> String {
    "container".to_owned()
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuildInfo {
    /// The Dockerfile's text.
    pub dockerfile_content: String,
    /// Hashes of its contexts.
    pub context_hashes: Vec<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
    /// `daytona-<sha256>:daytona`.
    pub snapshot_ref: String,
}

/// One page of snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaginatedSnapshots {
    /// The snapshots.
    pub items: Vec<Snapshot>,
    /// How many there are on all pages.
    pub total: u64,
    /// This page, from 1.
    pub page: u64,
    /// How many pages there are; 0 if there is nothing.
    pub total_pages: u64,
}

/// `GET /api/snapshots`: what to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ListSnapshots {
    /// From 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u64>,
    /// 1 to 200, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Part of the name, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `name`, `state`, `lastUsedAt` (default) or `createdAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort: Option<String>,
    /// `asc` or `desc` (default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// The sandbox that it was made from; there are none such here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_sandbox_id: Option<String>,
}

/// `GET /api/docker-registry/registry-push-access`: how to push images to a
/// region's registry for a while.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryPushAccess {
    /// User name for the registry.
    pub username: String,
    /// Password for the registry; told this once.
    pub secret: String,
    /// `host:port` of the registry.
    pub registry_url: String,
    /// Name of the registry.
    pub registry_id: String,
    /// Where images may be pushed: `<registryUrl>/<project>/<image>:<tag>`.
    pub project: String,
    /// When the secret stops to work.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for RegistryPushAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryPushAccess")
            .field("registry_url", &self.registry_url)
            .field("project", &self.project)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The address of something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Url {
    /// Absolute, without query.
    pub url: String,
}

/// The body of every answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    /// Path of the request.
    pub path: String,
    /// When.
    pub timestamp: Timestamp,
    /// The HTTP status once more.
    pub status_code: u16,
    /// Its reason phrase, for example `Not Found`.
    pub error: String,
    /// What happened and what to do.
    pub message: String,
    /// A stable word for programs, for example `snapshot_not_found`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
