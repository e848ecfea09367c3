//! A registry in memory, as small as BuildKit allows, that remembers what was
//! asked of it and can refuse.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use slipway_oci::Digest;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A registry on loopback that lives as long as the value.
pub struct Registry {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// Answers everything but `/v2/` with this status.
    failure: Option<StatusCode>,
    /// `Authorization` that is required.
    authorization: Option<String>,
    content: Mutex<HashMap<String, (String, Bytes)>>,
    requests: Mutex<Vec<(Method, String)>>,
}

impl Registry {
    pub async fn start() -> Self {
        Self::serve(Shared::default()).await
    }

    /// One that wants these credentials (HTTP Basic).
    pub async fn private(user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        let authorization = Some(format!("Basic {pair}"));
        Self::serve(Shared { authorization, ..Shared::default() }).await
    }

    /// One that answers everything with `status`.
    pub async fn failing(status: StatusCode) -> Self {
        Self::serve(Shared { failure: Some(status), ..Shared::default() }).await
    }

    async fn serve(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let routes = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, shared, _server: server }
    }

    /// `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What lies under `digest`: its media type, if it is a manifest, and JSON.
    pub fn json(&self, digest: &Digest) -> (String, serde_json::Value) {
        let content = self.shared.content.lock().unwrap();
        let (kind, bytes) = &content[&digest.to_string()];
        (kind.clone(), serde_json::from_slice(bytes).unwrap())
    }

    /// Forgets the requests, and returns them.
    pub fn take_requests(&self) -> Vec<(Method, String)> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (path, method) = (parts.uri.path().to_owned(), parts.method);
    shared.requests.lock().unwrap().push((method.clone(), path.clone()));
    let given = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if shared.authorization.is_some() && given != shared.authorization.as_deref() {
        return Response::builder()
            .status(StatusCode::UNAUTHORIZED)
            .header(header::WWW_AUTHENTICATE, "Basic realm=\"test\"")
            .body(Body::empty())
            .unwrap();
    }
    if let Some(status) = shared.failure.filter(|_| path != "/v2/") {
        return status_only(status);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    match method {
        Method::POST => Response::builder()
            .status(StatusCode::ACCEPTED)
            .header(header::LOCATION, format!("{path}upload"))
            .body(Body::empty())
            .unwrap(),
        Method::PUT => {
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            let digest = Digest::sha256(&bytes).to_string();
            let kind = parts.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
            shared.content.lock().unwrap().insert(digest.clone(), (kind, bytes));
            Response::builder()
                .status(StatusCode::CREATED)
                .header("docker-content-digest", digest)
                .body(Body::empty())
                .unwrap()
        }
        _ if path == "/v2/" => status_only(StatusCode::OK),
        _ => match shared.content.lock().unwrap().get(name).cloned() {
            Some((kind, bytes)) => Response::builder()
                .header(header::CONTENT_TYPE, kind)
                .header(header::CONTENT_LENGTH, bytes.len())
                .header("docker-content-digest", name)
                .body(if method == Method::HEAD { Body::empty() } else { Body::from(bytes) })
                .unwrap(),
            None => status_only(StatusCode::NOT_FOUND),
        },
    }
}

fn status_only(status: StatusCode) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}
