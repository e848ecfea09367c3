//! A real client pushes an image and pulls it back.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};
use slipway_blobstore::Store;
use slipway_domain::OrganizationId;
use slipway_oci::{Descriptor, Digest, MediaType, Platform};
use slipway_registry::{Access, Limits, ManifestReader, Registry, Scope, StaticAuthorizer, router};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

struct Stack {
    registry: Registry,
    store: Store,
    repository: String,
    folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Stack {
    async fn start() -> Self {
        let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
        let access = Access { organization, pull: Scope::Everything, push: Scope::Everything };
        let authorizer = StaticAuthorizer::new();
        authorizer.insert(&"secret".into(), access);
        let store = Store::in_memory();
        let registry = Registry::new(store.clone(), Arc::new(authorizer), Limits::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let routes = router(registry.clone());
        tasks.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        let repository = format!("{address}/{organization}/snapshots");
        let folder = tempfile::tempdir().unwrap();
        Self { registry, store, repository, folder, _tasks: tasks }
    }

    fn layout(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn skopeo(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = tokio::process::Command::new("skopeo");
        command.args(["--insecure-policy", "copy", "--preserve-digests", "--all"]);
        let ran = command.args(arguments).output().await;
        let ran = ran.expect("skopeo must be installed: `apt-get install skopeo`, or `make deps`");
        if ran.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&ran.stderr).into_owned())
        }
    }

    async fn push(&self, layout: &str, tag: &str) -> Result<(), String> {
        let (from, to) =
            (format!("oci:{layout}:image"), format!("docker://{}:{tag}", self.repository));
        let credentials = ["--dest-tls-verify=false", "--dest-creds", "any:secret"];
        self.skopeo(&[&credentials[..], &[&from, &to]].concat()).await
    }

    async fn pull(&self, reference: &str, layout: &str) -> Result<(), String> {
        let from = format!("docker://{}{reference}", self.repository);
        let to = format!("oci:{layout}:image");
        let credentials = ["--src-tls-verify=false", "--src-creds", "any:secret"];
        self.skopeo(&[&credentials[..], &[&from, &to]].concat()).await
    }
}

/// Writes an OCI layout with an image of two layers; returns its digest.
fn write_layout(root: &str, remark: &str) -> Digest {
    let root = Path::new(root);
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    let put = |media_type: MediaType, bytes: &[u8]| {
        let descriptor = Descriptor::of(media_type, bytes);
        std::fs::write(root.join("blobs/sha256").join(descriptor.digest.hex()), bytes).unwrap();
        descriptor
    };
    // The second layer is larger than a part of an upload, and random: it
    // stays large when it is compressed.
    let random: Vec<u8> = (0..200_000).flat_map(|_| Uuid::new_v4().into_bytes()).collect();
    let contents = [remark.as_bytes().to_vec(), random];
    let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
    for content in contents {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), content).unwrap();
        let tar = run(Command::new("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "file"]));
        std::fs::write(folder.path().join("tar"), &tar).unwrap();
        let gzip = run(Command::new("gzip").arg("-nc").arg(folder.path().join("tar")));
        diff_ids.push(Digest::sha256(&tar));
        layers.push(put(MediaType::OciLayerGzip, &gzip));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": { "Entrypoint": ["/file"], "Cmd": ["argument"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(MediaType::OciImageConfig, &serde_json::to_vec(&config).unwrap());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest,
        "config": config, "layers": layers,
    });
    let manifest = put(MediaType::OciManifest, &serde_json::to_vec(&manifest).unwrap());
    let digest = manifest.digest;
    let mut manifest = serde_json::to_value(manifest).unwrap();
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "image" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(root.join("index.json"), index.to_string()).unwrap();
    std::fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    digest
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn digest_in(layout: &str) -> Digest {
    let index = std::fs::read(Path::new(layout).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    serde_json::from_value(index["manifests"][0]["digest"].clone()).unwrap()
}

#[tokio::test]
async fn an_image_goes_in_and_comes_out_the_same() {
    let stack = Stack::start().await;
    let source = stack.layout("source");
    let digest = write_layout(&source, "hello");
    stack.push(&source, "v1").await.unwrap();

    for (number, reference) in [":v1".to_owned(), format!("@{digest}")].iter().enumerate() {
        let back = stack.layout(&format!("back-{number}"));
        stack.pull(reference, &back).await.unwrap();
        assert_eq!(digest_in(&back), digest);
        for blob in std::fs::read_dir(Path::new(&source).join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            let copy = Path::new(&back).join("blobs/sha256").join(blob.file_name());
            assert!(std::fs::read(blob.path()).unwrap() == std::fs::read(copy).unwrap());
        }
    }

    let reader = ManifestReader::new(stack.store.clone());
    let image = reader.image(&digest, &Platform::linux_amd64()).await.unwrap();
    assert_eq!(
        (image.entrypoint(), image.cmd()),
        (&["/file".into()][..], &["argument".into()][..])
    );
    assert!(image.compressed_size() > 3_000_000);
}

#[tokio::test]
async fn a_second_push_sends_no_blob() {
    let stack = Stack::start().await;
    let source = stack.layout("source");
    write_layout(&source, "hello");
    stack.push(&source, "v1").await.unwrap();
    let first = stack.registry.metrics().counts();
    assert_eq!(first.blobs_received, 3);
    stack.push(&source, "v2").await.unwrap();
    let second = stack.registry.metrics().counts();
    assert_eq!(second.blobs_received, 3);
    assert_eq!(second.bytes_received, first.bytes_received);
    assert_eq!(second.manifests_received, 2);
}

#[tokio::test]
async fn a_client_without_rights_is_told_so() {
    let mut stack = Stack::start().await;
    let source = stack.layout("source");
    write_layout(&source, "hello");
    let foreign = Uuid::from_u128(2).to_string();
    stack.repository = stack.repository.replace(&Uuid::from_u128(1).to_string(), &foreign);
    let error = stack.push(&source, "v1").await.unwrap_err();
    assert!(error.contains("denied"), "{error}");
    let error = stack.pull(":v1", &stack.layout("back")).await.unwrap_err();
    assert!(error.contains("name unknown"), "{error}");
}
