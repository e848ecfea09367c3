//! Proxies between client and BuildKit: one that can cut its connections, and
//! one that speaks mutual TLS.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use slipway_buildkit::{Endpoint, Tls};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// A BuildKit that goes away now and then.
pub struct Proxy {
    endpoint: Endpoint,
    cuts: watch::Sender<u32>,
    _folder: tempfile::TempDir,
    _server: JoinSet<()>,
}

impl Proxy {
    /// A proxy in front of the dev stack's BuildKit.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = match super::endpoint() {
            Endpoint::Docker(_) => Endpoint::Docker(path),
            Endpoint::Unix(_) | Endpoint::Tcp { .. } => Endpoint::Unix(path),
        };
        let (cuts, cut) = watch::channel(0);
        let mut server = JoinSet::new();
        server.spawn(serve(listener, cut));
        Self { endpoint, cuts, _folder: folder, _server: server }
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Closes every connection; new ones are welcome.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn serve(listener: UnixListener, cut: watch::Receiver<u32>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = raw().await;
        let mut cut = cut.clone();
        cut.mark_unchanged();
        connections.spawn(async move {
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = cut.changed() => {}
            }
        });
    }
}

/// A connection to the socket of the dev stack's BuildKit, as it is.
async fn raw() -> Box<dyn Connection> {
    match super::endpoint() {
        Endpoint::Docker(path) | Endpoint::Unix(path) => {
            Box::new(UnixStream::connect(path).await.unwrap())
        }
        Endpoint::Tcp { host, port } => {
            Box::new(TcpStream::connect((host.as_str(), port)).await.unwrap())
        }
    }
}

/// A BuildKit on TCP that wants a client certificate.
pub struct TlsProxy {
    port: u16,
    issuer: CertifiedIssuer<'static, KeyPair>,
    _server: JoinSet<()>,
}

impl TlsProxy {
    /// A proxy in front of the dev stack's BuildKit, named `buildkit.test`.
    pub async fn start() -> Self {
        let issuer = authority();
        let (cert, key) = certificate(&issuer, "buildkit.test");
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(serve_tls(listener, acceptor));
        Self { port, issuer, _server: server }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp { host: "127.0.0.1".into(), port: self.port }
    }

    /// What a client of this server has.
    pub fn client(&self) -> Tls {
        self.client_of(&self.issuer)
    }

    /// The same with a certificate of somebody else.
    pub fn stranger(&self) -> Tls {
        self.client_of(&authority())
    }

    fn client_of(&self, issuer: &CertifiedIssuer<'static, KeyPair>) -> Tls {
        let (cert, key) = certificate(issuer, "worker.test");
        Tls {
            ca: self.issuer.pem(),
            cert: cert.pem(),
            key: key.serialize_pem().into(),
            server_name: "buildkit.test".into(),
        }
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn certificate(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

async fn serve_tls(listener: TcpListener, acceptor: TlsAcceptor) {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        connections.spawn(async move {
            // A refused client is part of the test.
            let Ok(mut near) = acceptor.accept(near).await else { return };
            let mut far = grpc().await;
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

/// A connection on which BuildKit speaks gRPC, as on a buildkitd's own port.
async fn grpc() -> Box<dyn Connection> {
    let mut connection = raw().await;
    if matches!(super::endpoint(), Endpoint::Docker(_)) {
        let upgrade =
            b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
        connection.write_all(upgrade).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(connection.read_u8().await.unwrap());
        }
    }
    connection
}
