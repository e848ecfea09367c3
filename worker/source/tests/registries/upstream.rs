//! A registry that plays its part, until a test's hook answers instead.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use slipway_oci::{Descriptor, Digest};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::image::Content;

/// What a request looked like.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn is_blob(&self) -> bool {
        self.path.contains("/blobs/")
    }

    pub fn is_manifest(&self) -> bool {
        self.path.contains("/manifests/")
    }
}

type Hook = dyn FnMut(&Seen) -> Option<Response> + Send;

struct Inner {
    content: Content,
    tag: Digest,
    hook: Box<Hook>,
    seen: Vec<Seen>,
}

/// The server; it ends on drop.
pub struct Upstream {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    _tasks: JoinSet<()>,
}

impl Upstream {
    /// Serves `content`; every tag is `root`.
    pub async fn start(content: Content, root: &Descriptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (routes, inner) = with_state(content, root);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, inner, _tasks: tasks }
    }

    /// Serves nothing but what hooks answer.
    pub async fn empty() -> Self {
        let mut content = Content::default();
        let root = content.image("linux/amd64", &[]);
        Self::start(Content::default(), &root).await
    }

    /// Lets `hook` answer first.
    pub fn hook(&self, hook: impl FnMut(&Seen) -> Option<Response> + Send + 'static) {
        self.inner.lock().unwrap().hook = Box::new(hook);
    }

    /// The name of an image in it, `…/team/app:1`.
    pub fn image(&self) -> String {
        format!("{}/team/app:1", self.address)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Requests so far, but for the greeting.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = self.inner.lock().unwrap().seen.clone();
        seen.into_iter().filter(|seen| seen.path != "/v2/").collect()
    }
}

/// The routes of such a registry, to be served by any server.
pub fn routes(content: Content, root: &Descriptor) -> Router {
    with_state(content, root).0
}

fn with_state(content: Content, root: &Descriptor) -> (Router, Arc<Mutex<Inner>>) {
    let inner =
        Inner { content, tag: root.digest, hook: Box::new(|_: &Seen| None), seen: Vec::new() };
    let inner = Arc::new(Mutex::new(inner));
    (Router::new().fallback(serve).with_state(inner.clone()), inner)
}

async fn serve(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let seen = Seen {
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let mut inner = inner.lock().unwrap();
    inner.seen.push(seen.clone());
    let answer = (inner.hook)(&seen);
    answer.unwrap_or_else(|| inner.serve(&seen))
}

impl Inner {
    fn serve(&self, seen: &Seen) -> Response {
        let Some((_, name)) = seen.path.rsplit_once('/') else { return not_found() };
        if seen.is_manifest() {
            let digest = name.parse().unwrap_or(self.tag);
            let Some((media_type, bytes)) = self.content.manifests.get(&digest) else {
                return not_found();
            };
            return ([(header::CONTENT_TYPE, media_type.to_string())], bytes.clone())
                .into_response();
        }
        let blob = name.parse().ok().and_then(|digest: Digest| self.content.blobs.get(&digest));
        let Some(bytes) = blob.filter(|_| seen.is_blob()) else { return not_found() };
        let Some(range) = seen.header("range") else { return bytes.clone().into_response() };
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
        let content_range = format!("bytes {start}-{}/{}", end - 1, bytes.len());
        let part = bytes.slice(start..end);
        (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, content_range)], part)
            .into_response()
    }
}

fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "not known")
}

/// An answer in the form of the specification.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = serde_json::json!({ "errors": [{ "code": code, "message": message }] });
    (status, axum::Json(body)).into_response()
}

pub fn redirect(to: impl Into<String>) -> Response {
    (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to.into())]).into_response()
}

/// A body that promises `length` bytes, whatever comes.
pub fn promising(length: usize, body: Body) -> Response {
    // As a stream it has no length of its own that could contradict.
    let body = Body::from_stream(body.into_data_stream());
    ([(header::CONTENT_LENGTH, length.to_string())], body).into_response()
}
