//! TLS: authorities of one's own, and no way back to plain HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use slipway_oci::MediaType;
use slipway_source::{Client, Config, ConfigError, Error, NoCredentials, RedirectFault};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::image::{Content, noise};
use crate::upstream::{redirect, routes};
use crate::{config, fetch, resolve_with};

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Serves `router` by TLS for `localhost`; returns the port and the authority.
async fn serve(router: Router, tasks: &mut JoinSet<()>) -> (u16, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listener = Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) };
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (port, authority.pem())
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_and_only_if_configured() {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, 100_000));
    let root = content.image("linux/amd64", std::slice::from_ref(&layer));
    let mut tasks = JoinSet::new();
    let (port, authority) = serve(routes(content, &root), &mut tasks).await;
    let image = format!("localhost:{port}/team/app:1");

    let authorities = vec![authority.into_bytes()];
    let client = Client::new(Config { authorities, ..config() }).unwrap();
    let pull = resolve_with(&client, &image, &NoCredentials).await.unwrap();
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), 100_000);
    // On loopback the way without TLS is tried then, which this server refuses.
    let stranger = Client::new(config()).unwrap();
    let error = resolve_with(&stranger, &image, &NoCredentials).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_redirect_from_tls_to_none_is_refused() {
    let router = Router::new().fallback(async || redirect("http://127.0.0.1:1/x"));
    let mut tasks = JoinSet::new();
    let (port, authority) = serve(router, &mut tasks).await;
    let image = format!("localhost:{port}/team/app:1");
    let authorities = vec![authority.into_bytes()];
    let client = Client::new(Config { authorities, ..config() }).unwrap();
    let error = resolve_with(&client, &image, &NoCredentials).await.unwrap_err();
    assert!(matches!(error, Error::Redirect { fault: RedirectFault::Downgrade, .. }), "{error:?}");
}

#[test]
fn what_is_no_certificate_is_refused_at_the_start() {
    let authorities = vec![b"nonsense".to_vec()];
    let error = Client::new(Config { authorities, ..config() }).unwrap_err();
    assert!(matches!(error, ConfigError::Tls(_)), "{error:?}");
}
