//! Layers pass through in bounded memory, whatever their size.

use axum::body::Body;
use bytes::Bytes;
use futures::stream;
use slipway_oci::{Algorithm, Descriptor, DigestWriter, MediaType};

use super::bench::Bench;
use super::image::Content;
use super::upstream::{Upstream, promising};

const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 1024;
const LAYERS: u8 = 4;
/// For client and server together, which are one process here.
const MOST: u64 = 100 << 20;

fn layer(fill: u8) -> Descriptor {
    let chunk = vec![fill; CHUNK];
    let mut hash = DigestWriter::new(Algorithm::Sha256);
    (0..CHUNKS).for_each(|_| hash.update(&chunk));
    let size = hash.written();
    Descriptor::new(MediaType::OciLayer, hash.finish(), size)
}

#[tokio::test]
async fn four_layers_of_256_mib_are_never_whole_in_memory() {
    let layers: Vec<_> = (1..=LAYERS).map(layer).collect();
    let mut content = Content::default();
    let root = content.image("linux/amd64", &layers);
    let upstream = Upstream::start(content, &root).await;
    let hexes: Vec<_> = layers.iter().map(|layer| layer.digest.hex()).collect();
    upstream.hook(move |seen| {
        let place = hexes.iter().position(|hex| seen.path.ends_with(hex))?;
        let chunk = Bytes::from(vec![place as u8 + 1; CHUNK]);
        let chunks = std::iter::repeat_n(chunk, CHUNKS).map(Ok::<_, std::io::Error>);
        Some(promising(CHUNK * CHUNKS, Body::from_stream(stream::iter(chunks))))
    });
    let bench = Bench::new();
    let before = memory("VmRSS:");
    let begun = std::time::Instant::now();
    let built = bench.pull(&upstream.image()).await.0.unwrap();
    let grown = memory("VmHWM:").saturating_sub(before);
    assert_eq!((built.layers, built.cached_steps), (4, 0));
    println!("{} MiB more for 1 GiB in {:?}", grown >> 20, begun.elapsed());
    assert!(grown < MOST, "{} MiB", grown >> 20);
}

/// A figure of this process's memory, in bytes. The test runner gives every
/// test a process of its own.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes * 1024
}
