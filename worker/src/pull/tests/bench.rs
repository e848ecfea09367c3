//! A worker's parts that a pull needs, over a store in a folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use slipway_blobstore::{Config, ObjectKey, Prefix, Repository, Store};
use slipway_domain::log::Step;
use slipway_domain::spec::PullSpec;
use slipway_domain::{BuiltImage, Failure, LogEvent, OrganizationId};
use slipway_registry::{Limits as RegistryLimits, Registry, StaticAuthorizer};
use slipway_source::{Client, Config as SourceConfig, NoCredentials, RetryPolicy};
use tempfile::TempDir;
use uuid::Uuid;

use crate::log::LogSink;
use crate::pull::{Limits, Puller};

/// What the region's registry is called.
pub const OWN: &str = "registry.test:5000";

pub struct Bench {
    pub puller: Arc<Puller>,
    pub store: Store,
    pub folder: TempDir,
}

/// What a pull said.
#[derive(Debug, Default)]
pub struct Said {
    pub lines: Vec<String>,
    pub steps: Vec<Step>,
}

pub fn organization(number: u128) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(number))
}

pub fn spec(image: &str) -> PullSpec {
    PullSpec {
        image: image.to_owned(),
        platform: "linux/amd64".into(),
        max_size: 20 << 30,
        entrypoint: None,
    }
}

impl Bench {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display()).parse().unwrap();
        let store = Store::open(&Config::new(url)).unwrap();
        let retry = RetryPolicy {
            attempts: 3,
            base: Duration::from_millis(5),
            max: Duration::from_millis(20),
            max_asked: Duration::from_secs(2),
        };
        let source = SourceConfig { retry, ..SourceConfig::default() };
        let authorizer = Arc::new(StaticAuthorizer::new());
        let puller = Puller {
            source: Client::new(source).unwrap(),
            store: store.clone(),
            registry: Registry::new(store.clone(), authorizer, RegistryLimits::default()),
            names: std::iter::once(OWN.to_owned()).collect(),
            limits: Limits::default(),
            metrics: crate::metrics::Metrics::new(&slipway_runtime::telemetry::no_meter()),
        };
        Self { puller: Arc::new(puller), store, folder }
    }

    /// Pulls for organization 1.
    pub async fn pull(&self, image: &str) -> (Result<BuiltImage, Failure>, Said) {
        self.pull_for(1, &spec(image)).await
    }

    pub async fn pull_for(
        &self,
        owner: u128,
        spec: &PullSpec,
    ) -> (Result<BuiltImage, Failure>, Said) {
        let (sink, mut entries) = LogSink::channel();
        let pull = self.puller.pull(organization(owner), spec, &[], &NoCredentials, sink);
        let collect = async {
            let mut said = Said::default();
            while let Some((_, event)) = entries.recv().await {
                match event {
                    LogEvent::Line { text, .. } => said.lines.push(text),
                    LogEvent::Step(step) => said.steps.push(step),
                    LogEvent::End { .. } => {}
                }
            }
            said
        };
        tokio::join!(pull, collect)
    }

    /// Every object of the store.
    pub async fn keys(&self) -> Vec<ObjectKey> {
        let entries = self.store.list(&Prefix::All).map_ok(|entry| entry.key);
        entries.try_collect().await.unwrap()
    }

    /// What an organization sees.
    pub async fn links(&self) -> Vec<ObjectKey> {
        let keys = self.keys().await.into_iter();
        keys.filter(|key| !matches!(key, ObjectKey::Blob(_))).collect()
    }

    /// Waits until no upload is unfinished: what was begun when a pull ended is
    /// taken back, or ends on its own.
    pub async fn settled(&self) {
        let gone = async {
            while self.unfinished() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
    }

    /// Files of uploads that nobody finished.
    pub fn unfinished(&self) -> usize {
        unfinished(self.folder.path())
    }
}

fn unfinished(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => unfinished(&path),
            false => usize::from(path.to_string_lossy().contains('#')),
        })
        .sum()
}

pub fn repository(owner: u128) -> Repository {
    Repository { organization: Uuid::from_u128(owner), name: "snapshots".parse().unwrap() }
}
