//! How to reach NATS, as values that [`connect`](crate::connect) understands.
//!
//! Owns no file format: whoever reads configuration makes these from it.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// Patience that does not end: for servers, which are of no use without NATS and are
/// often started together with it.
pub const FOR_EVER: Duration = Duration::MAX;

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct Config {
    /// URLs such as `nats://host:4222` or `tls://host:4222`; at least one.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// Shown in the server's list of connections.
    pub name: String,
    /// First tokens of reply subjects, `_INBOX` unless permissions say otherwise.
    pub inbox_prefix: Option<String>,
    /// First tokens of the JetStream API where it is imported from another
    /// account; `$JS.API` otherwise.
    pub api_prefix: Option<String>,
    /// PEM file of the authorities that sign the servers, besides the system's.
    pub authorities: Option<PathBuf>,
    /// How long one request waits for its answer.
    pub request_timeout: Duration,
    /// How long [`connect`](crate::connection::connect) goes on trying; for ever with
    /// [`FOR_EVER`].
    pub patience: Duration,
    /// What the check of the server's age asks.
    pub check: VersionCheck,
}

impl Config {
    /// One server, no credentials, 5 s for a request and 30 s to connect.
    #[must_use]
    pub fn new(server: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            credentials: Credentials::None,
            name: name.into(),
            inbox_prefix: None,
            api_prefix: None,
            authorities: None,
            request_timeout: Duration::from_secs(5),
            patience: Duration::from_secs(30),
            check: VersionCheck::ApiLevel,
        }
    }
}

/// Who we are to the server.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nobody in particular.
    None,
    /// A user of the server's configuration.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// The seed of an nkey (`SU…`).
    NKey(SecretString),
    /// A credentials file: JWT and nkey seed.
    File(PathBuf),
}

/// What the check of the server's age asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionCheck {
    /// The API level of JetStream, which counts in a mixed cluster. Needs the
    /// permission to ask for account information.
    ApiLevel,
    /// The version of the server at the other end; for workers, whose
    /// permissions name nothing but their region.
    ServerVersion,
}
