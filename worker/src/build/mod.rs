//! Build jobs: a Dockerfile and its contexts through BuildKit into the region's
//! object store.

mod access;
mod failure;
mod mirrors;
mod progress;
#[cfg(test)]
mod tests;
mod vertices;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use slipway_blobstore::{Repository, Store};
use slipway_buildkit::{
    Client, Compression, ContextSource, Credential, Export, ImageRule, Mirrored, Solve,
    SolveRequest,
};
use slipway_domain::failure::FailureKind;
use slipway_domain::message::JobMessage;
use slipway_domain::organization::GENERAL_REPOSITORY;
use slipway_domain::spec::{BuildSpec, JobKind, JobSpec};
use slipway_domain::{BuiltImage, Failure, OrganizationId, dockerfile};
use slipway_oci::{Digest, ImageReference, MediaType, Platform, RepositoryName};
use slipway_registry::{Access, Grant, ManifestReader, Registry, Scope, StaticAuthorizer};
use slipway_runtime::telemetry::trace;

use crate::attempt::Executor;
use crate::contexts::{Contexts, Offer};
use crate::credentials::{ImageCredentials, JobCredentials};
use crate::log::LogSink;
use crate::metrics::{Metrics, Phase};
use crate::names::RegistryNames;
use access::{ImageAccess, of_credentials};
use failure::{of_build, of_context, of_image, of_store};
use mirrors::Places;
use progress::Progress;
use vertices::Vertices;

pub(crate) use slipway_domain::organization::SNAPSHOTS_REPOSITORY as REPOSITORY;

/// Builds by BuildKit.
pub struct Builder {
    /// BuildKit.
    pub client: Client,
    /// Build contexts.
    pub contexts: Contexts,
    /// The region's object store.
    pub store: Store,
    /// Where BuildKit reaches this worker.
    pub address: SocketAddr,
    /// The registry routes to which BuildKit pushes.
    pub registry: Registry,
    /// What the region's registry is called.
    pub names: RegistryNames,
    /// Rights of running builds.
    pub grants: Arc<StaticAuthorizer>,
    /// Other registries, with their mirrors.
    pub source: slipway_source::Client,
    /// Registry credentials.
    pub vault: Arc<dyn ImageCredentials>,
    /// What is counted.
    pub metrics: Metrics,
}

#[async_trait]
impl Executor for Builder {
    async fn recovered(&self) {
        let mut pause = Duration::from_millis(500);
        while let Err(error) = self.client.info().await {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(error, ?pause, "BuildKit does not answer, no job is taken");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }

    async fn execute(&self, job: &JobMessage, log: LogSink) -> Result<BuiltImage, Failure> {
        match &job.spec {
            JobSpec::Build(spec) => self.build(job, spec, log).await,
            JobSpec::Pull(_) => {
                Err(Failure::new(FailureKind::JobInvalid, "a pull is nothing for BuildKit"))
            }
        }
    }
}

impl Builder {
    async fn build(
        &self,
        job: &JobMessage,
        spec: &BuildSpec,
        log: LogSink,
    ) -> Result<BuiltImage, Failure> {
        let platform: Platform =
            spec.platform.parse().map_err(|error: slipway_oci::error::Platform| {
                Failure::new(FailureKind::JobInvalid, error.to_string())
            })?;
        let metrics = &self.metrics;
        let prepared = metrics
            .timed(JobKind::Build, Phase::Prepare, self.prepare(job, spec, &platform))
            .await?;
        let solved = self.solve(job, spec, &platform, &prepared, log);
        let (digest, steps) = metrics.timed(JobKind::Build, Phase::Solve, solved).await?;
        let read = self.inspect(job.organization, digest, &platform, steps);
        metrics.timed(JobKind::Build, Phase::Publish, read).await
    }

    async fn prepare(
        &self,
        job: &JobMessage,
        spec: &BuildSpec,
        platform: &Platform,
    ) -> Result<Prepared, Failure> {
        let mut offers = Vec::with_capacity(spec.contexts.len());
        for (index, hash) in spec.contexts.iter().enumerate() {
            let expected = job.contexts.get(index);
            let offer = self.contexts.offer(job.organization, hash, expected).await;
            offers.push(offer.map_err(of_context)?);
        }
        let places = self.places(job, spec, platform).await;
        let access = self.image_access(job, &places).await?;
        Ok(Prepared { offers, access, mirrored: places.mirrored })
    }

    async fn solve(
        &self,
        job: &JobMessage,
        spec: &BuildSpec,
        platform: &Platform,
        prepared: &Prepared,
        log: LogSink,
    ) -> Result<(Digest, Steps), Failure> {
        // The right to push ends with the solve.
        let grant = self.grant(job)?;
        let Prepared { offers, access, mirrored } = prepared;
        let request = self.request(job, spec, platform.clone(), offers, &grant, access);
        let request = SolveRequest { mirrored: mirrored.clone(), ..request };
        let mut solve = self.client.solve(request);
        let steps = follow(&mut solve, log, Vertices::here(self.metrics.clone())).await;
        let outcome = solve.outcome().await.map_err(of_build)?;
        let digest = outcome.digest.ok_or_else(|| {
            Failure::new(FailureKind::Internal, "BuildKit did not say what it pushed")
        })?;
        Ok((digest, steps))
    }

    /// Where the images are that the Dockerfile takes. Those of the region's registry
    /// come from this worker, which alone knows the password of the build.
    async fn places(&self, job: &JobMessage, spec: &BuildSpec, platform: &Platform) -> Places {
        let images = dockerfile::images(&spec.dockerfile, &spec.build_args);
        let is_own = |image: &ImageReference| self.names.has(image.domain(), &job.registries);
        let (own, others) = images.into_iter().partition(is_own);
        let credentials = JobCredentials::new(self.vault.clone(), job.job);
        let places = Places::find(&self.source, others, platform, &credentials).await;
        places.with_own(own, &self.address.to_string())
    }

    /// Credentials for the registries that are really asked.
    async fn image_access(
        &self,
        job: &JobMessage,
        places: &Places,
    ) -> Result<ImageAccess, Failure> {
        let credentials = self.vault.for_images(job.job, &places.images).await;
        ImageAccess::of(&places.images, credentials.map_err(of_credentials)?)
    }

    fn grant(&self, job: &JobMessage) -> Result<Grant, Failure> {
        let name = repository()?;
        let access = Access {
            organization: job.organization,
            pull: Scope::Everything,
            push: Scope::Repositories([name].into()),
        };
        Ok(self.grants.grant(access).in_trace(trace::current()))
    }

    fn request(
        &self,
        job: &JobMessage,
        spec: &BuildSpec,
        platform: Platform,
        offers: &[Offer],
        grant: &Grant,
        access: &ImageAccess,
    ) -> SolveRequest {
        let mut credentials = access.credentials();
        let secret = grant.secret().expose_secret().to_owned().into();
        let credential = Credential { username: "slipway-worker".into(), secret };
        credentials.insert(&self.address.to_string(), credential);
        let contexts = offers.iter().map(|offer| ContextSource {
            url: format!("http://{}{}", self.address, offer.path()),
            digest: offer.digest,
            excludes: if spec.context_filtered { vec![] } else { offer.excludes.clone() },
        });
        SolveRequest {
            contexts: contexts.collect(),
            build_args: spec.build_args.clone(),
            target: spec.target.clone(),
            no_cache: spec.no_cache,
            labels: spec.labels.clone(),
            platform,
            export: Export::PushByDigest {
                repository: format!("{}/{}/{REPOSITORY}", self.address, job.organization),
                insecure: true,
                compression: Compression::Gzip,
            },
            credentials,
            // The later rule decides: no credential opens another organization.
            image_rules: [access.rules(), image_rules(job.organization)].concat(),
            ..SolveRequest::new(spec.dockerfile.clone())
        }
    }

    /// Reads back what was pushed: the records say what the object store holds.
    async fn inspect(
        &self,
        organization: OrganizationId,
        digest: Digest,
        platform: &Platform,
        steps: Steps,
    ) -> Result<BuiltImage, Failure> {
        let reader = ManifestReader::new(self.store.clone());
        let image = reader.image(&digest, platform).await.map_err(of_image)?;
        // BuildKit does not push a manifest that the registry says it has, and
        // the snapshot that it had it from may have been deleted since.
        let repository = Repository { organization: *organization.as_uuid(), name: repository()? };
        let media_type = image.manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
        let kept = self.registry.keep_manifest(&repository, digest, media_type).await;
        kept.map_err(of_store)?;
        Ok(BuiltImage {
            digest,
            config_digest: image.manifest.config.digest,
            size: image.compressed_size(),
            entrypoint: image.entrypoint().to_vec(),
            cmd: image.cmd().to_vec(),
            layers: u32::try_from(image.manifest.layers.len()).unwrap_or(u32::MAX),
            cached_steps: steps.cached,
            total_steps: steps.total,
        })
    }
}

/// What a build needs; the contexts' addresses end with it.
struct Prepared {
    offers: Vec<Offer>,
    access: ImageAccess,
    mirrored: Vec<Mirrored>,
}

fn repository() -> Result<RepositoryName, Failure> {
    let name = REPOSITORY.parse();
    name.map_err(|_| Failure::new(FailureKind::Internal, "the repository's name is not valid"))
}

/// Images of our registries, whatever their host, are for their organization; but
/// general ones are for all.
fn image_rules(organization: OrganizationId) -> Vec<ImageRule> {
    let any = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}";
    let rule =
        |is_allowed, path: String| ImageRule { is_allowed, pattern: format!("[^/]+/{path}") };
    vec![
        rule(false, format!("{any}/.*")),
        rule(true, format!("{any}/{GENERAL_REPOSITORY}([:@].*)?$")),
        rule(true, format!("{organization}/.*")),
    ]
}

/// How many of the Dockerfile's steps ran or came from the cache.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Steps {
    pub(crate) total: u32,
    pub(crate) cached: u32,
}

/// Writes what happens to the log, until the solve is over.
async fn follow(solve: &mut Solve, log: LogSink, mut vertices: Vertices) -> Steps {
    let mut progress = Progress::new(log);
    loop {
        // Cancel-safe: the solve says so, and a tick is only a reminder. Events come
        // first: the rest of an unfinished line may be waiting among them.
        tokio::select! {
            biased;
            event = solve.next_event() => match event {
                Some(event) => {
                    vertices.event(&event);
                    progress.event(event, Instant::now()).await;
                }
                None => return progress.finish().await,
            },
            () = progress.tick_due() => progress.tick(Instant::now()).await,
        }
    }
}
