//! `slipway registry-credential …` and `slipway region rotate-key`.
//!
//! Invariant: a password comes from standard input or the environment, never
//! from the command line, which every process of the machine can read.

use std::io::{self, Read as _, Write as _};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use secrecy::SecretString;
use slipway_api::Client;
use slipway_api::registries::{DockerRegistry, WriteDockerRegistry};

use super::args::{Delete, Get, List};
use super::error::Error;
use super::format;
use super::screen::json_line;
use super::show::{details, print, table};

/// The variable from which a password is taken.
const PASSWORD: &str = "SLIPWAY_REGISTRY_PASSWORD";

const CREATE_HELP: &str = "\
The password is read from standard input with --password-stdin, or taken from
SLIPWAY_REGISTRY_PASSWORD. It is sealed to the workers' keys and never shown again.

The longest URL that an image lies under decides. A build uses one credential per
host.

Examples:
  pass hub | slipway registry-credential create hub --url docker.io --username me --password-stdin
  gh auth token | slipway registry-credential create ghcr --url ghcr.io/acme --username me --password-stdin
  slipway registry-credential create gar --url https://europe-docker.pkg.dev \\
    --username _json_key --password-stdin < key.json
  slipway registry-credential create ecr \\
    --url 123456789012.dkr.ecr.eu-west-1.amazonaws.com --username AWS --password-stdin";

/// `slipway registry-credential …`
#[derive(Debug, Subcommand)]
pub enum CredentialCommand {
    /// Store a credential for a registry
    #[command(after_help = CREATE_HELP)]
    Create(Create),
    /// List registry credentials, newest first
    #[command(visible_alias = "ls")]
    List(List),
    /// Show one registry credential, without its password
    Get(Get),
    /// Change a registry credential; what is not given stays as it is
    Update(Update),
    /// Delete registry credentials
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Have a worker try a credential at its registry
    Test(Test),
}

/// `slipway registry-credential create`
#[derive(Debug, Args)]
pub struct Create {
    /// What to call it
    pub name: String,
    /// The registry, or a part of it: `host[:port][/path]`
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// User name
    #[arg(long, value_name = "NAME")]
    pub username: String,
    /// A remark
    #[arg(long, value_name = "TEXT")]
    pub project: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `slipway registry-credential update`
#[derive(Debug, Args)]
pub struct Update {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub credential: String,
    /// What to call it from now on
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The registry; another host needs the password again
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// User name
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// A remark
    #[arg(long, value_name = "TEXT")]
    pub project: Option<String>,
    /// Read a new password from standard input
    #[arg(long)]
    pub password_stdin: bool,
}

/// `slipway registry-credential test`
#[derive(Debug, Args)]
pub struct Test {
    /// Name or id
    #[arg(value_name = "NAME|ID")]
    pub credential: String,
    /// Try it from this region [default: any]
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `slipway region rotate-key`
#[derive(Debug, Args)]
pub struct RotateKey {
    /// The region
    pub region: String,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs one of the commands.
pub async fn run(client: &Client, command: CredentialCommand) -> Result<(), Error> {
    match command {
        CredentialCommand::Create(args) => create(client, args).await,
        CredentialCommand::List(args) => list(client, &args).await,
        CredentialCommand::Get(args) => get(client, &args).await,
        CredentialCommand::Update(args) => update(client, args).await,
        CredentialCommand::Delete(args) => delete(client, &args).await,
        CredentialCommand::Test(args) => test(client, &args).await,
    }
}

async fn create(client: &Client, args: Create) -> Result<(), Error> {
    let wanted = WriteDockerRegistry {
        name: args.name,
        url: args.url,
        username: args.username,
        password: password(args.password_stdin)?,
        project: args.project,
    };
    let made = client.create_docker_registry(&wanted).await?;
    if args.json {
        return Ok(json_line(&made)?);
    }
    writeln!(io::stdout(), "created {} ({}) for {}", made.name, made.id, made.url)?;
    Ok(())
}

async fn list(client: &Client, args: &List) -> Result<(), Error> {
    let found = client.docker_registries().await?;
    if args.json {
        return Ok(found.iter().try_for_each(json_line)?);
    }
    let now = Timestamp::now();
    let mut table = table(&["NAME", "URL", "USERNAME", "CREATED", "ID"]);
    for one in &found {
        table.add_row([
            one.name.clone(),
            one.url.clone(),
            one.username.clone(),
            format::ago(one.created_at, now),
            one.id.clone(),
        ]);
    }
    let otherwise = "no registry credentials; make one with `slipway registry-credential create`";
    print(&table, found.is_empty(), otherwise)
}

async fn get(client: &Client, args: &Get) -> Result<(), Error> {
    let found = find(client, &args.name).await?;
    if args.json {
        return Ok(json_line(&found)?);
    }
    details(&[
        ("name", Some(found.name)),
        ("id", Some(found.id)),
        ("url", Some(found.url)),
        ("username", Some(found.username)),
        ("project", Some(found.project)),
        ("created", Some(found.created_at.to_string())),
        ("updated", Some(found.updated_at.to_string())),
    ])
}

async fn update(client: &Client, args: Update) -> Result<(), Error> {
    let old = find(client, &args.credential).await?;
    let wanted = WriteDockerRegistry {
        name: args.name.unwrap_or(old.name),
        url: args.url.unwrap_or(old.url),
        username: args.username.unwrap_or(old.username),
        password: password(args.password_stdin)?,
        project: args.project,
    };
    let now = client.update_docker_registry(&old.id, &wanted).await?;
    writeln!(io::stdout(), "updated {} ({}) for {}", now.name, now.id, now.url)?;
    Ok(())
}

async fn delete(client: &Client, args: &Delete) -> Result<(), Error> {
    for name in &args.names {
        let found = find(client, name).await?;
        client.delete_docker_registry(&found.id).await?;
        writeln!(io::stdout(), "deleted {name}")?;
    }
    Ok(())
}

async fn test(client: &Client, args: &Test) -> Result<(), Error> {
    let found = find(client, &args.credential).await?;
    let tested = client.test_docker_registry(&found.id, args.region.as_deref()).await?;
    if args.json {
        json_line(&tested)?;
    } else if tested.works {
        writeln!(io::stdout(), "works: {} (from {})", tested.message, tested.region)?;
    }
    match tested.works {
        true => Ok(()),
        false => Err(Error::CredentialRefused { name: found.name, reason: tested.message }),
    }
}

/// `slipway region rotate-key`.
pub async fn rotate_key(client: &Client, args: &RotateKey) -> Result<(), Error> {
    let rotated = client.rotate_key(&args.region).await?;
    if args.json {
        json_line(&rotated)?;
    } else {
        let keys = rotated.keys.join(", ");
        let sealed = rotated.resealed;
        writeln!(
            io::stdout(),
            "{} has the key {keys}; {sealed} credentials are sealed to it",
            rotated.region
        )?;
    }
    match rotated.failed {
        0 => Ok(()),
        failed => Err(Error::NotResealed { region: args.region.clone(), failed }),
    }
}

/// By id, or by a name that only one of them has.
async fn find(client: &Client, name_or_id: &str) -> Result<DockerRegistry, Error> {
    let mut all = client.docker_registries().await?;
    if let Some(index) = all.iter().position(|one| one.id == name_or_id) {
        return Ok(all.swap_remove(index));
    }
    all.retain(|one| one.name == name_or_id);
    match (all.pop(), all.is_empty()) {
        (Some(found), true) => Ok(found),
        (Some(_), false) => Err(Error::AmbiguousName { name: name_or_id.to_owned() }),
        (None, _) => Err(Error::NoCredential { name: name_or_id.to_owned() }),
    }
}

/// Without the line break that a terminal or `echo` adds.
fn password(from_stdin: bool) -> Result<Option<SecretString>, Error> {
    if !from_stdin {
        let given = std::env::var(PASSWORD).ok().filter(|value| !value.is_empty());
        return Ok(given.map(SecretString::from));
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(Error::Password)?;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(Some(SecretString::from(text)))
}
