//! The session: services that BuildKit calls on us during a solve.
//!
//! Owns the tunnel (HTTP/2 inside the messages of `Control.Session`, with
//! BuildKit as the client) and three services: health, registry credentials
//! and secrets. Refuses everything else; files never travel here.
//!
//! Invariant: a secret goes only to who holds the session's stream; none is
//! ever logged.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use futures::future::join;
use secrecy::SecretSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::dial;
use crate::error::Error;
use crate::request::RegistryCredentials;

mod services;

use services::{Credentials, Healthy, Secrets};

const OPEN_DEADLINE: Duration = Duration::from_secs(10);
const TUNNEL_BUFFER: usize = 256 << 10;
const TUNNEL_CHUNK: usize = 32 << 10;
const TUNNEL_MESSAGES: usize = 8;

/// The methods we serve. BuildKit takes one that is not listed for absent.
const METHODS: [&str; 6] = [
    "/grpc.health.v1.Health/Check",
    "/moby.filesync.v1.Auth/Credentials",
    "/moby.filesync.v1.Auth/FetchToken",
    "/moby.filesync.v1.Auth/GetTokenAuthority",
    "/moby.filesync.v1.Auth/VerifyTokenAuthority",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
];

/// What the session can answer with.
pub(crate) struct Keys {
    pub credentials: RegistryCredentials,
    pub secrets: BTreeMap<String, SecretSlice<u8>>,
}

/// An open session.
pub(crate) struct Session {
    id: String,
    outgoing: mpsc::Sender<BytesMessage>,
    incoming: Streaming<BytesMessage>,
    keys: Keys,
}

impl Session {
    /// Opens a session on `channel`; it answers once [`Session::serve`] runs.
    ///
    /// # Errors
    /// [`Error::Transport`] if BuildKit does not take it.
    pub(crate) async fn open(channel: Channel, keys: Keys) -> Result<Self, Error> {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (outgoing, messages) = mpsc::channel(TUNNEL_MESSAGES);
        let mut request = Request::new(ReceiverStream::new(messages));
        announce(request.metadata_mut(), &id);
        let mut control = dial::control(channel);
        let incoming = tokio::time::timeout(OPEN_DEADLINE, control.session(request))
            .await
            .map_err(|_| Error::transport("BuildKit did not open a session in time"))?
            .map_err(|status| Error::transport(status.message()))?
            .into_inner();
        Ok(Self { id, outgoing, incoming, keys })
    }

    /// The id that a solve names to use this session.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Answers BuildKit's calls until it closes the session. Dropping the
    /// future closes it.
    pub(crate) async fn serve(self) {
        let (ours, theirs) = tokio::io::duplex(TUNNEL_BUFFER);
        let (reader, writer) = tokio::io::split(ours);
        answer(theirs, self.keys).await;
        join(receive(self.incoming, writer), send(reader, self.outgoing)).await;
    }
}

fn announce(metadata: &mut MetadataMap, id: &str) {
    let id = MetadataValue::try_from(id).expect("a simple uuid is ASCII");
    metadata.insert("x-docker-expose-session-uuid", id);
    for method in METHODS {
        let method = MetadataValue::from_static(method);
        metadata.append("x-docker-expose-session-grpc-method", method);
    }
}

async fn receive(mut incoming: Streaming<BytesMessage>, mut writer: WriteHalf<DuplexStream>) {
    // An error ends the session as a close does; the solve says what happened.
    while let Ok(Some(message)) = incoming.message().await {
        if writer.write_all(&message.data).await.is_err() {
            break;
        }
    }
    let _ = writer.shutdown().await;
}

async fn send(mut reader: ReadHalf<DuplexStream>, outgoing: mpsc::Sender<BytesMessage>) {
    let mut buffer = vec![0; TUNNEL_CHUNK];
    while let Ok(length @ 1..) = reader.read(&mut buffer).await {
        let message = BytesMessage { data: buffer[..length].to_vec() };
        if outgoing.send(message).await.is_err() {
            break;
        }
    }
}

/// Starts answering on `connection`. The server runs apart until the other end
/// of `connection` is dropped.
async fn answer(connection: DuplexStream, keys: Keys) {
    let incoming = futures::stream::iter([Ok::<_, std::io::Error>(connection)]);
    let served = tonic::transport::Server::builder()
        .add_service(HealthServer::new(Healthy))
        .add_service(AuthServer::new(Credentials::new(keys.credentials)))
        .add_service(SecretsServer::new(Secrets::new(keys.secrets)))
        .serve_with_incoming(incoming)
        .await;
    if let Err(error) = served {
        tracing::warn!(%error, "BuildKit session could not be served");
    }
}
