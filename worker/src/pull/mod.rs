//! Pull jobs: an image from a registry into the region's object store.
//!
//! Invariant: an organization gets the link to a blob only when every blob of
//! the image is in the pool and verified, and the manifest last. That bytes are
//! in the pool already spares their transfer only after the source has shown
//! that it has them: a manifest that names a digest is no proof of anything.

mod failure;
mod limits;
mod origin;
mod own;
mod progress;
mod proof;
#[cfg(test)]
mod tests;
mod transfer;

use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_domain::failure::FailureKind;
use slipway_domain::spec::{JobKind, PullSpec};
use slipway_domain::{BuiltImage, Failure, OrganizationId};
use slipway_oci::{Descriptor, Digest, ImageConfig, ImageReference, Platform, Verifier};
use slipway_registry::{DepositError, Registry};
use slipway_source::{Client, CredentialSource, Image};

use crate::log::LogSink;
use crate::metrics::{Metrics, Phase};
use crate::names::RegistryNames;
use failure::{of_deposit, of_source, of_store};
pub(crate) use limits::Limits;
use origin::Origin;
use own::Shelf;
use progress::Progress;
use transfer::Transfer;

/// How often blobs are brought that are lost before the manifest is there.
const ROUNDS: u32 = 3;

/// Pulls images.
pub(crate) struct Puller {
    /// Registries to pull from.
    pub(crate) source: Client,
    /// The region's object store.
    pub(crate) store: Store,
    /// The region's registry over that store.
    pub(crate) registry: Registry,
    /// What that registry is called.
    pub(crate) names: RegistryNames,
    /// Bounds of one pull.
    pub(crate) limits: Limits,
    /// What is counted.
    pub(crate) metrics: Metrics,
}

impl Puller {
    /// Brings the image of `spec` into the repository of `organization`, which
    /// has `credentials` for registries; `registries` are further names of the
    /// region's own.
    /// Dropping the future stops the work, and nothing of it is visible then.
    pub(crate) async fn pull(
        &self,
        organization: OrganizationId,
        spec: &PullSpec,
        registries: &[String],
        credentials: &dyn CredentialSource,
        log: LogSink,
    ) -> Result<BuiltImage, Failure> {
        let (reference, platform) = read(spec)?;
        let progress = Progress::new(log);
        let resolving = progress.begin(1, &format!("resolve {reference}")).await;
        let resolve = async {
            let origin = if self.names.has(reference.domain(), registries) {
                let shelf = Shelf { registry: &self.registry, organization, reference: &reference };
                Origin::Own(shelf.find(&platform).await?)
            } else {
                let found = self.source.resolve(&reference, &platform, credentials).await;
                Origin::Elsewhere(found.map_err(of_source)?)
            };
            self.limits.check(&origin.image().manifest, spec.max_size)?;
            let config = origin.config(&platform).await?;
            Ok::<_, Failure>((origin, config))
        };
        let resolved = self.metrics.timed(JobKind::Pull, Phase::Resolve, resolve).await;
        let (origin, (config_bytes, config)) = resolved?;
        resolving.end(&summary(&origin, &platform)).await;

        let transfer = Transfer {
            origin: origin.clone(),
            store: self.store.clone(),
            registry: self.registry.clone(),
            repository: repository(organization),
            progress,
            metrics: self.metrics.clone(),
        };
        let layers = distinct(&origin.image().manifest.layers);
        let counts = self.bring(&transfer, &layers, config_bytes).await?;
        Ok(built(origin.image(), &config, counts))
    }

    /// Layers, image config, manifest, in this order. What a sweep of the pool
    /// took between the first and the last is brought once more.
    async fn bring(
        &self,
        transfer: &Transfer,
        layers: &[Descriptor],
        config: bytes::Bytes,
    ) -> Result<transfer::Counts, Failure> {
        let mut tried = 1;
        loop {
            let fetch = transfer.layers(layers.to_vec(), self.limits.at_once);
            let counts = self.metrics.timed(JobKind::Pull, Phase::Fetch, fetch).await?;
            self.store_config(transfer.origin.image(), config.clone()).await?;
            let publish = transfer.publish(layers);
            match self.metrics.timed(JobKind::Pull, Phase::Publish, publish).await {
                Ok(()) => return Ok(counts),
                Err(DepositError::Gone { missing, .. }) if tried < ROUNDS => {
                    tracing::warn!(count = missing.len(), "blobs were lost under a pull");
                    tried += 1;
                }
                Err(error) => return Err(of_deposit(error)),
            }
        }
    }

    async fn store_config(&self, image: &Image, bytes: bytes::Bytes) -> Result<(), Failure> {
        let config = &image.manifest.config;
        let body = futures::stream::iter([Ok::<_, std::io::Error>(bytes)]);
        let verifier = Verifier::new(config.digest).size(config.size);
        let stored = self.store.put_stream(&ObjectKey::Blob(config.digest), body, verifier).await;
        stored.map(|_| ()).map_err(of_store)
    }
}

/// The image and platform that a job asks for.
fn read(spec: &PullSpec) -> Result<(ImageReference, Platform), Failure> {
    let invalid = |error: String| Failure::new(FailureKind::JobInvalid, error);
    let reference = spec.image.parse().map_err(|error: slipway_oci::error::Reference| {
        invalid(slipway_runtime::telemetry::chain(&error))
    })?;
    let platform = spec.platform.parse();
    let platform =
        platform.map_err(|error: slipway_oci::error::Platform| invalid(error.to_string()))?;
    Ok((reference, platform))
}

/// Where an organization's snapshots lie.
fn repository(organization: OrganizationId) -> Repository {
    Repository {
        organization: *organization.as_uuid(),
        name: crate::build::REPOSITORY.parse().expect("the name of the repository is valid"),
    }
}

/// Every layer once, the largest first, so that none is left alone at the end.
fn distinct(layers: &[Descriptor]) -> Vec<Descriptor> {
    let mut seen = std::collections::BTreeSet::<Digest>::new();
    let mut layers: Vec<_> =
        layers.iter().filter(|layer| seen.insert(layer.digest)).cloned().collect();
    layers.sort_by_key(|layer| std::cmp::Reverse(layer.size));
    layers
}

fn summary(origin: &Origin, platform: &Platform) -> String {
    let image = origin.image();
    format!(
        "{} for {platform} from {}: {} layers, {}",
        image.digest,
        origin.host(),
        image.manifest.layers.len(),
        progress::bytes(image.manifest.compressed_size())
    )
}

fn built(image: &Image, config: &ImageConfig, counts: transfer::Counts) -> BuiltImage {
    BuiltImage {
        digest: image.digest,
        config_digest: image.manifest.config.digest,
        size: image.manifest.compressed_size(),
        entrypoint: config.entrypoint().to_vec(),
        cmd: config.cmd().to_vec(),
        layers: u32::try_from(image.manifest.layers.len()).unwrap_or(u32::MAX),
        cached_steps: counts.known,
        total_steps: counts.total,
    }
}
