//! Serves archives to BuildKit and counts what it asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use slipway_buildkit::ContextSource;
use slipway_oci::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// An HTTP server on loopback that lives as long as the value.
pub struct ContextServer {
    address: SocketAddr,
    archives: Archives,
    _server: JoinSet<()>,
}

type Archives = Arc<Mutex<HashMap<String, Archive>>>;

struct Archive {
    bytes: Vec<u8>,
    requests: usize,
}

impl ContextServer {
    pub async fn start() -> Self {
        let archives = Archives::default();
        let routes =
            Router::new().route("/contexts/{id}", get(serve)).with_state(Arc::clone(&archives));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, archives, _server: server }
    }

    /// Offers `archive` under an address of its own.
    pub fn add(&self, archive: Vec<u8>) -> ContextSource {
        let id = super::nonce();
        let digest = Digest::sha256(&archive);
        let entry = Archive { bytes: archive, requests: 0 };
        self.archives.lock().unwrap().insert(id.clone(), entry);
        let url = format!("http://{}/contexts/{id}", self.address);
        ContextSource { url, digest, excludes: vec![] }
    }

    /// How often `context` was asked for.
    pub fn requests_for(&self, context: &ContextSource) -> usize {
        let id = context.url.rsplit('/').next().unwrap();
        self.archives.lock().unwrap()[id].requests
    }
}

async fn serve(
    Path(id): Path<String>,
    State(archives): State<Archives>,
) -> Result<Vec<u8>, StatusCode> {
    let mut archives = archives.lock().unwrap();
    let archive = archives.get_mut(&id).ok_or(StatusCode::NOT_FOUND)?;
    archive.requests += 1;
    Ok(archive.bytes.clone())
}
