//! The entry point: a handle on one BuildKit.
//!
//! Owns the endpoint and what BuildKit says about itself. Holds no connection:
//! each call dials, so a BuildKit that was restarted is simply used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::{InfoRequest, ListWorkersRequest};
use bollard_buildkit_proto::pb;
use slipway_oci::Platform;

use crate::dial;
use crate::endpoint::{Endpoint, Tls};
use crate::error::Error;
use crate::request::{InvalidRequest, SolveRequest};
use crate::solve::Solve;

const INFO_DEADLINE: Duration = Duration::from_secs(10);

/// Worker labels by which the two kinds of BuildKit are told apart.
const ENGINE_LABEL_PREFIX: &str = "org.mobyproject.buildkit.worker.moby.";
const SNAPSHOTTER_LABEL: &str = "org.mobyproject.buildkit.worker.snapshotter";

/// A handle on one BuildKit; cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Target>,
}

/// What is needed to dial.
#[derive(Debug)]
pub(crate) struct Target {
    pub endpoint: Endpoint,
    pub tls: Option<Tls>,
}

/// What a BuildKit says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its version; that of the Docker Engine where its BuildKit does not know it.
    pub version: Option<String>,
    /// Part of a Docker Engine, or a buildkitd of its own.
    pub kind: Kind,
    /// Platforms it can build for, native first, each once.
    pub platforms: Vec<Platform>,
    /// How layers are stored, for example `overlayfs`.
    pub snapshotter: Option<String>,
}

/// The two kinds of BuildKit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Inside a Docker Engine.
    Engine,
    /// A buildkitd.
    Standalone,
}

impl Client {
    /// Reaches the BuildKit at `endpoint` and checks that it answers.
    ///
    /// # Errors
    /// [`Error::EndpointUnavailable`] if nothing answers in ten seconds,
    /// [`Error::InvalidRequest`] for TLS on a unix socket, else as
    /// [`Client::info`].
    pub async fn connect(endpoint: &Endpoint, tls: Option<Tls>) -> Result<Self, Error> {
        if tls.is_some() && !matches!(endpoint, Endpoint::Tcp { .. }) {
            return Err(InvalidRequest::new("tls", "only a tcp endpoint can have it").into());
        }
        let inner = Arc::new(Target { endpoint: endpoint.clone(), tls });
        let client = Self { inner };
        client.info().await?;
        Ok(client)
    }

    /// The endpoint that this client dials.
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    /// Asks BuildKit about itself.
    ///
    /// # Errors
    /// [`Error::EndpointUnavailable`] or [`Error::Transport`] if it does not
    /// answer in ten seconds.
    pub async fn info(&self) -> Result<Info, Error> {
        let mut control = dial::control(self.inner.dial().await?);
        let ask = async {
            // Builds before 0.11 have no `Info`; the version is unknown then.
            let version = control.info(InfoRequest {}).await.ok();
            let workers = control.list_workers(ListWorkersRequest::default()).await?;
            Ok::<_, tonic::Status>((version, workers.into_inner().record))
        };
        let (version, workers) = tokio::time::timeout(INFO_DEADLINE, ask)
            .await
            .map_err(|_| Error::transport("BuildKit did not answer in time"))?
            .map_err(|status| Error::transport(status.message()))?;
        let worker = workers.into_iter().next().unwrap_or_default();
        let kind = kind_of(&worker.labels);
        let version = version
            .and_then(|answer| answer.into_inner().buildkit_version)
            .map(|version| version.version)
            .filter(|version| !version.is_empty() && !version.contains("unknown"));
        let version = match (version, self.endpoint()) {
            (None, Endpoint::Docker(path)) => dial::engine_version(path).await,
            (version, _) => version,
        };
        Ok(Info {
            version,
            kind,
            platforms: platforms(&worker.platforms),
            snapshotter: worker.labels.get(SNAPSHOTTER_LABEL).cloned(),
        })
    }

    /// Starts a solve. It runs at once; it ends when it is done or when the
    /// returned handle is dropped. Errors, of the request too, come from
    /// [`Solve::outcome`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn solve(&self, request: SolveRequest) -> Solve {
        Solve::start(Arc::clone(&self.inner), request)
    }
}

impl Target {
    pub(crate) async fn dial(&self) -> Result<tonic::transport::Channel, Error> {
        dial::dial(&self.endpoint, self.tls.as_ref()).await
    }
}

fn kind_of(labels: &HashMap<String, String>) -> Kind {
    if labels.keys().any(|label| label.starts_with(ENGINE_LABEL_PREFIX)) {
        Kind::Engine
    } else {
        Kind::Standalone
    }
}

/// Docker's engine lists some platforms twice.
fn platforms(of: &[pb::Platform]) -> Vec<Platform> {
    let mut platforms = Vec::new();
    for platform in of {
        let variant = match platform.variant.as_str() {
            "" => String::new(),
            variant => format!("/{variant}"),
        };
        let text = format!("{}/{}{variant}", platform.os, platform.architecture);
        match text.parse() {
            Ok(platform) if !platforms.contains(&platform) => platforms.push(platform),
            Ok(_) | Err(_) => {}
        }
    }
    platforms
}
