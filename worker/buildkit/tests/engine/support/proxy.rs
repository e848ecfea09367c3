//! Stands between client and BuildKit, and can cut all connections.

use slipway_buildkit::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

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
        let behind = super::endpoint();
        let endpoint = match behind {
            Endpoint::Docker(_) => Endpoint::Docker(path),
            Endpoint::Unix(_) | Endpoint::Tcp { .. } => Endpoint::Unix(path),
        };
        let (cuts, cut) = watch::channel(0);
        let mut server = JoinSet::new();
        server.spawn(serve(listener, behind, cut));
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

async fn serve(listener: UnixListener, behind: Endpoint, cut: watch::Receiver<u32>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far: Box<dyn Connection> = match &behind {
            Endpoint::Docker(path) | Endpoint::Unix(path) => {
                Box::new(UnixStream::connect(path).await.unwrap())
            }
            Endpoint::Tcp { host, port } => {
                Box::new(TcpStream::connect((host.as_str(), *port)).await.unwrap())
            }
        };
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
