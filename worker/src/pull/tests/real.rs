//! From a real registry, pushed by skopeo.

use serde_json::json;
use slipway_blobstore::ObjectKey;
use slipway_domain::BuiltImage;
use slipway_domain::failure::FailureKind;
use slipway_domain::log::StepStatus;
use slipway_domain::spec::PullSpec;
use slipway_oci::{Descriptor, Digest, MediaType, Platform};
use slipway_registry::ManifestReader;
use slipway_testkit::{DockerRegistry, RegistryAuth};

use super::bench::{Bench, repository, spec};
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
    let index = content.index(&[arm.clone(), amd.clone()]);
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
    let other = PullSpec { platform: "linux/arm64".into(), ..spec(&image) };
    assert_eq!(bench.pull_for(2, &other).await.0.unwrap().digest, arm.digest);

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
    let built = bench.pull(&image).await.0.unwrap();
    assert_as_in_source(&bench, &image, &built).await;
    let (again, _) = bench.pull(&format!("{}/app:v2", registry.address())).await;
    assert_eq!(again.unwrap_err().kind, FailureKind::ImageNotFound);
}

/// What the source has under a tag is what the store has under the digest:
/// the manifest byte for byte, and so all that it names by digest.
async fn assert_as_in_source(bench: &Bench, image: &str, built: &BuiltImage) {
    let ran = tokio::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{image}")])
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(Digest::sha256(&ran.stdout), built.digest);
    let stored = bench.store.get_bytes(&ObjectKey::Blob(built.digest), 4 << 20).await.unwrap();
    assert_eq!(stored, ran.stdout);
    let manifest: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), built.layers as usize);
    for blob in layers.iter().chain([&manifest["config"]]) {
        let digest: Digest = blob["digest"].as_str().unwrap().parse().unwrap();
        let bytes = bench.store.get_bytes(&ObjectKey::Blob(digest), 1 << 20).await.unwrap();
        assert_eq!(Digest::sha256(&bytes), digest);
    }
}

/// As images of Docker-in-Docker and k3s are made: dozens of layers, some of
/// them empty and listed many times, volumes, an entrypoint that is a shell's
/// odd command, ports, labels, a health check, and history that names it all.
fn shaped(content: &mut Content, layers: &[Descriptor]) -> Descriptor {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
    let config = json!({
        "os": "linux", "architecture": "amd64", "created": "2026-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/bin/sh", "-c", "exec dockerd-entrypoint.sh \"$@\" # ünïcode\n", "--"],
            "Cmd": [], "User": "0:0", "WorkingDir": "/", "StopSignal": "SIGQUIT",
            "Volumes": { "/var/lib/docker": {}, "/var/lib/kubelet": {}, "/var/lib/rancher/k3s": {} },
            "ExposedPorts": { "2375/tcp": {}, "2376/tcp": {} },
            "Env": ["PATH=/bin:/bin/aux", "CRI_CONFIG_FILE=/x y", "EMPTY="],
            "Healthcheck": { "Test": ["CMD-SHELL", "docker info"], "Interval": 30_000_000_000_u64 },
            "Labels": { "": "an empty key", "a.b/c": "<&>" }, "OnBuild": ["RUN true"],
        },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
        "history": [{ "created_by": "VOLUME [/var/lib/docker]", "empty_layer": true }],
    });
    let config = content.blob(MediaType::OciImageConfig, config.to_string());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::OciManifest, "config": config,
        "layers": layers, "annotations": { "made.by": "a test" },
    });
    content.document(MediaType::OciManifest, &manifest)
}

#[tokio::test]
async fn images_shaped_like_docker_in_docker_and_k3s_come_through_unchanged() {
    let registry = DockerRegistry::start(RegistryAuth::None).await;
    let mut content = Content::default();
    let empty = content.blob(MediaType::OciLayerGzip, gzip(&[0; 1024]));
    let mut layers = vec![];
    for seed in 0..30 {
        let file = tar(&format!("file-{seed}"), &noise(seed * 2 + 1, 20_000));
        layers.push(content.blob(MediaType::OciLayerGzip, gzip(&file)));
        layers.push(empty.clone());
    }
    // A base of the newer form, and one layer as it was before compression.
    let plain = tar("plain", &noise(77, 30_000));
    let mixed = [
        content.blob(MediaType::OciLayerZstd, zstd(&plain).await),
        content.blob(MediaType::OciLayer, plain),
    ];
    let oci = shaped(&mut content, &[&layers[..], &mixed].concat());
    let docker = shaped(&mut content, &layers);

    let bench = Bench::new();
    for (tag, root, how) in
        [("k3s", &oci, &["--preserve-digests"][..]), ("dind", &docker, &["--format", "v2s2"][..])]
    {
        let image = format!("{}/rancher/nested:{tag}", registry.address());
        push(&content, root, how, &image).await;
        let built = bench.pull(&image).await.0.unwrap();
        assert!(built.layers >= 60, "{built:?}");
        assert_eq!(built.entrypoint.len(), 4, "{built:?}");
        assert_as_in_source(&bench, &image, &built).await;
    }
}

#[tokio::test]
async fn a_registry_with_a_login_says_what_to_do() {
    let registry = DockerRegistry::start(RegistryAuth::Password).await;
    let (pulled, _) = Bench::new().pull(&format!("{}/app:1", registry.address())).await;
    let failure = pulled.unwrap_err();
    assert_eq!(failure.kind, FailureKind::RegistryUnauthorized);
    assert!(failure.message.ends_with("add a credential for it"), "{}", failure.message);
}
