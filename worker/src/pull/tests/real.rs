//! From a real registry, pushed by skopeo.

use slipway_blobstore::ObjectKey;
use slipway_domain::failure::FailureKind;
use slipway_domain::log::StepStatus;
use slipway_oci::{Descriptor, MediaType, Platform};
use slipway_registry::ManifestReader;
use slipway_testkit::{DockerRegistry, RegistryAuth};

use super::bench::{Bench, repository};
use super::image::{Content, gzip, noise, tar, zstd};

async fn push(content: &Content, root: &Descriptor, more: &[&str], to: &str) {
    let folder = tempfile::tempdir().unwrap();
    content.write_layout(folder.path(), root);
    let from = format!("oci:{}:image", folder.path().display());
    let mut command = tokio::process::Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]).args(more);
    let ran = command.args([&from, &format!("docker://{to}")]).kill_on_drop(true).output().await;
    let ran = ran.expect("skopeo is missing. Remedy: `apt-get install skopeo`, or `make deps`");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// Layers of every kind, more of them than at once; the empty one twice.
async fn layers(content: &mut Content) -> Vec<Descriptor> {
    let mut layers = Vec::new();
    for seed in 0..6 {
        let file = tar("file", &noise(seed, 400_000));
        layers.push(match seed % 3 {
            0 => content.blob(MediaType::OciLayerGzip, gzip(&file)),
            1 => content.blob(MediaType::OciLayerZstd, zstd(&file).await),
            _ => content.blob(MediaType::OciLayer, file),
        });
    }
    let empty = content.blob(MediaType::OciLayerGzip, gzip(&[0; 1024]));
    layers.extend([empty.clone(), empty]);
    layers
}

#[tokio::test]
async fn an_image_comes_through_byte_for_byte() {
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let mut content = Content::default();
    let layers = layers(&mut content).await;
    let arm = content.image("linux/arm64", &[]);
    let amd = content.image("linux/amd64", &layers);
    let index = content.index(&[arm, amd.clone()]);
    let image = format!("{}/team/app:1", registry.address());
    push(&content, &index, &["--all", "--preserve-digests"], &image).await;

    let bench = Bench::new();
    let (built, said) = bench.pull(&image).await;
    let built = built.unwrap();
    assert_eq!((built.digest, built.layers), (amd.digest, 8));
    assert_eq!((built.total_steps, built.cached_steps), (7, 0));
    assert_eq!(built.entrypoint, ["/entry"]);
    let manifest = &content.manifests[&amd.digest].1;
    let stored = bench.store.get_bytes(&ObjectKey::Blob(amd.digest), 1 << 20).await.unwrap();
    assert_eq!(&stored, manifest);
    for layer in &layers {
        let stored = bench.store.get_bytes(&ObjectKey::Blob(layer.digest), 1 << 20).await.unwrap();
        assert_eq!(stored, content.blobs[&layer.digest]);
        let linked = bench.puller.registry.has_blob(&repository(1), layer).await.unwrap();
        assert!(linked);
    }
    let reader = ManifestReader::new(bench.store.clone());
    let read = reader.image(&amd.digest, &Platform::linux_amd64()).await.unwrap();
    assert_eq!(read.compressed_size(), built.size);
    // Seven blobs and a config with a link each, and the manifest with one.
    assert_eq!((bench.keys().await.len(), bench.links().await.len()), (18, 9));

    assert_eq!(said.lines[0], format!("#1 resolve {image}"));
    let found =
        format!("#1 {} for linux/amd64 from {}: 8 layers, ", amd.digest, registry.address());
    assert!(said.lines[1].starts_with(&found), "{}", said.lines[1]);
    let first = layers.iter().max_by_key(|layer| layer.size).unwrap();
    let part = &first.digest.to_string()[..19];
    assert!(said.lines.contains(&format!("#2 {part} 0B / 401.9kB")), "{:#?}", said.lines);
    let done = said.lines.iter().filter(|line| line.contains(" done ")).count();
    assert_eq!((done, said.lines.len()), (7, 18));
    assert_eq!(said.lines[17], format!("#3 publish {}", amd.digest));
    let last = said.steps.iter().rfind(|step| step.part.as_deref() == Some(part)).unwrap();
    assert_eq!((last.status, last.current), (StepStatus::Done, Some(first.size)));
}

#[tokio::test]
async fn docker_schema_2_comes_through() {
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, gzip(&tar("file", b"hello")));
    let root = content.image("linux/amd64", &[layer]);
    let image = format!("{}/app:v1", registry.address());
    push(&content, &root, &["--format", "v2s2"], &image).await;
    let bench = Bench::new();
    bench.pull(&image).await.0.unwrap();
    let (again, _) = bench.pull(&format!("{}/app:v2", registry.address())).await;
    assert_eq!(again.unwrap_err().kind, FailureKind::ImageNotFound);
}

#[tokio::test]
async fn a_registry_with_a_login_says_what_to_do() {
    let registry = DockerRegistry::start(RegistryAuth::Password).await;
    let (pulled, _) = Bench::new().pull(&format!("{}/app:1", registry.address())).await;
    let failure = pulled.unwrap_err();
    assert_eq!(failure.kind, FailureKind::RegistryUnauthorized);
    assert!(failure.message.ends_with("add a credential for it"), "{}", failure.message);
}
