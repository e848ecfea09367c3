//! What can go wrong for a user, how it is said, and the exit code it gives.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use console::style;
use slipway_context::{ignore, pack};

/// Exit codes, as in `sysexits.h` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The build or the operation failed.
    Failed = 1,
    /// The command line or a setting is wrong.
    Usage = 64,
    /// The server cannot be reached.
    Unreachable = 69,
    /// The server does not let this key do it.
    Unauthorized = 77,
    /// Ctrl-C.
    Interrupted = 130,
    /// Nobody reads the output any more; what a shell reports for SIGPIPE.
    NoReader = 141,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server is configured.
    #[error("no server is configured: SLIPWAY_API_URL and SLIPWAY_API_KEY are not set")]
    NoServer,
    /// An address without a key, or a key without an address.
    #[error("{missing} is not set, but {given} is; they belong together")]
    HalfServer {
        /// The variable that has to be set.
        missing: String,
        /// The one that is.
        given: String,
    },
    /// The address is none.
    #[error("{name} is `{url}`, which is no address")]
    BadUrl {
        /// The variable.
        name: String,
        /// Its value.
        url: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// The address is not of HTTP.
    #[error("{name} is `{url}`, which does not start with http:// or https://")]
    BadScheme {
        /// The variable.
        name: String,
        /// Its value.
        url: url::Url,
    },
    /// An argument is not of the form that its option takes.
    #[error("`{argument}` given to {option} is not of the form {form}")]
    BadArgument {
        /// For example `--label`.
        option: &'static str,
        /// What was given.
        argument: String,
        /// What is wanted.
        form: &'static str,
    },
    /// There is no registry credential of this name or id.
    #[error("there is no registry credential `{name}`")]
    NoCredential {
        /// What was given.
        name: String,
    },
    /// Several registry credentials have the name.
    #[error("several registry credentials are called `{name}`: give the id")]
    AmbiguousName {
        /// The name.
        name: String,
    },
    /// The password cannot be read.
    #[error("reading the password from standard input")]
    Password(#[source] io::Error),
    /// A registry does not take a credential.
    #[error("the registry credential `{name}` does not work: {reason}")]
    CredentialRefused {
        /// The credential.
        name: String,
        /// What the worker saw.
        reason: String,
    },
    /// Credentials that no worker could open.
    #[error(
        "{failed} registry credentials could not be sealed to the new key of `{region}`; \
         the old identities were kept"
    )]
    NotResealed {
        /// The region.
        region: String,
        /// How many.
        failed: u32,
    },
    /// The Dockerfile cannot be read.
    #[error("reading the Dockerfile `{}`", path.display())]
    Dockerfile {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The ignore file is wrong.
    #[error("the ignore file cannot be used")]
    Ignore(#[source] ignore::Error),
    /// The context cannot be packed.
    #[error("packing the build context failed")]
    Pack(#[source] pack::Error),
    /// The context changed twice while it was packed and sent.
    #[error("the build context keeps changing while it is being sent")]
    Changing(#[source] Option<pack::Error>),
    /// The server, or the way to it.
    #[error(transparent)]
    Api(#[from] slipway_api::client::Error),
    /// Asking for the snapshot was cut off.
    #[error("it is not known whether the server has accepted the snapshot `{name}`")]
    Unknown {
        /// Its name.
        name: String,
        /// What happened.
        source: slipway_api::client::Error,
    },
    /// The server does not say which job makes the snapshot.
    #[error("the server names no job for the snapshot `{0}`")]
    NoJob(String),
    /// The build ended badly; everything was said already.
    #[error("the build failed")]
    BuildFailed,
    /// Some of several operations failed; everything was said already.
    #[error("not everything was done")]
    Partly,
    /// The load test does not fit on the server, or cannot be made.
    #[error("the load test was not made")]
    Loadtest(#[source] slipway_loadtest::Error),
    /// There is no nats-server to run a load test with.
    #[error("no nats-server can be used")]
    NatsServer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The chaos run came to no end; that says nothing about the system.
    #[error("the chaos run with seed {seed} came to no end")]
    Chaos {
        /// Its seed.
        seed: u64,
        /// Why.
        source: slipway_chaos::Error,
    },
    /// NATS cannot be used.
    #[error("cannot use NATS")]
    Nats(#[source] slipway_bus::connection::Error),
    /// A report cannot be written.
    #[error("writing the report `{}`", path.display())]
    Report {
        /// Its path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted {
        /// What becomes of the work, and how to get back to it.
        advice: Option<String>,
    },
    /// The output cannot be written.
    #[error("writing the output")]
    Output(#[from] io::Error),
    /// The program itself could not be started.
    #[error("starting up")]
    Runtime(#[source] io::Error),
}

impl Error {
    /// The exit code that tells programs about it.
    pub fn exit(&self) -> Exit {
        use slipway_api::client::Error as Api;
        match self {
            Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => Exit::NoReader,
            Self::NoServer
            | Self::HalfServer { .. }
            | Self::BadUrl { .. }
            | Self::BadScheme { .. }
            | Self::BadArgument { .. }
            | Self::Dockerfile { .. }
            | Self::Ignore(_)
            | Self::NatsServer(_)
            | Self::Loadtest(slipway_loadtest::Error::NoRoom { .. })
            | Self::Report { .. }
            | Self::Pack(pack::Error::Root { .. })
            | Self::Api(Api::BadName(_) | Api::BadBase(_) | Api::BadKey) => Exit::Usage,
            Self::Api(Api::Unreachable { .. } | Api::Interrupted { .. } | Api::Unstable { .. }) => {
                Exit::Unreachable
            }
            Self::Nats(_) | Self::Unknown { .. } => Exit::Unreachable,
            Self::Api(error) if matches!(error.status(), Some(401 | 403)) => Exit::Unauthorized,
            Self::Api(error) if matches!(error.status(), Some(502..=504)) => Exit::Unreachable,
            Self::Interrupted { .. } => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// What the user can do about it.
    fn remedy(&self) -> Option<String> {
        use slipway_api::client::Error as Api;
        let remedy = match self {
            Self::NoServer | Self::HalfServer { .. } => {
                "start a server with `slipway dev` and load the `dev.env` that it writes, or set\n\
                 SLIPWAY_API_URL (such as http://127.0.0.1:3000/api) and SLIPWAY_API_KEY"
            }
            Self::BadUrl { .. } | Self::BadScheme { .. } => {
                "give the whole address, such as http://127.0.0.1:3000/api"
            }
            Self::Dockerfile { .. } => "name another one with --dockerfile",
            Self::Pack(pack::Error::Root { .. }) => "name another folder with --context",
            Self::Nats(_) => "is it running, and does --nats name it?",
            Self::Loadtest(slipway_loadtest::Error::NoRoom { .. }) => {
                "give a smaller --concurrency, delete snapshots, or say with --quota what the\n\
                 server allows"
            }
            Self::Report { .. } => "name another file with --json",
            Self::Changing(_) => {
                "stop what writes there, or leave its files out with a `.dockerignore`"
            }
            Self::Unknown { name, .. } => {
                return Some(format!("see `slipway snapshot get {name}`"));
            }
            Self::Api(Api::Unreachable { .. }) => {
                "is the server running, and is the address right?"
            }
            Self::Api(Api::Malformed { .. }) => "is SLIPWAY_API_URL the address of the API itself?",
            Self::Api(error) if error.status() == Some(401) => {
                "check SLIPWAY_API_KEY (or DAYTONA_API_KEY): the server does not know this key"
            }
            Self::Api(error) if error.status() == Some(403) => {
                "use a key that has the permission for it"
            }
            Self::Api(error) if error.status() == Some(409) => {
                "choose another name, or delete it first with `slipway snapshot delete`"
            }
            _ => return None,
        };
        Some(remedy.to_owned())
    }
}

/// Says on standard error what went wrong, why, and what to do.
pub fn report(error: &Error) -> ExitCode {
    let exit = error.exit();
    // Both were told already, or there is nobody to tell.
    let is_silent = exit == Exit::NoReader || matches!(error, Error::BuildFailed | Error::Partly);
    if !is_silent {
        complain(error);
    }
    exit.into()
}

fn complain(error: &Error) {
    if let Error::Interrupted { advice } = error {
        // Not a fault of anybody; the advice is all there is to say.
        eprintln!("\n{}", advice.as_deref().unwrap_or("interrupted"));
        return;
    }
    eprintln!("{} {error}", style("error:").red().bold().for_stderr());
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  {} {inner}", style("because:").for_stderr().dim());
        cause = inner.source();
    }
    if let Some(remedy) = error.remedy() {
        let label = style("hint:").for_stderr().cyan();
        eprintln!("  {label} {}", remedy.replace('\n', "\n        "));
    }
}
