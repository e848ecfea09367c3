//! Clients over TLS, with an authority of one's own.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use slipway_blobstore::Store;
use slipway_domain::OrganizationId;
use slipway_registry::tls::{Error, Identity};
use slipway_registry::{Access, Limits, Registry, Scope, StaticAuthorizer, router};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

struct Files {
    folder: TempDir,
}

impl Files {
    /// An authority, and a certificate for loopback that it signed.
    fn write() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let files = Self { folder };
        std::fs::create_dir(files.path("authority")).unwrap();
        std::fs::write(files.path("authority/ca.crt"), authority.pem()).unwrap();
        std::fs::write(files.path("server.pem"), certificate.pem()).unwrap();
        std::fs::write(files.path("server.key"), key.serialize_pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn identity(&self) -> Result<Identity, Error> {
        Identity::load(&self.path("server.pem"), &self.path("server.key"))
    }
}

async fn serve(files: &Files, tasks: &mut JoinSet<()>) -> SocketAddr {
    let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
    let access = Access { organization, pull: Scope::Everything, push: Scope::Everything };
    let authorizer = StaticAuthorizer::new();
    authorizer.insert(&"secret".into(), access);
    let registry = Registry::new(Store::in_memory(), Arc::new(authorizer), Limits::default());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = files.identity().unwrap().listen(any).await.unwrap();
    let address = listener.address().unwrap();
    tasks.spawn(async move { axum::serve(listener, router(registry)).await.unwrap() });
    address
}

async fn skopeo(arguments: &[&str]) -> Result<(), String> {
    let mut command = tokio::process::Command::new("skopeo");
    let ran = command.arg("--insecure-policy").args(arguments).output().await;
    let ran = ran.expect("skopeo must be installed: `apt-get install skopeo`, or `make deps`");
    if ran.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[tokio::test]
async fn skopeo_pushes_and_pulls_under_an_authority_of_ones_own() {
    let (files, mut tasks) = (Files::write(), JoinSet::new());
    let address = serve(&files, &mut tasks).await;
    let layout = files.path("layout");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let config =
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let put = |bytes: &[u8]| {
        let digest = slipway_oci::Digest::sha256(bytes);
        std::fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let (digest, size) = put(config);
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size
        },
        "layers": [],
    });
    let (digest, size) = put(&serde_json::to_vec(&manifest).unwrap());
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size,
        "annotations": { "org.opencontainers.image.ref.name": "image" },
    }] });
    std::fs::write(layout.join("index.json"), index.to_string()).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

    let source = format!("oci:{}:image", layout.display());
    let target = format!("docker://{address}/{}/a:v1", Uuid::from_u128(1));
    let authority = files.path("authority").display().to_string();
    let trusted = ["--dest-cert-dir", &authority, "--dest-creds", "any:secret"];
    skopeo(&[&["copy"][..], &trusted, &[&source, &target]].concat()).await.unwrap();
    let back = format!("oci:{}:image", files.path("back").display());
    let trusted = ["--src-cert-dir", &authority, "--src-creds", "any:secret"];
    skopeo(&[&["copy"][..], &trusted, &[&target, &back]].concat()).await.unwrap();
    assert!(files.path("back/blobs/sha256").join(digest.hex()).is_file());

    // Whoever does not know the authority does not go on, nor fall back.
    let error = skopeo(&["inspect", "--creds", "any:secret", &target]).await.unwrap_err();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn clients_that_do_not_shake_hands_keep_nobody_waiting() {
    let (files, mut tasks) = (Files::write(), JoinSet::new());
    let address = serve(&files, &mut tasks).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let mut plain = TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET /v2/ HTTP/1.1\r\n\r\n").await.unwrap();
    let authority = std::fs::read(files.path("authority/ca.crt")).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = format!("https://localhost:{}/v2/", address.port());
    let ping = client.get(url).bearer_auth("secret").send();
    let ping = tokio::time::timeout(Duration::from_secs(9), ping).await.unwrap().unwrap();
    assert_eq!(ping.status(), 200);
    let mut answer = Vec::new();
    // What comes is a TLS alert or nothing, and the end.
    let _closed = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[test]
fn files_that_are_no_certificate_and_key_are_named() {
    let files = Files::write();
    let other = Files::write();
    std::fs::copy(other.path("server.key"), files.path("server.key")).unwrap();
    assert!(matches!(files.identity(), Err(Error::Unusable(_))));
    std::fs::write(files.path("server.key"), "nonsense").unwrap();
    let error = files.identity().unwrap_err();
    assert!(error.to_string().contains("server.key"), "{error}");
    std::fs::remove_file(files.path("server.pem")).unwrap();
    assert!(matches!(files.identity(), Err(Error::Read { .. })));
    std::fs::write(files.path("server.pem"), "").unwrap();
    assert!(files.identity().is_err());
}
