//! The command line of the client commands, and its help texts.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `slipway snapshot …`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Make a snapshot from a Dockerfile and its context, or from a registry image
    #[command(after_help = CREATE_HELP)]
    Create(Box<Create>),
    /// List snapshots, newest first
    #[command(visible_alias = "ls")]
    List(ListSnapshots),
    /// Show one snapshot
    Get(Get),
    /// Print the log of a snapshot's build
    #[command(after_help = LOGS_HELP)]
    Logs(Logs),
    /// Use inactive snapshots again: at once, or after their images are made again
    Activate(Names),
    /// Let active snapshots rest: they keep their images and count for no quota
    Deactivate(Names),
    /// Delete snapshots; a build that is under way is cancelled
    #[command(visible_alias = "rm")]
    Delete(Delete),
}

const CREATE_HELP: &str = "\
The context is packed as `docker build` does it: `.dockerignore` (or, beside the
Dockerfile, `<Dockerfile>.dockerignore`) is honoured, links, modes and empty
folders are kept. It is uploaded only if the server does not have it yet.

With --image nothing is built: the image is copied as it is. Its tag has to name a
version; `latest`, `lts` and `stable` are refused.

On a terminal the work is shown live, in a pipe as plain lines. Ctrl-C ends the
view, not the work.

Examples:
  slipway snapshot create hello
  slipway snapshot create team/app:1.0 --dockerfile docker/app.Dockerfile --context .
  slipway snapshot create app --build-arg VERSION=1.2 --build-arg HTTP_PROXY --target release
  slipway snapshot create python --image python:3.12.4-slim --entrypoint 'sleep infinity'
  slipway snapshot create trainer --region us-east-1 --gpu 1 --memory 8 --detach
  slipway snapshot create app --json | jq -r 'select(.event==\"result\").digest'";

const LOGS_HELP: &str = "\
Examples:
  slipway snapshot logs hello
  slipway snapshot logs hello -f
  slipway snapshot logs hello --json | jq .seq
  slipway snapshot logs hello --from 4294967306";

/// `slipway snapshot create`
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the snapshot, unique in the organization, for example `team/app:1.0`
    pub name: String,
    /// Make it from this registry image, with a tag or a digest, instead of a Dockerfile
    #[arg(
        long,
        value_name = "REF",
        conflicts_with_all = ["dockerfile", "context", "build_args", "target", "labels", "no_cache"]
    )]
    pub image: Option<String>,
    /// What its sandboxes run instead of the image's entrypoint, as words parted by spaces
    #[arg(long, value_name = "WORDS", requires = "image")]
    pub entrypoint: Option<String>,
    /// Path of the Dockerfile; `-` reads it from standard input [default: DIR/Dockerfile]
    #[arg(short = 'f', long, visible_alias = "file", value_name = "FILE")]
    pub dockerfile: Option<PathBuf>,
    /// Folder that COPY and ADD take files from
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub context: PathBuf,
    /// Value for an ARG of the Dockerfile; `KEY` alone takes it from the environment
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    pub build_args: Vec<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Region to build in [default: the server's]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Virtual CPUs of its sandboxes [default: 1]
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    pub cpu: Option<u32>,
    /// Memory of its sandboxes in GiB [default: 1]
    #[arg(long, value_name = "GIB", help_heading = "Resources")]
    pub memory: Option<u32>,
    /// Disk of its sandboxes in GiB [default: 3]
    #[arg(long, value_name = "GIB", help_heading = "Resources")]
    pub disk: Option<u32>,
    /// GPUs of its sandboxes, 0 or 1; 1 builds on a worker of class gpu [default: 0]
    #[arg(long, value_name = "COUNT", help_heading = "Resources")]
    pub gpu: Option<u32>,
    /// Kind of GPU, such as H100; needs --gpu 1 [default: any that the region has]
    #[arg(long, value_name = "KIND", requires = "gpu", help_heading = "Resources")]
    pub gpu_type: Option<String>,
    /// If the name is taken, keep the old snapshot until the new one is active, then
    /// delete it; if the new one fails, the old one stays
    #[arg(long)]
    pub replace: bool,
    /// Run every step anew instead of taking it from the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Print one JSON object per line instead of text
    #[arg(long)]
    pub json: bool,
    /// Submit, print the snapshot's id, and do not wait
    #[arg(short, long)]
    pub detach: bool,
}

/// `slipway snapshot list`
#[derive(Debug, Args)]
pub struct ListSnapshots {
    /// Only snapshots whose name contains this, in any case
    #[arg(long, value_name = "TEXT")]
    pub name: Option<String>,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `slipway … get`
#[derive(Debug, Args)]
pub struct Get {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub name: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `slipway snapshot logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub name: String,
    /// Wait for what comes, until the build has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only entries after this sequence number, as `--json` shows it
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub from: u64,
    /// Print every entry as one JSON object per line, steps included
    #[arg(long)]
    pub json: bool,
}

/// `slipway snapshot delete`
#[derive(Debug, Args)]
pub struct Delete {
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    pub names: Vec<String>,
}

/// `slipway snapshot activate` and `deactivate`
#[derive(Debug, Args)]
pub struct Names {
    /// Names or ids
    #[arg(value_name = "NAME|ID", required = true)]
    pub names: Vec<String>,
}

/// `slipway job …`
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// List jobs, newest first
    #[command(visible_alias = "ls")]
    List(ListJobs),
    /// Show one job with its attempts: worker, times and reason of each
    #[command(visible_alias = "get")]
    Show(ShowJob),
    /// Stop jobs; their snapshots stay, in state `error`
    Cancel(Jobs),
    /// Look at jobs that gave up, and try them again
    #[command(subcommand)]
    Dead(DeadCommand),
}

/// `slipway job dead …`
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List the jobs that gave up, newest first, with the last reason
    #[command(visible_alias = "ls")]
    List(ListJobs),
    /// Show one with every attempt: worker, times and reason of each
    #[command(visible_alias = "get")]
    Show(ShowJob),
    /// Give jobs a fresh set of attempts, once what failed is mended
    #[command(after_help = REDRIVE_HELP)]
    Redrive(Jobs),
    /// Take jobs from this list; their snapshots stay, in state `error`
    Drop(Jobs),
}

const REDRIVE_HELP: &str = "\
The snapshot is `pending` again, and its log goes on where it ended.

Examples:
  slipway job dead redrive 0198f1de-0000-7000-8000-000000000002
  slipway job dead list --json | jq -r .id | xargs slipway job dead redrive";

/// `slipway job list`
#[derive(Debug, Args)]
pub struct ListJobs {
    /// Only jobs in this state: queued, running, succeeded, failed, cancelled or dead
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Only jobs of this region
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: u32,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `slipway job show`
#[derive(Debug, Args)]
pub struct ShowJob {
    /// Id, as `slipway job list` and `slipway snapshot get` show it
    pub id: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Jobs to do something with.
#[derive(Debug, Args)]
pub struct Jobs {
    /// Ids, as `slipway job list` shows them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,
}

/// `slipway worker …`
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// List the workers that are alive
    #[command(visible_alias = "ls")]
    List(List),
    /// Have a worker take no new jobs and finish those that it runs
    #[command(after_help = DRAIN_HELP)]
    Drain(Drain),
}

const DRAIN_HELP: &str = "\
Jobs that wait go to other workers of the region. The worker stays alive, and its
registry serves; `slipway worker list` shows it as `draining`, and as `drained` once
it runs nothing and can be stopped. It stays so, also if it is started anew, until
--undo.

Examples:
  slipway worker drain us-1
  slipway worker drain us-1 --undo";

/// `slipway worker drain`
#[derive(Debug, Args)]
pub struct Drain {
    /// Name of the worker, as `slipway worker list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its region; needed if workers of several regions have the name
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Have it take jobs again
    #[arg(long)]
    pub undo: bool,
}

/// `slipway region …`
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// List the regions
    #[command(visible_alias = "ls")]
    List(List),
    /// Give a region a new key, and seal every registry credential to it
    RotateKey(super::credentials::RotateKey),
}

/// Options of a plain list.
#[derive(Debug, Args)]
pub struct List {
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub json: bool,
}
