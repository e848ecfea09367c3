//! Bodies of Slipway's own additions under `/api/v1`, and of the NATS services
//! for clients.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slipway_domain::failure::Failure;
use utoipa::{IntoParams, ToSchema};

use crate::types::CreateSnapshot;

/// `GET /api/v1/jobs/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// UUID.
    pub id: String,
    /// What it makes.
    pub snapshot_id: String,
    /// The snapshot's name; empty once the snapshot is gone.
    pub snapshot_name: String,
    /// `build`.
    pub kind: String,
    /// Where it runs.
    pub region: String,
    /// `cpu` or `gpu`.
    pub class: String,
    /// `queued`, `running`, `succeeded`, `failed`, `cancelled` or `dead`.
    pub state: String,
    /// Why it waits, for example `no worker of class gpu in eu`.
    pub waiting: Option<String>,
    /// Its place among the jobs that wait for the region's workers, from 1; null if
    /// it does not wait for one.
    #[serde(default)]
    pub queue_position: Option<u64>,
    /// Seconds until a worker takes it, as far as can be told from how long jobs
    /// took lately.
    #[serde(default)]
    pub queue_seconds: Option<u64>,
    /// Why it ended badly, if it did.
    #[schema(value_type = Option<FailureBody>)]
    pub failure: Option<Failure>,
    /// Every attempt so far, oldest first.
    pub attempts: Vec<Attempt>,
    /// Steps taken from the cache, once it succeeded.
    pub cached_steps: Option<u32>,
    /// Steps in all, once it succeeded.
    pub total_steps: Option<u32>,
    /// How often it was redriven after it was dead.
    #[serde(default)]
    pub redrives: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// Why something failed (for the description of the API: [`Failure`] travels).
#[derive(Debug, ToSchema)]
#[schema(as = Failure, rename_all = "camelCase")]
#[allow(dead_code, reason = "it describes what another type serialises to")]
struct FailureBody {
    /// What went wrong, for example `run_failed`.
    kind: String,
    /// What happened and what to do.
    message: String,
    /// The place in the Dockerfile, if there is one.
    location: Option<LocationBody>,
    /// Exit code of the process that failed, if one did.
    exit_code: Option<u32>,
}

/// A place in a Dockerfile, from 1.
#[derive(Debug, ToSchema)]
#[schema(as = Location)]
#[allow(dead_code, reason = "it describes what another type serialises to")]
struct LocationBody {
    /// First line.
    line: u32,
    /// Column, where it is known.
    column: Option<u32>,
    /// The text of the lines meant.
    snippet: String,
}

/// Query of `GET /api/v1/jobs` and `GET /api/v1/jobs/dead`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct ListJobs {
    /// Only jobs in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Only jobs of this region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// At most so many, 1 to 1000; default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// Only jobs that come after this one: `next` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Answer of `GET /api/v1/jobs`: newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobList {
    /// The jobs of this page.
    pub items: Vec<Job>,
    /// What to ask for `after` next; null on the last page.
    pub next: Option<String>,
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    /// Who held it.
    pub worker: Option<String>,
    /// When it was claimed.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it ended without an image.
    #[schema(value_type = Option<FailureBody>)]
    pub failure: Option<Failure>,
}

/// `GET /api/v1/workers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Worker {
    /// Its name.
    pub id: String,
    /// Where it works.
    pub region: String,
    /// `cpu`, `gpu` or both.
    pub classes: Vec<String>,
    /// Its GPU: a name, or `simulated`; null without class `gpu`.
    pub gpu: Option<String>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// Jobs that it runs now, of every organization.
    pub running: u32,
    /// Version of the program.
    pub version: String,
    /// BuildKit as the worker found it.
    pub buildkit: String,
    /// `host:port` of its registry routes.
    pub registry: String,
    /// Whether it takes no new jobs, or will not once it has heard that it is not to.
    pub draining: bool,
    /// Whether it takes no new jobs and runs none: it can be stopped.
    #[serde(default)]
    pub drained: bool,
    /// When the process started.
    pub started_at: Timestamp,
}

/// `GET /api/v1/regions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionStatus {
    /// Its name.
    pub id: String,
    /// Whether requests that name no region go there.
    pub default: bool,
    /// Classes that the region is meant to have.
    pub classes: Vec<String>,
    /// Live workers.
    pub workers: u32,
    /// What their GPUs are: names, or `simulated`.
    pub gpus: Vec<String>,
    /// `host:port` of the region's registry, if a worker serves it.
    pub registry: Option<String>,
    /// Jobs that wait.
    pub queued: u32,
    /// Jobs that run.
    pub running: u32,
}

/// Request of the NATS service `slipway.submit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitRequest {
    /// The API key that pays for it.
    pub api_key: String,
    /// What to make, as `POST /api/snapshots` takes it.
    pub snapshot: CreateSnapshot,
}

/// Answer of the NATS service `slipway.submit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubmitResponse {
    /// The new snapshot.
    pub snapshot_id: String,
    /// The job that makes it.
    pub job_id: String,
}

/// Request of the NATS service `slipway.cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// An API key of the job's organization.
    pub api_key: String,
    /// The job.
    pub job_id: String,
}

/// Request of the NATS service `slipway.authorize`: may this key use the
/// region's registry? Only the hash of the key travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizeRequest {
    /// SHA-256 of the key, hex.
    pub key_hash: String,
    /// The registry's region. Without it only API keys are known, for a token
    /// is good in one region alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Answer of the NATS service `slipway.authorize`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizeResponse {
    /// Whose key it is; null if it is no valid key.
    pub organization_id: Option<String>,
    /// Set for a push token: it reads and writes the repositories below this
    /// name and no others. An API key reads all and writes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pushes_below: Option<String>,
    /// When it stops to work, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Request of the NATS service `slipway.used`: a registry gave out a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedRequest {
    /// Whose repository it was in.
    pub organization_id: String,
    /// The registry's region.
    pub region: String,
    /// The manifest or index, `sha256:…`.
    pub digest: String,
}

/// Answer of the NATS service `slipway.used`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsedResponse {
    /// How many snapshots have this image.
    pub snapshots: u32,
}
