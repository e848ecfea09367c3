//! Opens one gRPC channel to an endpoint.
//!
//! Owns the three ways of dialling and their deadline. Every solve dials anew
//! (about a millisecond), so that no lost connection outlives the solve it
//! belonged to and dropping a solve closes all of its streams at once.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Uri};

use crate::endpoint::{Endpoint, Tls, authority};
use crate::error::Error;

/// Largest gRPC message on either side; BuildKit's own limit.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;

/// From the first connect to a usable channel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// A peer that vanished without closing is noticed within interval + timeout.
/// While a session is open BuildKit sends data every five seconds (its health
/// check), which keeps these pings within a gRPC server's ping policy.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Trailers carry the whole error of a solve, with every layer of its wrapping and
/// the Dockerfile that is at fault; by itself the client takes 16 KiB and breaks
/// the stream at more, which looks like a lost connection.
const MAX_TRAILERS: u32 = 16 << 20;

/// What BuildKit may send on a stream before we take it. The one that gets much is
/// that of the status, and what is on its way there can no longer share a message
/// ([`crate::pace`]); the answers to a solve and in a session are small.
const STREAM_WINDOW: u32 = 16 << 10;

/// Longest answer head to an upgrade request.
const MAX_UPGRADE_HEAD: usize = 16 << 10;

/// Dials `endpoint`.
///
/// # Errors
/// [`Error::EndpointUnavailable`] if nothing usable answers within
/// [`CONNECT_DEADLINE`].
pub(crate) async fn dial(endpoint: &Endpoint, tls: Option<&Tls>) -> Result<Channel, Error> {
    let unavailable = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::EndpointUnavailable { endpoint: endpoint.clone(), source }
    };
    match tokio::time::timeout(CONNECT_DEADLINE, connect(endpoint, tls)).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(unavailable(error.into())),
        Err(elapsed) => Err(unavailable(elapsed.into())),
    }
}

/// The control service on `channel`, with our message sizes.
pub(crate) fn control(channel: Channel) -> ControlClient<Channel> {
    ControlClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

async fn connect(
    endpoint: &Endpoint,
    tls: Option<&Tls>,
) -> Result<Channel, tonic::transport::Error> {
    match endpoint {
        Endpoint::Docker(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| upgraded(path.clone()));
            tuned("http://localhost".to_owned())?.connect_with_connector(connector).await
        }
        Endpoint::Unix(path) => {
            let path = path.clone();
            let connector = tower::service_fn(move |_: Uri| plain(path.clone()));
            tuned("http://localhost".to_owned())?.connect_with_connector(connector).await
        }
        Endpoint::Tcp { host, port } => {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let mut builder = tuned(format!("{scheme}://{}", authority(host, *port)))?;
            if let Some(tls) = tls {
                builder = builder.tls_config(client_tls(tls))?;
            }
            builder.connect().await
        }
    }
}

fn tuned(uri: String) -> Result<tonic::transport::Endpoint, tonic::transport::Error> {
    Ok(tonic::transport::Endpoint::from_shared(uri)?
        .initial_stream_window_size(STREAM_WINDOW)
        .http2_max_header_list_size(MAX_TRAILERS)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

fn client_tls(tls: &Tls) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(&tls.cert, tls.key.expose_secret()))
        .domain_name(&tls.server_name)
}

async fn plain(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(path).await.map(TokioIo::new)
}

async fn upgraded(path: PathBuf) -> io::Result<TokioIo<impl AsyncRead + AsyncWrite>> {
    upgrade(&path).await.map(TokioIo::new)
}

/// Turns a connection to a Docker Engine into one to its BuildKit: an
/// HTTP/1.1 upgrade of `POST /grpc`, after which HTTP/2 begins.
async fn upgrade(path: &Path) -> io::Result<impl AsyncRead + AsyncWrite + use<>> {
    const REQUEST: &[u8] = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\n\
        Upgrade: h2c\r\nContent-Length: 0\r\n\r\n";
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(REQUEST).await?;
    let (mut head, end) = read_head(&mut stream).await?;
    if !head.starts_with(b"HTTP/1.1 101 ") {
        let status = String::from_utf8_lossy(&head[..end]);
        let status = status.lines().next().unwrap_or_default();
        return Err(io::Error::other(format!("upgrade to gRPC was refused: {status}")));
    }
    // Bytes read past the head already belong to HTTP/2.
    let surplus = Cursor::new(head.split_off(end));
    let (reader, writer) = stream.into_split();
    Ok(tokio::io::join(surplus.chain(reader), writer))
}

/// Reads an answer's head; returns what was read and where the head ends.
async fn read_head(stream: &mut UnixStream) -> io::Result<(Vec<u8>, usize)> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::other("connection closed before an answer"));
        }
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok((head, at + 4));
        }
        if head.len() > MAX_UPGRADE_HEAD {
            return Err(io::Error::other("the head of the answer is too long"));
        }
    }
}

/// The version of the Docker Engine at `path`, which its BuildKit does not tell:
/// every answer of an engine has it, as `Server: Docker/26.1.5 (linux)`.
pub(crate) async fn engine_version(path: &Path) -> Option<String> {
    const REQUEST: &[u8] = b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
    let ask = async {
        let mut stream = UnixStream::connect(path).await?;
        stream.write_all(REQUEST).await?;
        read_head(&mut stream).await
    };
    let (head, end) = tokio::time::timeout(CONNECT_DEADLINE, ask).await.ok()?.ok()?;
    let head = String::from_utf8_lossy(&head[..end]).into_owned();
    let server = head.lines().find_map(|line| line.strip_prefix("Server: Docker/"))?;
    server.split_whitespace().next().map(ToOwned::to_owned)
}
