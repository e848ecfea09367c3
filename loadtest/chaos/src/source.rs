//! The registry that the run's pulls come from: small images, each a function of
//! the seed and its number, so that their digests are known beforehand.
//!
//! Refuses pushes and tags; it is slow now and then, so that pulls are under way
//! when a blow falls.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use rand::{Rng as _, RngCore as _};
use slipway_oci::Digest;
use slipway_runtime::Tasks;
use tokio::net::TcpListener;

use crate::plan;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Streams of random numbers that belong to images begin here.
const PURPOSE: u64 = 1 << 32;
/// Most layers of an image.
const LAYERS: usize = 3;
/// Most bytes of a layer.
const LAYER: usize = 300 << 10;

/// The registry.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    seed: u64,
    address: SocketAddr,
    content: Arc<Content>,
}

#[derive(Debug, Default)]
struct Content {
    /// Everything by digest, with how long it takes to come.
    blobs: Mutex<BTreeMap<String, (Bytes, Duration)>>,
}

impl Source {
    /// Serves on a free port of loopback until `tasks` are shut down.
    pub(crate) async fn start(seed: u64, tasks: &Tasks) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let content = Arc::new(Content::default());
        let router = Router::new()
            .route("/v2/", get(|| async { StatusCode::OK }))
            .route("/v2/chaos/{kind}/{reference}", get(serve))
            .with_state(Arc::clone(&content));
        let stop = tasks.shutdown().clone();
        tasks.spawn("source", async move {
            let served = axum::serve(listener, router);
            if let Err(error) = served.with_graceful_shutdown(stop.cancelled_owned()).await {
                tracing::warn!(%error, "the source registry ended");
            }
        });
        Ok(Self { seed, address, content })
    }

    /// Offers image `n`, and returns its reference and the digest of its manifest.
    pub(crate) fn image(&self, n: u64) -> (String, String) {
        let mut random = plan::stream(self.seed, PURPOSE + n);
        let layers = random.random_range(1..=LAYERS);
        let layers: Vec<Bytes> = (0..layers)
            .map(|_| {
                let mut bytes = vec![0; random.random_range(1_000..LAYER)];
                random.fill_bytes(&mut bytes);
                tar(&bytes).into()
            })
            .collect();
        let pause = Duration::from_millis(random.random_range(0..1_000));
        let digests: Vec<String> =
            layers.iter().map(|layer| Digest::sha256(layer).to_string()).collect();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/file"] },
            "rootfs": { "type": "layers", "diff_ids": digests },
        });
        let config = Bytes::from(config.to_string());
        let descriptor = |kind: &str, bytes: &Bytes| {
            serde_json::json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::sha256(bytes).to_string(), "size": bytes.len(),
            })
        };
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("config.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor("layer.v1.tar", l)).collect::<Vec<_>>(),
        });
        let manifest = Bytes::from(manifest.to_string());
        let digest = Digest::sha256(&manifest).to_string();
        let mut blobs = self.content.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        for bytes in layers.into_iter().chain([config]) {
            blobs.insert(Digest::sha256(&bytes).to_string(), (bytes, pause));
        }
        blobs.insert(digest.clone(), (manifest, Duration::ZERO));
        (format!("{}/chaos@{digest}", self.address), digest)
    }
}

async fn serve(
    State(content): State<Arc<Content>>,
    Path((kind, reference)): Path<(String, String)>,
) -> impl IntoResponse {
    let found = {
        let blobs = content.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.get(&reference).cloned()
    };
    let Some((bytes, pause)) = found else { return StatusCode::NOT_FOUND.into_response() };
    tokio::time::sleep(pause).await;
    let media_type = if kind == "manifests" { MANIFEST } else { "application/octet-stream" };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    (headers, bytes).into_response()
}

/// A tar archive with one file (POSIX.1-1988 header; the fields that nobody
/// reads are left empty).
fn tar(content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn an_image_is_a_function_of_seed_and_number() {
        let tasks = Tasks::new();
        let one = Source::start(1, &tasks).await.unwrap();
        let again = Source::start(1, &tasks).await.unwrap();
        let other = Source::start(2, &tasks).await.unwrap();
        assert_eq!(one.image(3).1, again.image(3).1);
        assert_ne!(one.image(3).1, one.image(4).1);
        assert_ne!(one.image(3).1, other.image(3).1);
        assert!(tasks.shut_down(Duration::from_secs(60)).await);
    }
}
