//! What is there already: whose it is, and what it spares.

use std::time::Instant;

use slipway_blobstore::ObjectKey;
use slipway_domain::failure::FailureKind;
use slipway_domain::log::StepStatus;
use slipway_oci::{Descriptor, MediaType};

use super::bench::{Bench, spec};
use super::image::{Content, noise};
use super::upstream::Upstream;

const SIZE: usize = 500_000;

async fn upstream() -> (Upstream, Vec<Descriptor>) {
    let mut content = Content::default();
    let layers: Vec<_> = (0..12)
        .map(|seed| content.blob(MediaType::OciLayerGzip, noise(seed * 2 + 1, SIZE)))
        .collect();
    let root = content.image("linux/amd64", &layers);
    (Upstream::start(content, &root).await, layers)
}

fn layer_requests(upstream: &Upstream, layers: &[Descriptor]) -> usize {
    let is_layer = |path: &str| layers.iter().any(|one| path.ends_with(&one.digest.hex()));
    upstream.seen().iter().filter(|seen| is_layer(&seen.path)).count()
}

#[tokio::test]
async fn what_the_organization_has_is_not_fetched_again() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    let first = bench.pull(&upstream.image()).await.0.unwrap();
    assert_eq!(layer_requests(&upstream, &layers), 12);
    let begun = Instant::now();
    let (second, said) = bench.pull(&upstream.image()).await;
    let taken = begun.elapsed();
    let second = second.unwrap();
    assert_eq!((second.digest, second.cached_steps), (first.digest, 12));
    assert_eq!(layer_requests(&upstream, &layers), 12);
    let cached = said.steps.iter().filter(|step| step.status == StepStatus::Cached).count();
    assert_eq!(cached, 12);
    assert!(said.lines.iter().any(|line| line.ends_with(" 500.0kB CACHED")), "{:#?}", said.lines);
    println!("twelve layers that are all present: {taken:?}");
}

#[tokio::test]
async fn what_another_organization_has_is_linked_after_samples_of_it() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    bench.pull(&upstream.image()).await.0.unwrap();
    let before = bench.links().await.len();
    let begun = Instant::now();
    let second = bench.pull_for(2, &spec(&upstream.image())).await.0.unwrap();
    println!("twelve layers of somebody else: {:?}", begun.elapsed());
    assert_eq!(second.cached_steps, 12);
    assert_eq!(bench.links().await.len(), before * 2);
    let seen = upstream.seen();
    let mut samples = seen.iter().filter(|seen| seen.is_blob() && seen.header("range").is_some());
    assert_eq!(samples.clone().count(), 12 * 4);
    assert!(samples.all(|seen| layers.iter().any(|one| seen.path.ends_with(&one.digest.hex()))));
}

/// The registry of somebody who has heard of a digest, and of nothing more.
#[tokio::test]
async fn to_name_a_digest_is_no_right_to_it() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    bench.pull(&upstream.image()).await.0.unwrap();
    let links = bench.links().await;

    for answer in [None, Some(vec![0; SIZE])] {
        let mut content = Content::default();
        let root = content.image("linux/amd64", &layers[..1]);
        if let Some(bytes) = answer {
            content.blobs.insert(layers[0].digest, bytes.into());
        }
        let thief = Upstream::start(content, &root).await;
        let failure = bench.pull_for(2, &spec(&thief.image())).await.0.unwrap_err();
        let wanted = [FailureKind::ImageNotFound, FailureKind::ImageInvalid];
        assert!(wanted.contains(&failure.kind), "{failure:?}");
        assert_eq!(bench.links().await, links);
    }
}

#[tokio::test]
async fn a_blob_of_another_size_in_the_pool_is_not_believed() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    let damaged = ObjectKey::Blob(layers[0].digest);
    bench.store.put_bytes(&damaged, "cut").await.unwrap();
    bench.pull(&upstream.image()).await.0.unwrap();
    assert_eq!(bench.store.head(&damaged).await.unwrap().size, SIZE as u64);
}

/// A sweep took a blob that the worker still believes in, as it remembers links:
/// that is found out before the manifest is kept.
#[tokio::test]
async fn a_blob_that_is_lost_meanwhile_is_brought_again() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    bench.pull(&upstream.image()).await.0.unwrap();
    let lost = ObjectKey::Blob(layers[0].digest);
    bench.store.delete(&lost).await.unwrap();
    let again = bench.pull(&upstream.image()).await.0.unwrap();
    assert_eq!(again.layers, 12);
    assert_eq!(bench.store.head(&lost).await.unwrap().size, SIZE as u64);
    assert_eq!(layer_requests(&upstream, &layers), 13);
}

#[tokio::test]
async fn a_condemned_blob_is_brought_again_and_not_relied_upon() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    bench.pull(&upstream.image()).await.0.unwrap();
    let mark = ObjectKey::Condemned(layers[0].digest);
    bench.store.put_bytes(&mark, "0").await.unwrap();
    let second = bench.pull_for(2, &spec(&upstream.image())).await.0.unwrap();
    assert_eq!(second.cached_steps, 11, "all but the one that a sweep may take");
}

#[tokio::test]
async fn what_costs_too_much_is_refused_before_the_first_layer() {
    let (upstream, layers) = upstream().await;
    let bench = Bench::new();
    let mut small = spec(&upstream.image());
    small.max_size = 5_000_000;
    let failure = bench.pull_for(1, &small).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge);
    assert_eq!(failure.message, "Snapshot size (0.01GB) exceeds maximum allowed size of 0GB");
    assert_eq!(layer_requests(&upstream, &layers), 0);
    assert!(bench.keys().await.is_empty());
}
