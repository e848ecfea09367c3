//! `slipway organization …` and `slipway api-key …`.
//!
//! Invariant: the value of a new key goes to standard output alone, and once.

use std::io::{self, Write as _};

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use slipway_api::Client;
use slipway_api::account::{
    CreateApiKey, CreateOrganization, Organization, RegionLimits, SetLimits, Suspend,
};

use super::args::List;
use super::error::Error;
use super::format;
use super::screen::json_line;
use super::show::{details, print, table};

const ORGANIZATION_HELP: &str = "\
`list` without --all and `show` work with any key; the rest needs a key with the
permission `admin`, such as the one that `slipway dev` makes.

Examples:
  slipway organization create acme --default-region eu
  slipway organization set-limits acme --snapshots 100 --cpu 8
  slipway organization set-limits acme --region us-east-1 --class gpu --gpus 0
  slipway organization suspend acme --reason 'unpaid invoice'
  slipway api-key create ci --organization acme --permission write:snapshots";

const KEY_HELP: &str = "\
The value is printed once and stored nowhere. A key may do no more than the key
that makes it, unless that one has the permission `admin`.

Permissions: write:snapshots, delete:snapshots, write:registries,
delete:registries, write:regions, manage:api_keys, admin (and the others that
Daytona's clients know). Reading needs none.

Examples:
  slipway api-key create ci --permission write:snapshots --permission delete:snapshots
  slipway api-key create guest --expires-in 7d
  slipway api-key create ci --organization acme --permission write:snapshots";

/// `slipway organization …`
#[derive(Debug, Subcommand)]
#[command(after_help = ORGANIZATION_HELP)]
pub enum OrganizationCommand {
    /// Make an organization
    Create(CreateArgs),
    /// List one's own organization, or all
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show an organization with its limits and what it uses of them
    Show(ShowArgs),
    /// Set limits of an organization; what is not given stays
    SetLimits(SetLimitsArgs),
    /// Let an organization make nothing new
    Suspend(SuspendArgs),
    /// End a suspension
    Resume(ResumeArgs),
}

/// `slipway organization create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What to call it
    pub name: String,
    /// Region of its requests that name none [default: the server's]
    #[arg(long, value_name = "REGION")]
    pub default_region: Option<String>,
    /// Region that it may use; give it again for more [default: all]
    #[arg(long = "region", value_name = "REGION")]
    pub regions: Vec<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `slipway organization list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Every organization of the server
    #[arg(long)]
    pub all: bool,
    /// Print one JSON object per line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `slipway organization show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name or id [default: one's own]
    #[arg(value_name = "NAME|ID")]
    pub name: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `slipway organization set-limits`
#[derive(Debug, Args)]
pub struct SetLimitsArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub name: String,
    /// Forget first what was set here before
    #[arg(long)]
    pub reset: bool,
    /// Only for sandboxes in this region
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Only for this class, `cpu` or `gpu`
    #[arg(long, value_name = "CLASS", requires = "region")]
    pub class: Option<String>,
    /// Virtual CPUs of a sandbox
    #[arg(long, value_name = "COUNT")]
    pub cpu: Option<u32>,
    /// Memory of a sandbox in GiB
    #[arg(long, value_name = "GIB")]
    pub memory: Option<u32>,
    /// Disk of a sandbox in GiB
    #[arg(long, value_name = "GIB")]
    pub disk: Option<u32>,
    /// GPUs in the region; 0 refuses snapshots with a GPU
    #[arg(long, value_name = "COUNT", requires = "region")]
    pub gpus: Option<u32>,
    /// Snapshots that are pending, building, pulling or active at once
    #[arg(long, value_name = "COUNT", conflicts_with = "region")]
    pub snapshots: Option<u32>,
    /// Size of a snapshot in GiB
    #[arg(long, value_name = "GIB", conflicts_with = "region")]
    pub snapshot_size: Option<u32>,
    /// Share of a region's workers while jobs wait: weight 3 has three taken for each one of weight 1
    #[arg(long, value_name = "1-1000", conflicts_with = "region", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub weight: Option<u32>,
    /// Jobs that run at once, in all regions
    #[arg(long, value_name = "COUNT", conflicts_with = "region")]
    pub jobs_at_once: Option<std::num::NonZeroU32>,
    /// Minutes without use after which a snapshot becomes inactive
    #[arg(long, value_name = "MINUTES", conflicts_with = "region")]
    pub inactivity_minutes: Option<u32>,
}

/// `slipway organization suspend`
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub name: String,
    /// Why, in words for its people
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// When it ends by itself, for example 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

/// `slipway organization resume`
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub name: String,
}

/// `slipway api-key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make an API key and print its value
    #[command(after_help = KEY_HELP)]
    Create(CreateKeyArgs),
    /// List API keys, newest first
    #[command(visible_alias = "ls")]
    List(ListKeysArgs),
    /// Revoke API keys; registries may take them for 10 s more
    #[command(visible_alias = "rm")]
    Revoke(RevokeArgs),
}

/// `slipway api-key create`
#[derive(Debug, Args)]
pub struct CreateKeyArgs {
    /// What to call it, unique in the organization
    pub name: String,
    /// Whose key it is, by name or id [default: one's own]
    #[arg(long, value_name = "NAME|ID")]
    pub organization: Option<String>,
    /// What it may do beyond reading; give it again for more
    #[arg(long = "permission", value_name = "PERMISSION")]
    pub permissions: Vec<String>,
    /// After how long it stops to work, for example 30d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub expires_in: Option<std::time::Duration>,
    /// Print JSON instead of the value alone
    #[arg(long)]
    pub json: bool,
}

/// `slipway api-key list`
#[derive(Debug, Args)]
pub struct ListKeysArgs {
    /// Whose keys, by name or id [default: one's own]
    #[arg(long, value_name = "NAME|ID")]
    pub organization: Option<String>,
    #[command(flatten)]
    pub list: List,
}

/// `slipway api-key revoke`
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Names of the keys
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Whose keys, by name or id [default: one's own]
    #[arg(long, value_name = "NAME|ID")]
    pub organization: Option<String>,
}

/// Runs `slipway organization …`.
pub async fn organization(client: &Client, command: OrganizationCommand) -> Result<(), Error> {
    match command {
        OrganizationCommand::Create(args) => {
            let wanted = CreateOrganization {
                name: args.name,
                default_region_id: args.default_region,
                region_ids: Some(args.regions).filter(|regions| !regions.is_empty()),
            };
            let made = client.create_organization(&wanted).await?;
            if args.json {
                return Ok(json_line(&made)?);
            }
            Ok(writeln!(io::stdout(), "{}", made.id)?)
        }
        OrganizationCommand::List(args) => list(client, &args).await,
        OrganizationCommand::Show(args) => show(client, args).await,
        OrganizationCommand::SetLimits(args) => {
            let wanted = SetLimits {
                reset: args.reset,
                region: args.region,
                class: args.class,
                cpu: args.cpu,
                memory: args.memory,
                disk: args.disk,
                gpus: args.gpus,
                snapshots: args.snapshots,
                snapshot_size: args.snapshot_size,
                weight: args.weight,
                jobs_at_once: args.jobs_at_once,
                inactivity_minutes: args.inactivity_minutes,
            };
            limits(&client.set_limits(&args.name, &wanted).await?, None)
        }
        OrganizationCommand::Suspend(args) => {
            let wanted = Suspend { reason: args.reason, until: args.until };
            let organization = client.suspend(&args.name, &wanted).await?;
            Ok(writeln!(io::stdout(), "suspended {}", organization.name)?)
        }
        OrganizationCommand::Resume(args) => {
            let organization = client.resume(&args.name).await?;
            Ok(writeln!(io::stdout(), "resumed {}", organization.name)?)
        }
    }
}

async fn list(client: &Client, args: &ListArgs) -> Result<(), Error> {
    let found =
        if args.all { client.organizations().await? } else { client.own_organizations().await? };
    if args.json {
        return Ok(found.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let mut table = table(&["NAME", "STATE", "SNAPSHOTS", "REGION", "CREATED", "ID"]);
    for organization in &found {
        table.add_row([
            organization.name.clone(),
            if organization.suspended { "suspended" } else { "active" }.to_owned(),
            organization.snapshot_quota.to_string(),
            organization.default_region_id.clone(),
            format::ago(organization.created_at, now),
            organization.id.clone(),
        ]);
    }
    print(&table, found.is_empty(), "no organizations")
}

async fn show(client: &Client, args: ShowArgs) -> Result<(), Error> {
    let organization = match args.name {
        Some(name) => client.organization(&name).await?,
        // A key has exactly one.
        None => match client.own_organizations().await?.pop() {
            Some(own) => own,
            None => return Ok(()),
        },
    };
    if args.json {
        return Ok(json_line(&organization)?);
    }
    let used = client.organization_usage(&organization.id).await?.current_snapshot_usage;
    limits(&organization, Some(used))
}

fn limits(organization: &Organization, used: Option<u32>) -> Result<(), Error> {
    let suspended = organization.suspended_at.map(|since| {
        let reason = organization.suspension_reason.as_deref().filter(|text| !text.is_empty());
        let until = organization.suspended_until.map(|end| format!(" until {end}"));
        format!(
            "since {since}{}{}",
            until.unwrap_or_default(),
            match reason {
                Some(reason) => format!(": {reason}"),
                None => String::new(),
            }
        )
    });
    let quota = organization.snapshot_quota;
    let snapshots = used.map_or_else(|| quota.to_string(), |used| format!("{used} of {quota}"));
    let sandbox = format!(
        "{} CPU, {} GiB memory, {} GiB disk",
        organization.max_cpu_per_sandbox,
        organization.max_memory_per_sandbox,
        organization.max_disk_per_sandbox
    );
    let exceptions: Vec<String> = organization.region_limits.iter().map(exception).collect();
    details(&[
        ("name", Some(organization.name.clone())),
        ("id", Some(organization.id.clone())),
        ("suspended", suspended),
        ("snapshots", Some(snapshots)),
        ("size", Some(format!("at most {} GiB", organization.max_snapshot_size))),
        ("sandbox", Some(format!("at most {sandbox}"))),
        ("weight", Some(organization.queue_weight.to_string())),
        ("at once", organization.jobs_at_once.map(|most| format!("at most {most} jobs"))),
        ("except", Some(exceptions.join("\n"))),
        (
            "inactive",
            Some(format!(
                "after {} min without use",
                organization.snapshot_deactivation_timeout_minutes
            )),
        ),
        ("region", Some(organization.default_region_id.clone())),
        ("regions", Some(organization.region_ids.join(", "))),
        ("created", Some(organization.created_at.to_string())),
    ])
}

fn exception(limits: &RegionLimits) -> String {
    let class = limits.class.as_ref().map(|class| format!(", class {class}")).unwrap_or_default();
    let values = [
        limits.cpu.map(|count| format!("{count} CPU")),
        limits.memory.map(|gib| format!("{gib} GiB memory")),
        limits.disk.map(|gib| format!("{gib} GiB disk")),
        limits.gpus.map(|count| format!("{count} GPUs in all")),
    ];
    let values: Vec<String> = values.into_iter().flatten().collect();
    format!("{}{class}: {}", limits.region, values.join(", "))
}

/// Runs `slipway api-key …`.
pub async fn api_key(client: &Client, command: KeyCommand) -> Result<(), Error> {
    match command {
        KeyCommand::Create(args) => create_key(client, args).await,
        KeyCommand::List(args) => list_keys(client, &args).await,
        KeyCommand::Revoke(args) => {
            for name in &args.names {
                client.revoke_api_key(args.organization.as_deref(), name).await?;
                writeln!(io::stdout(), "revoked {name}")?;
            }
            Ok(())
        }
    }
}

async fn create_key(client: &Client, args: CreateKeyArgs) -> Result<(), Error> {
    let life = args.expires_in.and_then(|life| SignedDuration::try_from(life).ok());
    let wanted = CreateApiKey {
        name: args.name,
        permissions: args.permissions,
        expires_at: life.map(|life| Timestamp::now() + life),
    };
    let made = client.create_api_key(args.organization.as_deref(), &wanted).await?;
    if args.json {
        return Ok(json_line(&made)?);
    }
    Ok(writeln!(io::stdout(), "{}", made.value)?)
}

async fn list_keys(client: &Client, args: &ListKeysArgs) -> Result<(), Error> {
    let keys = client.api_keys(args.organization.as_deref()).await?;
    if args.list.json {
        return Ok(keys.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let mut table = table(&["NAME", "KEY", "EXPIRES", "CREATED", "PERMISSIONS"]);
    for key in &keys {
        table.add_row([
            key.name.clone(),
            key.value.clone(),
            key.expires_at.map_or_else(|| "-".to_owned(), |end| end.to_string()),
            format::ago(key.created_at, now),
            format::or_dash(Some(&key.permissions.join(","))).to_owned(),
        ]);
    }
    print(&table, keys.is_empty(), "no API keys")
}
