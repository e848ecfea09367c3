//! The build executor on the real BuildKit, with the registry routes and the
//! contexts that a worker serves.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use slipway_blobstore::ObjectKey;
use slipway_domain::message::VERSION;
use slipway_domain::{AttemptNumber, Class, JobId, LogEvent, OrganizationId, SnapshotId};
use slipway_registry::{Limits, Metrics, Registry};
use slipway_testkit::{DockerRegistry, REGISTRY_PASSWORD, RegistryAuth, stack};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use uuid::Uuid;

use slipway_oci::ImageReference;
use slipway_source::CredentialError;

use super::*;
use crate::credentials::Opened;
use crate::log::LogSink;

/// No credentials for any image.
#[derive(Debug)]
struct Nothing;

#[async_trait]
impl ImageCredentials for Nothing {
    async fn for_images(
        &self,
        _: JobId,
        images: &[ImageReference],
    ) -> Result<Vec<Option<Opened>>, CredentialError> {
        Ok(vec![None; images.len()])
    }
}

/// What the region's registry is called.
const OWN: &str = "registry.test:5000";

struct Bench {
    builder: Builder,
    metrics: Arc<Metrics>,
    _server: tokio::task::JoinHandle<()>,
}

async fn bench() -> Bench {
    bench_with(slipway_source::Config::default(), Arc::new(Nothing)).await
}

async fn bench_with(source: slipway_source::Config, vault: Arc<dyn ImageCredentials>) -> Bench {
    bench_on(&stack::buildkit_endpoint(), source, vault).await
}

#[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
async fn bench_on(
    endpoint: &str,
    source: slipway_source::Config,
    vault: Arc<dyn ImageCredentials>,
) -> Bench {
    let (store, grants) = (Store::in_memory(), Arc::new(StaticAuthorizer::new()));
    let contexts = Contexts::new(store.clone());
    let registry = Registry::new(store.clone(), grants.clone(), Limits::default());
    let metrics = registry.metrics().clone();
    let routes =
        slipway_registry::router(registry.clone()).merge(crate::contexts::router(contexts.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let client = Client::connect(&endpoint.parse().unwrap(), None).await.unwrap();
    let source = slipway_source::Client::new(source).unwrap();
    let counts = crate::metrics::Metrics::new(&slipway_runtime::telemetry::no_meter());
    let builder = Builder {
        client,
        contexts,
        store,
        address,
        registry,
        names: [address.to_string(), OWN.to_owned()].into_iter().collect(),
        grants,
        source,
        vault,
        metrics: counts,
    };
    Bench { builder, metrics, _server: server }
}

fn job(organization: u128, dockerfile: &str) -> JobMessage {
    JobMessage {
        version: VERSION,
        job: JobId::from_uuid(Uuid::new_v4()),
        attempt: AttemptNumber::FIRST,
        organization: OrganizationId::from_uuid(Uuid::from_u128(organization)),
        snapshot: SnapshotId::from_uuid(Uuid::new_v4()),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        spec: JobSpec::Build(BuildSpec {
            dockerfile: dockerfile.to_owned(),
            contexts: vec![],
            context_filtered: false,
            build_args: BTreeMap::new(),
            target: None,
            no_cache: false,
            labels: BTreeMap::new(),
            platform: "linux/amd64".into(),
        }),
        contexts: vec![],
        registries: vec![],
        time_limit_seconds: 60,
    }
}

/// Runs a job and returns its image with the lines of its log.
async fn run(bench: &Bench, job: &JobMessage) -> (Result<BuiltImage, Failure>, Vec<String>) {
    let (sink, mut entries) = LogSink::channel();
    let collect = async {
        let mut lines = vec![];
        while let Some((_, event)) = entries.recv().await {
            if let LogEvent::Line { text, .. } = event {
                lines.push(text);
            }
        }
        lines
    };
    tokio::join!(bench.builder.execute(job, sink), collect)
}

#[tokio::test]
async fn a_second_identical_push_sends_no_blob() {
    let bench = bench().await;
    let dockerfile = format!(
        "FROM {}\nRUN echo {} > /marker\nCMD [\"/marker\"]\n",
        stack::base_image(),
        Uuid::new_v4()
    );
    let first = run(&bench, &job(1, &dockerfile)).await.0.unwrap();
    let before = bench.metrics.counts();
    assert!(before.blobs_received > 0, "{before:?}");
    let second = run(&bench, &job(1, &dockerfile)).await.0.unwrap();
    let after = bench.metrics.counts();
    assert_eq!(second.digest, first.digest);
    assert_eq!(after.bytes_received, before.bytes_received);
    assert_eq!(after.blobs_received, before.blobs_received);
    assert!(second.cached_steps > 0 && second.size == first.size);
    assert_eq!(second.cmd, ["/marker"]);

    // Another organization has to show the bytes: that they are there is no right.
    let foreign = run(&bench, &job(2, &dockerfile)).await.0.unwrap();
    assert_eq!(foreign.digest, first.digest);
    assert!(bench.metrics.counts().blobs_received > after.blobs_received);
}

#[tokio::test]
async fn a_build_can_start_from_a_snapshot_of_its_own_organization_only() {
    let bench = bench().await;
    let base = format!("FROM {}\nRUN echo shared > /shared\n", stack::base_image());
    let image = run(&bench, &job(1, &base)).await.0.unwrap();
    let owner = Uuid::from_u128(1);
    let from = format!(
        "FROM {}/{owner}/snapshots@{}\nRUN cat /shared && echo {}\n",
        bench.builder.address,
        image.digest,
        Uuid::new_v4()
    );
    let (own, lines) = run(&bench, &job(1, &from)).await;
    own.unwrap();
    assert!(lines.iter().any(|line| line.ends_with(" shared")), "{lines:?}");
    let refused = run(&bench, &job(2, &from)).await.0.unwrap_err();
    assert_eq!(refused.kind, FailureKind::BaseImageUnavailable, "{refused:?}");
}

/// A login for one host.
#[derive(Debug)]
struct Login(String);

#[async_trait]
impl ImageCredentials for Login {
    async fn for_images(
        &self,
        _: JobId,
        images: &[ImageReference],
    ) -> Result<Vec<Option<Opened>>, CredentialError> {
        let opened = |image: &ImageReference| {
            (image.domain() == self.0).then(|| Opened {
                id: slipway_domain::CredentialId::from_uuid(Uuid::from_u128(1)),
                name: "mirror".into(),
                path: String::new(),
                credential: slipway_source::Credential::Basic {
                    username: "tester".into(),
                    password: REGISTRY_PASSWORD.to_owned().into(),
                },
            })
        };
        Ok(images.iter().map(opened).collect())
    }
}

/// Puts the base image of tests into a registry.
async fn copy_base(registry: &DockerRegistry, name: &str) {
    let mut command = tokio::process::Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    command.args(["--dest-tls-verify=false", "--dest-creds"]);
    command.arg(format!("tester:{REGISTRY_PASSWORD}"));
    command.arg(format!("docker://{}", stack::base_image()));
    command.arg(format!("docker://{}/{name}", registry.address()));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A mirror of Docker Hub with a login.
async fn mirrored() -> (Bench, DockerRegistry) {
    mirrored_on(&stack::buildkit_endpoint()).await
}

async fn mirrored_on(endpoint: &str) -> (Bench, DockerRegistry) {
    let mirror = DockerRegistry::start(RegistryAuth::Password).await;
    let host = mirror.address().to_string();
    let mirrors = [("docker.io".to_owned(), vec![host.clone()])].into();
    let source = slipway_source::Config { mirrors, ..slipway_source::Config::default() };
    (bench_on(endpoint, source, Arc::new(Login(host))).await, mirror)
}

#[tokio::test]
async fn images_come_from_a_mirror_where_it_has_them() {
    let (bench, mirror) = mirrored().await;
    // Docker Hub has none of these: whoever finds them has asked the mirror.
    let marker = Uuid::new_v4().simple().to_string();
    copy_base(&mirror, &format!("library/{marker}:1.2")).await;
    copy_base(&mirror, &format!("tools/{marker}:latest")).await;
    let dockerfile = format!(
        "ARG BASE={marker}:1.2\nFROM $BASE AS base\n\
         COPY --from=tools/{marker} /bin/busybox /tool\n\
         FROM base\nRUN --mount=type=bind,from=docker.io/tools/{marker},target=/m \
         cmp /m/bin/busybox /tool && echo same {marker}\n"
    );
    let (image, lines) = run(&bench, &job(1, &dockerfile)).await;
    image.unwrap();
    let same = format!("same {marker}");
    assert!(lines.iter().any(|line| line.ends_with(&same)), "{lines:?}");

    // What the mirror lacks comes from where it is said to be.
    let elsewhere = format!("FROM {}\nRUN echo {marker}\n", stack::base_image());
    run(&bench, &job(1, &elsewhere)).await.0.unwrap();
}

/// The stack's engine as a buildkitd: whoever connects speaks with its BuildKit.
async fn upgraded<S: AsyncRead + AsyncWrite + Unpin>(mut client: S) {
    let socket = stack::buildkit_endpoint();
    let socket = socket.strip_prefix("docker://").expect("the dev stack's BuildKit is an engine");
    let mut engine = UnixStream::connect(socket).await.unwrap();
    let ask = b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    engine.write_all(ask).await.unwrap();
    let mut answer = vec![];
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(engine.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    // It ends when either side does.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut engine).await;
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
async fn a_buildkitd_on_a_socket_and_on_tcp_follows_to_mirrors_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buildkitd.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoints =
        [format!("unix://{}", path.display()), format!("tcp://{}", tcp.local_addr().unwrap())];
    tokio::spawn(async move {
        loop {
            tokio::select! {
                accepted = socket.accept() => tokio::spawn(upgraded(accepted.unwrap().0)),
                accepted = tcp.accept() => tokio::spawn(upgraded(accepted.unwrap().0)),
            };
        }
    });
    for endpoint in endpoints {
        let (bench, mirror) = mirrored_on(&endpoint).await;
        let marker = Uuid::new_v4().simple().to_string();
        copy_base(&mirror, &format!("library/{marker}:1.2")).await;
        let dockerfile = format!(
            "FROM {marker}:1.2\nCOPY --from={marker}:1.2 /bin/busybox /tool\nRUN echo on {marker}\n"
        );
        let (image, lines) = run(&bench, &job(1, &dockerfile)).await;
        image.unwrap();
        let said = format!("on {marker}");
        assert!(lines.iter().any(|line| line.ends_with(&said)), "{endpoint}: {lines:?}");
    }
}

#[tokio::test]
async fn a_mirror_is_no_way_around_what_is_denied() {
    let (bench, mirror) = mirrored().await;
    let foreign = Uuid::from_u128(2);
    copy_base(&mirror, &format!("{foreign}/snapshots:1")).await;
    let dockerfile = format!("FROM docker.io/{foreign}/snapshots:1\nRUN true\n");
    let refused = run(&bench, &job(1, &dockerfile)).await.0.unwrap_err();
    assert_eq!(refused.kind, FailureKind::BaseImageUnavailable, "{refused:?}");
    run(&bench, &job(2, &dockerfile)).await.0.unwrap();
}

/// As a client pushes: skopeo with a login of the build's organization.
async fn push_own(bench: &Bench, organization: u128, name: &str) {
    let owner = OrganizationId::from_uuid(Uuid::from_u128(organization));
    let access = Access {
        organization: owner,
        pull: Scope::Everything,
        push: Scope::Below("push".parse().unwrap()),
    };
    let grant = bench.builder.grants.grant(access);
    let mut command = tokio::process::Command::new("skopeo");
    command.args(["--insecure-policy", "copy", "--quiet", "--src-tls-verify=false"]);
    command.args(["--dest-tls-verify=false", "--dest-creds"]);
    command.arg(format!("x:{}", grant.secret().expose_secret()));
    command.arg(format!("docker://{}", stack::base_image()));
    command.arg(format!("docker://{}/{owner}/push/{name}", bench.builder.address));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn general_images_are_for_the_builds_of_all() {
    let bench = bench().await;
    let base = format!("FROM {}\nRUN echo for all > /general\n", stack::base_image());
    let image = run(&bench, &job(1, &base)).await.0.unwrap();
    let links =
        |name: &str| Repository { organization: Uuid::from_u128(1), name: name.parse().unwrap() };
    let (own, general) = (links("snapshots"), links(GENERAL_REPOSITORY));
    let key = ObjectKey::Blob(image.digest);
    let bytes = bench.builder.store.get_bytes(&key, 1 << 20).await.unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let registry = &bench.builder.registry;
    for blob in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let blob = serde_json::from_value(blob.clone()).unwrap();
        assert!(registry.has_blob(&own, &blob).await.unwrap());
        registry.link_blob(&general, &blob).await.unwrap();
    }
    let media_type: MediaType = serde_json::from_value(manifest["mediaType"].clone()).unwrap();
    registry.deposit_manifest(&general, image.digest, media_type, bytes).await.unwrap();
    let from =
        format!("FROM {OWN}/{general}@{}\nRUN cat /general # {}\n", image.digest, Uuid::new_v4());
    let (built, lines) = run(&bench, &job(2, &from)).await;
    built.unwrap();
    assert!(lines.iter().any(|line| line.ends_with(" for all")), "{lines:?}");
}

#[tokio::test]
async fn pushed_images_are_built_upon_under_every_name_of_the_registry() {
    let bench = bench().await;
    push_own(&bench, 1, "team/base:1").await;
    let owner = Uuid::from_u128(1);
    // Nobody answers at the first two: the worker sends BuildKit to itself.
    let mut wanted = job(1, "");
    wanted.registries = vec!["other.test:5001".to_owned()];
    let here = bench.builder.address.to_string();
    for host in [OWN, "other.test:5001", &here] {
        let dockerfile = format!(
            "FROM {host}/{owner}/push/team/base:1 AS base\nFROM base\n\
             COPY --from={host}/{owner}/push/team/base:1 /bin/busybox /tool\n\
             RUN cmp /tool /bin/busybox && echo same {}\n",
            Uuid::new_v4()
        );
        let JobSpec::Build(spec) = &mut wanted.spec else { panic!("no build") };
        spec.dockerfile.clone_from(&dockerfile);
        let (image, lines) = run(&bench, &wanted).await;
        image.unwrap();
        assert!(lines.iter().any(|line| line.contains(" same ")), "{lines:?}");
        let mut foreign = job(2, &dockerfile);
        foreign.registries.clone_from(&wanted.registries);
        let refused = run(&bench, &foreign).await.0.unwrap_err();
        assert_eq!(refused.kind, FailureKind::BaseImageUnavailable, "{refused:?}");
    }
}
