//! A pull that is dropped stops, and leaves nothing that anybody sees.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use slipway_oci::MediaType;
use tokio::sync::Notify;

use super::bench::Bench;
use super::image::{Content, noise};
use super::upstream::Upstream;

/// Tells when the last body is gone.
struct Open {
    count: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

#[tokio::test]
async fn a_pull_that_is_dropped_leaves_no_trace() {
    const SIZE: usize = 20 << 20;
    let mut content = Content::default();
    let layers: Vec<_> = (0..6)
        .map(|seed| content.blob(MediaType::OciLayerGzip, noise(seed * 2 + 1, SIZE)))
        .collect();
    let root = content.image("linux/amd64", &layers);
    let upstream = Upstream::start(content, &root).await;
    let (count, changed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, told) = (count.clone(), changed.clone());
    let hexes: Vec<_> = layers.iter().map(|layer| layer.digest.hex()).collect();
    // Half of each layer, and then nothing more.
    upstream.hook(move |seen| {
        hexes.iter().any(|hex| seen.path.ends_with(hex)).then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            told.notify_one();
            let open = Open { count: counted.clone(), changed: told.clone() };
            let half = Bytes::from(vec![0; SIZE / 2]);
            let body = stream::iter([Ok::<_, std::io::Error>(half)]).chain(stream::pending());
            Body::from_stream(body.inspect(move |_| {
                let _held = &open;
            }))
            .into_response()
        })
    });
    let bench = Bench::new();
    let image = upstream.image();
    let mut pull = Box::pin(bench.pull(&image));
    loop {
        // Cancel-safe: the pull goes on in the next round.
        tokio::select! {
            _ = &mut pull => panic!("a layer that never ends"),
            () = changed.notified() => {}
        }
        if count.load(Ordering::SeqCst) == 4 {
            break;
        }
    }
    // No fifth before one of them has ended.
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut pull).await.is_err());
    assert_eq!(count.load(Ordering::SeqCst), 4);
    assert!(bench.unfinished() > 0);
    drop(pull);
    while count.load(Ordering::SeqCst) > 0 {
        changed.notified().await;
    }
    bench.settled().await;
    assert!(bench.keys().await.is_empty());
}
