#![allow(clippy::unwrap_used)]

use tokio::time::{Instant, timeout};

use super::*;

const QUIET: Duration = Duration::from_millis(150);

/// A server that sends everything back, and a proxy in front of it.
async fn echo() -> (TcpProxy, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    (TcpProxy::start(address).await, server)
}

async fn exchange(stream: &mut TcpStream, text: &[u8]) -> io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

#[tokio::test]
async fn large_transfer_arrives_whole_with_its_end() {
    let (proxy, _server) = echo().await;
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut from, mut to) = stream.split();
    let mut received = Vec::new();
    let write = async {
        to.write_all(&sent).await?;
        to.shutdown().await
    };
    tokio::try_join!(write, from.read_to_end(&mut received)).unwrap();
    assert!(received == sent);
    assert_eq!(proxy.bytes_to_server(), sent.len() as u64);
    assert_eq!(proxy.bytes_to_client(), sent.len() as u64);
}

#[tokio::test]
async fn cut_breaks_old_and_new_connections_until_resume() {
    let (proxy, _server) = echo().await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut old, b"before").await.unwrap();
    assert_eq!(proxy.connections(), 1);
    proxy.cut();
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(exchange(&mut new, b"during").await.is_err());
    proxy.resume();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut new, b"after").await.unwrap();
}

#[tokio::test]
async fn cut_once_leaves_the_door_open() {
    let (proxy, _server) = echo().await;
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut old, b"before").await.unwrap();
    proxy.cut_once();
    assert!(old.read(&mut [0]).await.is_err());
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut new, b"after").await.unwrap();
}

#[tokio::test]
async fn pause_holds_bytes_back_and_loses_none() {
    let (proxy, _server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut stream, b"before").await.unwrap();
    proxy.pause();
    stream.write_all(b"held").await.unwrap();
    let mut answer = [0; 4];
    assert!(timeout(QUIET, stream.read_exact(&mut answer)).await.is_err());
    proxy.resume();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"held");
}

#[tokio::test]
async fn delay_is_felt_in_each_direction() {
    let (proxy, _server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.delay(QUIET);
    let began = Instant::now();
    exchange(&mut stream, b"slow").await.unwrap();
    assert!(began.elapsed() >= 2 * QUIET);
}

#[tokio::test]
async fn cut_after_stops_in_the_middle_once() {
    let (proxy, _server) = echo().await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.cut_after(10);
    exchange(&mut stream, b"sixsix").await.unwrap();
    stream.write_all(b"more than four").await.unwrap();
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(rest, b"more");
    let mut next = TcpStream::connect(proxy.address()).await.unwrap();
    exchange(&mut next, b"longer than ten bytes").await.unwrap();
}

#[tokio::test]
async fn drop_ends_the_proxy_with_its_connections() {
    let (proxy, _server) = echo().await;
    let address = proxy.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    exchange(&mut stream, b"before").await.unwrap();
    drop(proxy);
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    assert!(TcpStream::connect(address).await.is_err());
}
