//! A TCP proxy that hurts what passes through it.
//!
//! Owns: one listening port on loopback in front of one upstream, and every
//! connection through it.
//! Invariant: bytes are never changed, reordered or invented; they are only
//! delayed, held back, or lost with their connection.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// A proxy between a client and a server; it ends on drop.
///
/// Several faults may hold at once: a delayed proxy can be paused, a paused one
/// cut. [`resume`](Self::resume) ends pauses and cuts.
#[derive(Debug)]
pub struct TcpProxy {
    address: SocketAddr,
    faults: Arc<watch::Sender<Faults>>,
    counts: Arc<Counts>,
    listener: AbortHandle,
}

#[derive(Clone, Copy, Debug)]
struct Faults {
    paused: bool,
    refusing: bool,
    delay: Duration,
    /// Connections made under an older number are broken.
    generation: u64,
    /// How many more bytes may reach clients before all connections break.
    allowance: Option<u64>,
}

#[derive(Debug, Default)]
struct Counts {
    to_server: AtomicU64,
    to_client: AtomicU64,
    open: AtomicU64,
}

impl TcpProxy {
    /// Listens on a free loopback port and passes everything on to `upstream`.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(upstream: SocketAddr) -> Self {
        Self::bind(upstream).await.expect("a loopback port is free")
    }

    /// The same, where one wants to go on without a port.
    ///
    /// # Errors
    /// No loopback port is free.
    pub async fn bind(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let faults = Faults {
            paused: false,
            refusing: false,
            delay: Duration::ZERO,
            generation: 0,
            allowance: None,
        };
        let faults = Arc::new(watch::channel(faults).0);
        let counts = Arc::new(Counts::default());
        let task = accept(listener, upstream, Arc::clone(&faults), Arc::clone(&counts));
        #[expect(clippy::disallowed_methods, reason = "aborted on drop, with its connections")]
        let listener = tokio::spawn(task).abort_handle();
        Ok(Self { address, faults, counts, listener })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection with a reset, and every new one until [`resume`](Self::resume).
    pub fn cut(&self) {
        self.faults.send_modify(|faults| {
            faults.refusing = true;
            faults.generation += 1;
        });
    }

    /// Breaks the open connections with a reset; new ones are served.
    pub fn cut_once(&self) {
        self.faults.send_modify(|faults| faults.generation += 1);
    }

    /// Breaks the open connections with a reset once more than `bytes` more would have
    /// gone from the server to clients, in the middle of whatever they are.
    pub fn cut_after(&self, bytes: u64) {
        self.faults.send_modify(|faults| faults.allowance = Some(bytes));
    }

    /// Holds all bytes back, in both directions, while connections stay open.
    pub fn pause(&self) {
        self.faults.send_modify(|faults| faults.paused = true);
    }

    /// Ends a pause or a cut.
    pub fn resume(&self) {
        self.faults.send_modify(|faults| {
            faults.paused = false;
            faults.refusing = false;
        });
    }

    /// Holds every chunk of bytes back for `delay`, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }

    /// How many bytes have gone from clients to the server so far.
    pub fn bytes_to_server(&self) -> u64 {
        self.counts.to_server.load(Ordering::Relaxed)
    }

    /// How many bytes have gone from the server to clients so far.
    pub fn bytes_to_client(&self) -> u64 {
        self.counts.to_client.load(Ordering::Relaxed)
    }

    /// How many connections are open now.
    pub fn connections(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    faults: Arc<watch::Sender<Faults>>,
    counts: Arc<Counts>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if faults.borrow().refusing {
            reset(&client);
            continue;
        }
        let (faults, counts) = (Arc::clone(&faults), Arc::clone(&counts));
        connections.spawn(async move {
            counts.open.fetch_add(1, Ordering::Relaxed);
            let _ = serve(client, upstream, &faults, &counts).await;
            counts.open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: SocketAddr,
    faults: &watch::Sender<Faults>,
    counts: &Counts,
) -> io::Result<()> {
    let mut broken = faults.subscribe();
    let born = broken.borrow().generation;
    let mut server = TcpStream::connect(upstream).await.inspect_err(|_| reset(&client))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let whole = {
        let (mut client_out, mut client_in) = client.split();
        let (mut server_out, mut server_in) = server.split();
        let up = pump(&mut client_out, &mut server_in, faults, &counts.to_server, |read| read);
        let down = pump(&mut server_out, &mut client_in, faults, &counts.to_client, |read| {
            spend(faults, read)
        });
        // Nothing is lost by cancelling: the losing side is a connection that
        // has ended, or one that is to be broken.
        tokio::select! {
            result = async { tokio::try_join!(up, down) } => result.is_ok(),
            _ = broken.wait_for(|faults| faults.generation != born) => false,
        }
    };
    if !whole {
        reset(&client);
        reset(&server);
    }
    Ok(())
}

/// Copies until the end of `from`. `admit` says how many bytes of a chunk may
/// pass; where it is fewer than offered, all connections break after them.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    faults: &watch::Sender<Faults>,
    count: &AtomicU64,
    admit: impl Fn(usize) -> usize,
) -> io::Result<()> {
    let mut state = faults.subscribe();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut chunk).await?;
        let delay = state.borrow().delay;
        tokio::time::sleep(delay).await;
        let _ = state.wait_for(|faults| !faults.paused).await;
        if read == 0 {
            return to.shutdown().await;
        }
        let admitted = admit(read);
        to.write_all(&chunk[..admitted]).await?;
        count.fetch_add(admitted as u64, Ordering::Relaxed);
        if admitted < read {
            faults.send_modify(|faults| faults.generation += 1);
        }
    }
}

/// Takes `bytes` from the allowance of [`TcpProxy::cut_after`], if there is one,
/// and says how many of them it covers. What is used up is gone: the
/// connections after the cut are served in full.
fn spend(faults: &watch::Sender<Faults>, bytes: usize) -> usize {
    let mut covered = bytes;
    faults.send_if_modified(|faults| {
        let Some(left) = faults.allowance else { return false };
        covered = bytes.min(usize::try_from(left).unwrap_or(usize::MAX));
        faults.allowance = (covered == bytes).then_some(left - covered as u64);
        false
    });
    covered
}

fn reset(stream: &TcpStream) {
    // A connection that is gone already cannot be reset, which is as good.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests;
