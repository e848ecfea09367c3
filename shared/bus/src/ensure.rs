//! Creating and updating what [`topology`] describes.
//!
//! Owns the requests; only the scheduler makes them, workers merely use what is
//! there. Invariant: idempotent, and safe to run by several schedulers at once.

use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream;

use crate::connection::Bus;
use crate::publish::is_passing;
use crate::topology::{self, BucketName, RegionTopology, Topology};

/// What could not be created or updated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stream.
    #[error("cannot create or update stream `{stream}`")]
    Stream {
        /// Its name.
        stream: String,
        /// What the server said.
        #[source]
        source: async_nats::jetstream::context::CreateStreamError,
    },
    /// A consumer.
    #[error("cannot create or update consumer `{consumer}` of stream `{stream}`")]
    Consumer {
        /// The stream.
        stream: String,
        /// Its name.
        consumer: String,
        /// What the server said.
        #[source]
        source: stream::ConsumerError,
    },
}

impl Error {
    /// Whether it may work a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use async_nats::jetstream::context::CreateStreamErrorKind as Create;
        use async_nats::jetstream::stream::ConsumerErrorKind as Consumer;
        match self {
            Self::Stream { source, .. } => match source.kind() {
                Create::JetStreamUnavailable | Create::TimedOut | Create::Response => true,
                Create::JetStream(error) => is_passing(error.error_code().0),
                _ => false,
            },
            Self::Consumer { source, .. } => match source.kind() {
                Consumer::TimedOut | Consumer::Request => true,
                Consumer::JetStream(error) => is_passing(error.error_code().0),
                _ => false,
            },
        }
    }
}

impl Bus {
    /// Creates the streams, buckets and consumers of `topology`, or updates them
    /// to it. What is no longer in it stays: it may hold data.
    ///
    /// # Errors
    /// The first thing that could not be done; calling again continues.
    pub async fn ensure(&self, topology: &Topology) -> Result<(), Error> {
        for (bucket, placement) in topology::buckets(topology) {
            self.ensure_stream(topology::bucket_config(topology, &bucket, placement)).await?;
        }
        for region in &topology.regions {
            self.ensure_region(topology, region).await?;
        }
        Ok(())
    }

    /// Creates one bucket outside of a topology, on `replicas` servers.
    ///
    /// # Errors
    /// As [`Bus::ensure`].
    pub async fn ensure_bucket(&self, bucket: &BucketName, replicas: usize) -> Result<(), Error> {
        let topology = Topology { regions: Vec::new(), replicas, logs_max_bytes: 0 };
        self.ensure_stream(topology::bucket_config(&topology, bucket, None)).await
    }

    async fn ensure_region(
        &self,
        topology: &Topology,
        region: &RegionTopology,
    ) -> Result<(), Error> {
        for config in topology::region_streams(topology, region) {
            self.ensure_stream(config).await?;
        }
        let jobs = topology::jobs_stream(&region.region);
        for class in &region.classes {
            let config = topology::jobs_consumer_config(&region.region, *class);
            self.ensure_consumer(&jobs, config).await?;
        }
        let events = topology::events_stream(&region.region);
        self.ensure_consumer(&events, topology::events_consumer_config()).await
    }

    pub(crate) async fn ensure_stream(&self, config: stream::Config) -> Result<(), Error> {
        let stream = config.name.clone();
        match self.context().create_or_update_stream(config).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Stream { stream, source }),
        }
    }

    pub(crate) async fn ensure_consumer(
        &self,
        stream: &str,
        config: pull::Config,
    ) -> Result<(), Error> {
        let consumer = config.durable_name.clone().unwrap_or_default();
        match self.context().create_consumer_on_stream(config, stream).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Consumer { stream: stream.to_owned(), consumer, source }),
        }
    }
}
