//! A registry on a free port over a folder, with two organizations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use slipway_blobstore::{Config, ObjectKey, Prefix, Store};
use slipway_domain::OrganizationId;
use slipway_oci::{Descriptor, Digest, MediaType};
use slipway_registry::{
    Access, Counts, Limits, Options, Registry, Scope, StaticAuthorizer, router,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

pub const ALICE: &str = "secret-of-alice";
pub const BOB: &str = "secret-of-bob";

pub struct Server {
    pub address: String,
    pub registry: Registry,
    pub authorizer: Arc<StaticAuthorizer>,
    pub store: Store,
    pub folder: TempDir,
    http: reqwest::Client,
    _tasks: JoinSet<()>,
}

pub fn organization(number: u128) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(number))
}

pub fn full_access(number: u128) -> Access {
    Access { organization: organization(number), pull: Scope::Everything, push: Scope::Everything }
}

/// A repository of the organization with that number: 1 is Alice's, 2 Bob's.
pub fn repository(number: u128, name: &str) -> String {
    format!("{}/{name}", organization(number))
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(options: impl Into<Options>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display()).parse().unwrap();
        let store = Store::open(&Config::new(url)).unwrap();
        Self::over(store, folder, options.into()).await
    }

    /// Over any store; the folder is kept as long as the server.
    pub async fn over(store: Store, folder: TempDir, options: Options) -> Self {
        let authorizer = Arc::new(StaticAuthorizer::new());
        authorizer.insert(&ALICE.into(), full_access(1));
        authorizer.insert(&BOB.into(), full_access(2));
        let registry = Registry::new(store.clone(), authorizer.clone(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut tasks = JoinSet::new();
        let routes = router(registry.clone());
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let http = reqwest::Client::new();
        Self { address, registry, authorizer, store, folder, http, _tasks: tasks }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    pub fn request(&self, secret: &str, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).basic_auth("any", Some(secret))
    }

    pub fn alice(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(ALICE, method, path)
    }

    pub fn bob(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(BOB, method, path)
    }

    pub fn counts(&self) -> Counts {
        self.registry.metrics().counts()
    }

    /// Begins an upload of Alice's and returns its path.
    pub async fn begin(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        let answer = self.alice(Method::POST, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        assert!(answer.headers().contains_key("docker-upload-uuid"));
        location(&answer)
    }

    /// Pushes a blob as BuildKit does: `POST`, then one `PUT`.
    pub async fn push(&self, secret: &str, repository: &str, content: impl Into<Bytes>) -> Digest {
        let content = content.into();
        let digest = Digest::sha256(&content);
        let path = format!("/v2/{repository}/blobs/uploads/");
        let begun = self.request(secret, Method::POST, &path).send().await.unwrap();
        let put = format!("{}?digest={digest}", location(&begun));
        let answer = self.request(secret, Method::PUT, &put).body(content).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        assert_eq!(header(&answer, "docker-content-digest"), digest.to_string());
        digest
    }

    /// Pushes an image of one layer and returns its manifest.
    pub async fn push_image(&self, repository: &str, tag: &str) -> Descriptor {
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#;
        let layer = format!("layer of {repository} {tag}");
        self.push(ALICE, repository, &config[..]).await;
        self.push(ALICE, repository, layer.clone()).await;
        let manifest = manifest(config, layer.as_bytes());
        let answer = self.put_manifest(repository, tag, OCI_MANIFEST, &manifest).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        Descriptor::of(MediaType::OciManifest, &bytes)
    }

    pub async fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        manifest: &Value,
    ) -> Response {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let body = serde_json::to_vec(manifest).unwrap();
        let request = self.alice(Method::PUT, &path).header("content-type", media_type);
        request.body(body).send().await.unwrap()
    }

    /// Waits until so many bytes of blobs have arrived.
    pub async fn await_bytes(&self, count: u64) {
        for _ in 0..400 {
            if self.counts().bytes_received >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("only {} of {count} bytes arrived", self.counts().bytes_received);
    }

    pub async fn stored_keys(&self) -> Vec<ObjectKey> {
        let entries = self.store.list(&Prefix::All);
        entries.map_ok(|entry| entry.key).try_collect().await.unwrap()
    }

    /// Waits until no file at all is left but those of `keys`; what a vanished
    /// client leaves is cleared away in the background.
    pub async fn assert_only(&self, keys: &[ObjectKey]) {
        let mut expected: Vec<String> = keys.iter().map(ToString::to_string).collect();
        expected.sort();
        let mut found = Vec::new();
        for _ in 0..200 {
            found = files(self.folder.path());
            if found == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("found {found:?} instead of {expected:?}");
    }
}

fn files(root: &std::path::Path) -> Vec<String> {
    let mut folders = vec![root.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn manifest(config: &[u8], layer: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor::of(MediaType::OciImageConfig, config),
        "layers": [Descriptor::of(MediaType::OciLayerGzip, layer)],
    })
}

/// Larger than several parts of a local folder's upload.
pub fn large() -> Bytes {
    (0..5_000_003_usize).map(|at| (at % 251 + at / 65_521) as u8).collect()
}

pub fn header(answer: &Response, name: &str) -> String {
    let value = answer.headers().get(name);
    value.unwrap_or_else(|| panic!("no {name}")).to_str().unwrap().to_owned()
}

pub fn location(answer: &Response) -> String {
    header(answer, "location")
}

/// The status and the first error code of an answer in the specified form.
pub async fn error(answer: Response) -> (StatusCode, String) {
    let status = answer.status();
    assert_eq!(header(&answer, "content-type"), "application/json");
    let body: Value = answer.json().await.unwrap();
    assert!(body["errors"][0]["message"].is_string());
    (status, body["errors"][0]["code"].as_str().unwrap().to_owned())
}
