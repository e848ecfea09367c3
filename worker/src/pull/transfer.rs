//! From where an image is to the pool, several layers at once.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use slipway_blobstore::{ObjectKey, Repository, Store};
use slipway_domain::Failure;
use slipway_domain::failure::FailureKind;
use slipway_oci::{Descriptor, Verifier};
use slipway_registry::{DepositError, Registry};
use slipway_source::Pull;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::failure::{of_deposit, of_store};
use super::origin::Origin;
use super::progress::{Meter, Progress};
use super::proof;
use crate::metrics::Metrics;

/// Links that are written at the same time.
const LINKS: usize = 16;

/// One image on its way. Clones are the same.
#[derive(Clone)]
pub(super) struct Transfer {
    pub(super) origin: Origin,
    pub(super) store: Store,
    pub(super) registry: Registry,
    pub(super) repository: Repository,
    pub(super) progress: Progress,
    pub(super) metrics: Metrics,
}

/// What became of the layers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Distinct layers.
    pub(super) total: u32,
    /// Those that were not fetched.
    pub(super) known: u32,
}

impl Transfer {
    /// Brings `layers` into the pool, `at_once` at the same time. They are
    /// tasks, so that they are hashed on all processors; dropping the future,
    /// or the failure of one, ends them all.
    pub(super) async fn layers(
        &self,
        layers: Vec<Descriptor>,
        at_once: usize,
    ) -> Result<Counts, Failure> {
        let mut counts = Counts { total: layers.len() as u32, known: 0 };
        let mut waiting = layers.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < at_once.max(1)
                && let Some(layer) = waiting.next()
            {
                let transfer = self.clone();
                let span = tracing::info_span!(
                    "layer",
                    blob.digest = %layer.digest,
                    blob.size = layer.size,
                    result = tracing::field::Empty,
                );
                running.spawn(async move { transfer.layer(layer).await }.instrument(span));
            }
            match running.join_next().await {
                None => return Ok(counts),
                Some(Ok(Ok(is_known))) => counts.known += u32::from(is_known),
                Some(Ok(Err(failure))) => {
                    // Nobody hears of the failure while others still fetch.
                    running.shutdown().await;
                    return Err(failure);
                }
                Some(Err(error)) => {
                    let text = format!("the transfer of a layer ended: {error}");
                    return Err(Failure::new(FailureKind::Internal, text));
                }
            }
        }
    }

    /// Brings one layer into the pool. Whether it was there.
    async fn layer(&self, layer: Descriptor) -> Result<bool, Failure> {
        let meter = self.progress.layer(&layer).await;
        let lacking = match &self.origin {
            Origin::Own(own) => own.demand(&layer).await.map(|()| None)?,
            Origin::Elsewhere(pull) => (!self.is_known(pull, &layer).await?).then_some(pull),
        };
        match lacking {
            None => {
                tracing::Span::current().record("result", "known");
                meter.known().await;
            }
            Some(pull) => {
                meter.fetching().await;
                self.fetch(pull, &layer, &meter).await?;
                tracing::Span::current().record("result", "fetched");
                meter.done().await;
            }
        }
        Ok(lacking.is_none())
    }

    /// Whether the layer need not be fetched: the organization has it, or the
    /// pool has it and the source has shown that it has it, too.
    async fn is_known(&self, pull: &Pull, layer: &Descriptor) -> Result<bool, Failure> {
        if self.registry.has_blob(&self.repository, layer).await.map_err(of_deposit)? {
            return Ok(true);
        }
        match self.store.head(&ObjectKey::Blob(layer.digest)).await {
            Ok(metadata) if metadata.size == layer.size => {}
            Ok(_) => return Ok(false),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(of_store(error)),
        }
        // What a sweep may take is brought again.
        if !self.registry.is_kept(&layer.digest).await.map_err(of_store)? {
            return Ok(false);
        }
        proof::demand(pull, &self.store, layer).await?;
        Ok(true)
    }

    async fn fetch(&self, pull: &Pull, layer: &Descriptor, meter: &Meter) -> Result<(), Failure> {
        let body = pull.blob(layer).inspect(|chunk| {
            if let Ok(chunk) = chunk {
                meter.add(chunk.len());
                self.metrics.pulled(chunk.len() as u64);
            }
        });
        let verifier = Verifier::new(layer.digest).size(layer.size);
        let stored = self.store.put_stream(&ObjectKey::Blob(layer.digest), body, verifier).await;
        stored.map(|_| ()).map_err(of_store)
    }

    async fn link(&self, blob: Descriptor) -> Result<(), DepositError> {
        if self.registry.has_blob(&self.repository, &blob).await? {
            return Ok(());
        }
        self.registry.link_blob(&self.repository, &blob).await
    }

    /// Makes the image visible: the links of its blobs, then its manifest.
    pub(super) async fn publish(&self, layers: &[Descriptor]) -> Result<(), DepositError> {
        let image = self.origin.image();
        let step = self.progress.begin(3, "publish").await;
        let mut blobs = layers.to_vec();
        blobs.push(image.manifest.config.clone());
        let links = stream::iter(blobs).map(|blob| self.link(blob)).buffer_unordered(LINKS);
        links.try_collect::<()>().await?;
        let kept = self.registry.deposit_manifest(
            &self.repository,
            image.digest,
            image.media_type.clone(),
            image.bytes.clone(),
        );
        kept.await?;
        step.end(&format!("publish {}", image.digest)).await;
        Ok(())
    }
}
