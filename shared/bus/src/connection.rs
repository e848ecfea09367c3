//! The connection to NATS and what is known about it.
//!
//! Owns connecting with patience, the check that the server is new enough, and
//! the news of coming and going of the connection. Refuses servers that accept
//! and then ignore what Slipway relies on. Invariant: a [`Bus`] exists only
//! after such a check, and reconnects by itself from then on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event};
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
pub use crate::config::{Config, Credentials, FOR_EVER, VersionCheck};

/// The oldest nats-server that Slipway works with.
const FLOOR: [u64; 3] = [2, 15, 1];
/// How often an idle connection is tried: two tries without an answer and it is
/// given up, so a server that vanished without a word is noticed within half a minute.
const PING: Duration = Duration::from_secs(10);
/// The JetStream API level of [`FLOOR`].
const FLOOR_LEVEL: usize = 5;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials cannot be read.
    #[error("cannot read the NATS credentials file `{path}`")]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// No server let us in for as long as we tried.
    #[error("no connection to NATS at {servers} within {} s", waited.as_secs())]
    Unreachable {
        /// The servers tried.
        servers: String,
        /// For how long.
        waited: Duration,
        /// The last failure.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server does not know us; trying again would not help.
    #[error("NATS at {servers} refused the connection: check the configured credentials")]
    Refused {
        /// The servers tried.
        servers: String,
        /// The server's answer.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server does not do what we need.
    #[error(
        "nats-server {version}{} is too old: it would accept and ignore what Slipway relies on; \
         run nats-server 2.15.1 or newer",
        level.map(|level| format!(" (JetStream API level {level}, needed is 5)")).unwrap_or_default()
    )]
    TooOld {
        /// What the server says it is.
        version: String,
        /// The level of its JetStream API, where it was asked.
        level: Option<usize>,
    },
    /// JetStream did not answer for as long as we tried.
    #[error("JetStream of NATS at {servers} does not answer: is it enabled for this account?")]
    NoJetStream {
        /// The servers tried.
        servers: String,
        /// The last failure.
        #[source]
        source: jetstream::context::AccountError,
    },
}

impl Error {
    /// Whether the same configuration may work later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoJetStream { .. })
    }
}

/// What is known of the connection at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Whether a server is at the other end.
    pub up: bool,
    /// Counts connections: a new one means that requests in flight are lost.
    pub epoch: u64,
}

/// A connection to NATS; clones share it. Everything else of this crate is a
/// method on it or made by one.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    context: jetstream::Context,
    api_prefix: String,
    request_timeout: Duration,
    connection: watch::Receiver<Connection>,
    abandoned: mpsc::UnboundedSender<AbandonedConsumer>,
    reaper: tokio::task::JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reaper.abort();
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("connection", &*self.inner.connection.borrow()).finish()
    }
}

impl Bus {
    /// Follows the connection; its current state is there at once.
    #[must_use]
    pub fn connection_state(&self) -> watch::Receiver<Connection> {
        self.inner.connection.clone()
    }

    /// Whether a server is at the other end at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.inner.connection.borrow().up
    }

    /// Sends what is buffered and ends every subscription; for shutdown.
    pub async fn close(&self) {
        if let Err(error) = self.inner.client.drain().await {
            tracing::debug!(%error, "the connection to NATS was closed already");
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    pub(crate) fn context(&self) -> &jetstream::Context {
        &self.inner.context
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    /// A subject of the JetStream API.
    pub(crate) fn api_subject(&self, call: &str) -> String {
        format!("{}.{call}", self.inner.api_prefix)
    }

    /// Waits for a connection and returns its epoch.
    pub async fn connected(&self) -> u64 {
        self.connection(|state| state.up).await
    }

    /// Waits until a connection other than that of `epoch` is there.
    pub(crate) async fn reconnected(&self, epoch: u64) {
        self.connection(|state| state.up && state.epoch != epoch).await;
    }

    async fn connection(&self, wanted: impl FnMut(&Connection) -> bool) -> u64 {
        let mut connection = self.inner.connection.clone();
        let epoch = connection.wait_for(wanted).await.map(|state| state.epoch);
        match epoch {
            Ok(epoch) => epoch,
            // The client is closed for good: nothing will come any more.
            Err(_) => std::future::pending().await,
        }
    }

    /// Has a consumer deleted that nobody reads any more.
    pub(crate) fn abandon(&self, consumer: AbandonedConsumer) {
        // Fails only when the bus is going down; the server then removes the
        // consumer by itself after a while.
        let _ = self.inner.abandoned.send(consumer);
    }
}

/// An ephemeral consumer to be deleted.
#[derive(Debug)]
pub(crate) struct AbandonedConsumer {
    pub(crate) stream: String,
    pub(crate) name: String,
}

/// Connects, trying for as long as the configuration's patience, and checks
/// that the server is new enough.
///
/// # Errors
/// See [`Error`]; wrong credentials and old servers fail at once.
pub async fn connect(config: &Config) -> Result<Bus, Error> {
    let deadline = Instant::now().checked_add(config.patience);
    let (news, connection) = watch::channel(Connection { up: false, epoch: 0 });
    let news = Arc::new(news);
    let client = open(config, &news, deadline).await?;
    await_first_news(&news).await;
    let api_prefix = config.api_prefix.clone().unwrap_or_else(|| "$JS.API".to_owned());
    let context = ContextBuilder::new()
        .timeout(config.request_timeout)
        .api_prefix(api_prefix.clone())
        .build(client.clone());
    check(config, &client, &context, deadline).await?;
    let (abandoned, consumers) = mpsc::unbounded_channel();
    // A task of its own, since a consumer is abandoned by dropping its reader,
    // which cannot wait. It ends with the last handle of the bus.
    #[expect(clippy::disallowed_methods, reason = "held and aborted by the bus")]
    let reaper = tokio::spawn(reap(context.clone(), consumers));
    let request_timeout = config.request_timeout;
    let inner =
        Inner { client, context, api_prefix, request_timeout, connection, abandoned, reaper };
    Ok(Bus { inner: Arc::new(inner) })
}

async fn open(
    config: &Config,
    news: &Arc<watch::Sender<Connection>>,
    deadline: Option<Instant>,
) -> Result<Client, Error> {
    let servers = config.servers.join(", ");
    let mut backoff = Backoff::repeating();
    loop {
        let options = options(config, Arc::clone(news)).await?;
        let source = match options.connect(config.servers.as_slice()).await {
            Ok(client) => return Ok(client),
            Err(source) => source,
        };
        match source.kind() {
            ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::ServerParse => return Err(Error::Refused { servers, source }),
            _ => {}
        }
        let pause = backoff.pause();
        if is_over(deadline, pause) {
            return Err(Error::Unreachable { servers, waited: config.patience, source });
        }
        tracing::info!(%servers, error = %source, "waiting for NATS");
        tokio::time::sleep(pause).await;
    }
}

/// Whether the pause is longer than what is left until a deadline.
fn is_over(deadline: Option<Instant>, pause: Duration) -> bool {
    deadline.is_some_and(|deadline| Instant::now() + pause >= deadline)
}

/// Waits for the client's own news of its first connection, which comes a little
/// after the connection; coming later it would look like a new one.
async fn await_first_news(news: &watch::Sender<Connection>) {
    let mut connection = news.subscribe();
    let first = connection.wait_for(|state| state.epoch > 0);
    if tokio::time::timeout(Duration::from_secs(5), first).await.is_err() {
        // The client drops news when it has too many; it is connected, though.
        news.send_modify(|state| *state = Connection { up: true, epoch: 1 });
    }
}

async fn options(
    config: &Config,
    news: Arc<watch::Sender<Connection>>,
) -> Result<ConnectOptions, Error> {
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .request_timeout(Some(config.request_timeout))
        .connection_timeout(config.request_timeout)
        .ping_interval(PING)
        .event_callback(move |event| {
            note(&news, &event);
            std::future::ready(())
        });
    if let Some(prefix) = &config.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if let Some(file) = &config.authorities {
        options = options.add_root_certificates(file.clone());
    }
    Ok(match &config.credentials {
        Credentials::None => options,
        Credentials::UserPassword { user, password } => {
            options.user_and_password(user.clone(), password.expose_secret().to_owned())
        }
        Credentials::NKey(seed) => options.nkey(seed.expose_secret().to_owned()),
        Credentials::File(path) => options
            .credentials_file(path)
            .await
            .map_err(|source| Error::CredentialsFile { path: path.clone(), source })?,
    })
}

/// Turns the client's events into the state of the connection and into logs.
/// A denied permission shows up here and nowhere else: the call times out.
fn note(news: &watch::Sender<Connection>, event: &Event) {
    match event {
        Event::Connected => {
            news.send_modify(|state| *state = Connection { up: true, epoch: state.epoch + 1 });
            tracing::info!("connected to NATS");
        }
        Event::Disconnected | Event::Closed => {
            news.send_modify(|state| state.up = false);
            tracing::warn!("the connection to NATS is gone");
        }
        Event::ServerError(error) => tracing::error!(%error, "NATS refused something we did"),
        Event::ClientError(error) => tracing::warn!(%error, "trouble with the connection to NATS"),
        Event::SlowConsumer(_) => {
            tracing::warn!("a subscription is read too slowly and loses messages");
        }
        Event::LameDuckMode => tracing::info!("the NATS server is about to shut down"),
        Event::Draining => tracing::debug!("the connection to NATS is closing"),
    }
}

async fn check(
    config: &Config,
    client: &Client,
    context: &jetstream::Context,
    deadline: Option<Instant>,
) -> Result<(), Error> {
    let version = client.server_info().version;
    if !is_new_enough(&version) {
        return Err(Error::TooOld { version, level: None });
    }
    if config.check == VersionCheck::ServerVersion {
        return Ok(());
    }
    let mut backoff = Backoff::repeating();
    loop {
        let source = match context.query_account().await {
            Ok(account) if account.requests.level >= FLOOR_LEVEL => return Ok(()),
            Ok(account) => {
                return Err(Error::TooOld { version, level: Some(account.requests.level) });
            }
            Err(source) => source,
        };
        let pause = backoff.pause();
        if is_over(deadline, pause) {
            return Err(Error::NoJetStream { servers: config.servers.join(", "), source });
        }
        tracing::warn!(error = %source, "waiting for JetStream: is it enabled for this account?");
        tokio::time::sleep(pause).await;
    }
}

/// Whether a version such as `2.16.0-dev` is at least [`FLOOR`].
fn is_new_enough(version: &str) -> bool {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parsed: Option<Vec<u64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
    parsed.is_some_and(|parsed| parsed.as_slice() >= FLOOR.as_slice())
}

/// Deletes abandoned consumers, so that readers that come and go do not use up
/// the consumers that a stream may have.
async fn reap(
    context: jetstream::Context,
    mut abandoned: mpsc::UnboundedReceiver<AbandonedConsumer>,
) {
    while let Some(AbandonedConsumer { stream, name }) = abandoned.recv().await {
        // If this fails the consumer is gone already, or the server removes it
        // after its inactivity threshold.
        if let Err(error) = context.delete_consumer_from_stream(&name, &stream).await {
            tracing::debug!(%stream, %name, %error, "an abandoned consumer was not deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for good in ["2.15.1", "2.15.10", "2.16.0-dev", "3.0.0"] {
            assert!(is_new_enough(good), "{good}");
        }
        for bad in ["2.9.10", "2.15.0", "2.14.20", "", "devel"] {
            assert!(!is_new_enough(bad), "{bad}");
        }
    }
}
