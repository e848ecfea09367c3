//! A registry that is busy, fails or is cut off is asked again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use futures::StreamExt as _;
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use slipway_oci::{Descriptor, MediaType};
use slipway_source::{Client, Config, Error, Fault, NoCredentials};
use slipway_testkit::TcpProxy;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::image::{Content, noise};
use crate::upstream::{Upstream, error, promising};
use crate::{config, fetch, resolve, resolve_with};

const SIZE: usize = 3_000_000;

async fn upstream() -> (Upstream, Descriptor) {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, SIZE));
    let root = content.image("linux/amd64", std::slice::from_ref(&layer));
    (Upstream::start(content, &root).await, layer)
}

#[tokio::test]
async fn a_busy_registry_is_asked_again_when_it_says() {
    let (upstream, layer) = upstream().await;
    let mut left = 2;
    upstream.hook(move |_| {
        left -= 1;
        let busy = error(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", "slow down");
        (left >= 0).then(|| ([(header::RETRY_AFTER, "1")], busy).into_response())
    });
    let begun = Instant::now();
    let pull = resolve(&upstream.image()).await.unwrap();
    // One refusal is met by the greeting; the other by the manifest.
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), SIZE);
}

#[tokio::test]
async fn errors_of_the_server_are_retried_up_to_a_bound() {
    let (upstream, _) = upstream().await;
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    upstream.hook(move |seen| {
        seen.is_manifest().then(|| {
            counted.fetch_add(1, Ordering::Relaxed);
            error(StatusCode::BAD_GATEWAY, "UNKNOWN", "upstream")
        })
    });
    let failed = resolve(&upstream.image()).await.unwrap_err();
    assert_eq!(failed.fault(), Fault::Unavailable);
    assert!(failed.to_string().ends_with("failed with status 502: UNKNOWN: upstream"), "{failed}");
    assert_eq!(tries.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn a_registry_that_asks_for_an_hour_is_not_waited_for() {
    let (upstream, _) = upstream().await;
    upstream.hook(|_| {
        Some((StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "3600")]).into_response())
    });
    let limited = resolve(&upstream.image()).await.unwrap_err();
    assert_eq!(limited.retry_after(), Some(Duration::from_secs(3600)));
    assert!(limited.to_string().contains("asks to come again in 3600 s"), "{limited}");
    assert!(limited.is_retryable());
}

#[tokio::test]
async fn a_cut_connection_is_taken_up_where_it_was() {
    let (upstream, layer) = upstream().await;
    let proxy = TcpProxy::start(upstream.address).await;
    let pull = resolve(&format!("{}/team/app:1", proxy.address())).await.unwrap();
    proxy.cut_after(1_000_000);
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), SIZE);
    let seen = upstream.seen();
    let ranges: Vec<_> = seen.iter().filter(|seen| seen.is_blob()).collect();
    assert_eq!(ranges.len(), 2);
    let range = ranges[1].header("range").unwrap();
    let start: usize =
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!((500_000..=1_000_000).contains(&start), "{start}");
    assert!(proxy.bytes_to_client() < SIZE as u64 + 600_000);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_starts_over() {
    let (upstream, layer) = upstream().await;
    let whole = noise(1, SIZE);
    let mut cuts = [1_500_000, 2_500_000].into_iter();
    upstream.hook(move |seen| {
        let body = || match cuts.next() {
            Some(cut) => promising(SIZE, Body::from(whole[..cut].to_vec())),
            None => whole.clone().into_response(),
        };
        seen.is_blob().then(body)
    });
    let pull = resolve(&upstream.image()).await.unwrap();
    assert_eq!(fetch(&pull, &layer).await.unwrap().len(), SIZE);
    assert_eq!(pull.part(&layer, 10..20).await.unwrap(), &noise(1, 20)[10..]);
}

#[tokio::test]
async fn silence_is_not_waited_out() {
    let (upstream, layer) = upstream().await;
    let proxy = TcpProxy::start(upstream.address).await;
    let silence = Duration::from_secs(1);
    let client = Client::new(Config { silence, ..config() }).unwrap();
    let image = format!("{}/team/app:1", proxy.address());
    let pull = resolve_with(&client, &image, &NoCredentials).await.unwrap();
    let mut stream = pull.blob(&layer);
    stream.next().await.unwrap().unwrap();
    proxy.pause();
    let stalled = loop {
        match stream.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(stalled, Error::Unreachable { .. }), "{stalled:?}");
}

#[tokio::test]
async fn silence_at_the_greeting_does_not_tell_whether_it_speaks_tls() {
    let (upstream, _) = upstream().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let image = format!("{}/team/app:1", listener.local_addr().unwrap());
    let address = upstream.address;
    let _relay = JoinSet::from_iter([async move {
        // The first to come is not answered, and kept.
        let _silent = listener.accept().await.unwrap();
        let mut relays = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            relays.spawn(async move {
                let mut server = TcpStream::connect(address).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    }]);
    let client = Client::new(Config { silence: Duration::from_secs(1), ..config() }).unwrap();
    resolve_with(&client, &image, &NoCredentials).await.unwrap();
}

#[tokio::test]
async fn nobody_at_the_address_is_said_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = resolve(&format!("{address}/team/app:1")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the registry `{address}` cannot be reached"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Wherever the connection is cut, and whether ranges are honoured or not,
    /// the bytes are the same.
    #[test]
    fn cuts_never_change_the_content(cuts in proptest::collection::vec((0_usize..70_000, proptest::bool::ANY), 0..3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let length = runtime.block_on(async {
            let mut content = Content::default();
            let whole = noise(3, 70_000);
            let layer = content.blob(MediaType::OciLayerGzip, whole.clone());
            let root = content.image("linux/amd64", std::slice::from_ref(&layer));
            let upstream = Upstream::start(content, &root).await;
            let mut cuts = cuts.into_iter();
            upstream.hook(move |seen| {
                if !seen.is_blob() {
                    return None;
                }
                let (sent, ignores_range) = cuts.next()?;
                let range = seen.header("range").and_then(|range| range.strip_prefix("bytes="));
                let start: usize = range.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
                if start == 0 || ignores_range {
                    return Some(promising(70_000, Body::from(whole[..sent].to_vec())));
                }
                let end = start + sent.min(70_000 - start - 1);
                let range = [(header::CONTENT_RANGE, format!("bytes {start}-69999/70000"))];
                let part = promising(70_000 - start, Body::from(whole[start..end].to_vec()));
                Some((StatusCode::PARTIAL_CONTENT, range, part).into_response())
            });
            let pull = resolve(&upstream.image()).await.unwrap();
            fetch(&pull, &layer).await.unwrap().len()
        });
        prop_assert_eq!(length, 70_000);
    }
}
