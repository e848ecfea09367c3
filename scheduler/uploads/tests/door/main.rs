//! The door for uploads, driven by Amazon's client for Python over TLS.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use slipway_blobstore::{ObjectKey, Prefix, Store};
use slipway_bus::topology::Topology;
use slipway_domain::OrganizationId;
use slipway_oci::Digest;
use slipway_testkit::{NatsServer, stack};
use slipway_uploads::door::{Door, Listening};
use slipway_uploads::{Contexts, Keys, config};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Largest context of these tests.
const LIMIT: u64 = 16 << 20;

struct Server {
    store: Store,
    contexts: Contexts,
    keys: Arc<Keys>,
    url: String,
    folder: TempDir,
    _tasks: JoinSet<()>,
    _nats: NatsServer,
}

fn organization() -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(0xa))
}

/// An authority, and an identity for loopback that it signed.
fn identity(folder: &TempDir) -> config::Tls {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("door.pem"), certificate.pem()).unwrap();
    std::fs::write(path("door.key"), key.serialize_pem()).unwrap();
    config::Tls { cert: path("door.pem"), key: path("door.key") }
}

async fn serve() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().join("contexts").display());
    let store = Store::open(&slipway_blobstore::Config::new(url.parse().unwrap())).unwrap();
    let nats = NatsServer::start().await;
    let config = slipway_bus::Config::new(nats.url(), "test");
    let bus = slipway_bus::connect(&config).await.unwrap();
    bus.ensure(&Topology::single("us".parse().unwrap())).await.unwrap();
    let contexts = Contexts::new(store.clone(), &bus);
    let keys = Arc::new(Keys::load(&bus).await.unwrap());
    let door = config::Door {
        listen: "127.0.0.1:0".parse().unwrap(),
        url: None,
        bucket: "slipway".into(),
        tls: Some(identity(&folder)),
    };
    let listening = Listening::open(&door).await.unwrap();
    let (url, stop) = (listening.url(), CancellationToken::new());
    let served = listening.serve(Door::new(contexts.clone(), keys.clone(), LIMIT), stop);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { served.await.unwrap() });
    Server { store, contexts, keys, url, folder, _tasks: tasks, _nats: nats }
}

impl Server {
    /// What the client is told.
    fn told(&self) -> Value {
        let now = Timestamp::now();
        let key = self.keys.issue(organization(), now);
        let old = self.keys.issue(organization(), now - SignedDuration::from_hours(2));
        json!({
            "url": self.url,
            "bucket": "slipway",
            "organization": organization().to_string(),
            "foreign": Uuid::from_u128(0xb).to_string(),
            "authority": self.folder.path().join("ca.pem"),
            "limit": LIMIT,
            "accessKey": key.access_key,
            "secret": key.secret.expose_secret(),
            "sessionToken": key.session_token.expose_secret(),
            "expired": {
                "accessKey": old.access_key,
                "secret": old.secret.expose_secret(),
                "sessionToken": old.session_token.expose_secret(),
            },
        })
    }

    /// What the client saw.
    async fn run(&self, check: &str) -> Value {
        let python = stack::folder().join("venv/bin/python");
        assert!(python.exists(), "boto3 is not here. Remedy: `make deps`");
        let mut command = tokio::process::Command::new(python);
        command.arg("-I").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/door/client.py"));
        command.arg(check).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.env("AWS_EC2_METADATA_DISABLED", "true").kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(self.told().to_string().as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    async fn keys(&self, prefix: &Prefix) -> Vec<String> {
        use futures::TryStreamExt as _;
        let list: Vec<_> = self.store.list(prefix).try_collect().await.unwrap();
        list.into_iter().map(|entry| entry.key.to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_come_and_go_in_every_form_that_clients_use() {
    let server = serve().await;
    let mut seen = server.run("whole").await;
    // Only a client with Amazon's native library sends this one.
    seen["forms"].as_object_mut().unwrap().remove("CRC32C");
    let expected = json!({
        "head_bucket": 200, "location": null, "head_before": "404", "put": 200, "size": 13,
        "same_etag": true, "get": "hello context", "range": "context",
        "marker": 200, "full_marker": "InvalidArgument",
        "forms": {
            "unsigned": 200, "signed": 200, "no_checksum": 200,
            "CRC32": true, "SHA1": true, "SHA256": true,
        },
    });
    assert_eq!(seen, expected);
    let identity = server.contexts.identity(organization(), &"a".repeat(32)).await.unwrap();
    assert_eq!(identity.unwrap().digest, Digest::sha256("hello context"));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_contexts_come_in_parts() {
    let server = serve().await;
    let seen = server.run("parts").await;
    let identity = server.contexts.identity(organization(), &"c".repeat(32)).await.unwrap();
    let expected = json!({
        "same": true, "sha256": identity.unwrap().digest.hex(),
        "wrong_etag": "InvalidPart", "missing_part": "InvalidPart",
        "too_large": "EntityTooLarge", "other_object": "NoSuchUpload",
        "abort": 204, "nothing_left": "404",
    });
    assert_eq!(seen, expected);
    assert_eq!(server.keys(&Prefix::Uploads).await, Vec::<String>::new(), "no part is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_its_organization_s_contexts_and_nothing_else() {
    let server = serve().await;
    let foreign = ObjectKey::Context {
        organization: Uuid::from_u128(0xb),
        hash: "e".repeat(32).parse().unwrap(),
    };
    server.store.put_bytes(&foreign, "theirs").await.unwrap();
    let seen = server.run("refusals").await;
    let expected = json!({
        "foreign_put": "AccessDenied", "foreign_get": "AccessDenied",
        "foreign_list": "AccessDenied", "list_all": "AccessDenied",
        "list_part_of_name": "AccessDenied", "other_name": "AccessDenied",
        "other_bucket": "NoSuchBucket", "buckets": "AccessDenied", "delete": "NotImplemented",
        "wrong_secret": "SignatureDoesNotMatch", "wrong_token": "InvalidToken",
        "no_token": "InvalidToken", "unknown_key": "InvalidAccessKeyId",
        "expired": "ExpiredToken", "wrong_checksum": "BadDigest", "wrong_md5": "BadDigest",
        "too_large": "EntityTooLarge", "nothing_stored": "404",
    });
    assert_eq!(seen, expected);
    assert_eq!(server.keys(&Prefix::All).await, [foreign.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_have_pages_and_folders() {
    let server = serve().await;
    let seen = server.run("pages").await;
    let expected = json!({
        "pages": [3, 3, 1], "in_order": true, "flat": [true], "folders": 2, "more": true,
    });
    assert_eq!(seen, expected);
}
