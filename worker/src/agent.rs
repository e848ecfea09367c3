//! The agent: from a job of the queue to the end of its attempt.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use slipway_bus::control::{self, ControlSubscription};
use slipway_bus::jobs::Delivery;
use slipway_bus::topology::BucketName;
use slipway_bus::{Bus, TraceParent};
use slipway_domain::JobId;
use slipway_domain::failure::FailureKind;
use slipway_domain::message::{ControlMessage, JobMessage};
use slipway_runtime::{Tasks, telemetry};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use crate::attempt::{Attempt, Executor};
use crate::config::Config;
use crate::drain;
use crate::intake::Intake;
use crate::lease::{Leases, Terms};
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::slots::{Door, Slots};
use crate::unread::{self, Unread};

/// Pause before a job that could not be claimed is delivered again.
const RETRY: Duration = Duration::from_secs(1);

/// A worker's slots. Share it in an `Arc`.
pub struct Agent {
    config: Arc<Config>,
    bus: Bus,
    leases: Leases,
    executor: Arc<dyn Executor>,
    presence: Presence,
    intake: Intake,
    tasks: Tasks,
    metrics: Metrics,
    running: Mutex<HashMap<JobId, Arc<Notify>>>,
}

impl Agent {
    /// A worker that runs jobs by `executor`.
    pub fn new(
        config: Arc<Config>,
        bus: Bus,
        executor: Arc<dyn Executor>,
        presence: Presence,
        tasks: Tasks,
        metrics: Metrics,
    ) -> Arc<Self> {
        let terms = Terms { ttl: config.lease, patience: config.outage_patience };
        let leases = Leases::new(&bus, &config.region, config.id.clone(), terms, tasks.clone());
        let intake = Intake::new(tasks.draining().clone());
        let running = Mutex::default();
        Arc::new(Self { config, bus, leases, executor, presence, intake, tasks, metrics, running })
    }

    /// Takes jobs until the process is to stop, and returns when every attempt has
    /// ended.
    ///
    /// # Errors
    /// Words from the scheduler cannot be heard.
    pub async fn run(self: Arc<Self>) -> Result<(), control::Error> {
        let words = self.bus.control().subscribe(&self.config.region, &self.config.id).await?;
        self.tasks.spawn("control", self.clone().listen(words));
        let bucket = self.bus.bucket(&BucketName::Leases(self.config.region.clone()));
        let orders = self.intake.read(&bucket, &self.config.id);
        if self.tasks.draining().run_until_cancelled(orders).await.is_none() {
            return Ok(());
        }
        let (shutdown, follow) = (self.tasks.shutdown().clone(), self.intake.clone());
        let follow = follow.follow(bucket, self.config.id.clone());
        self.tasks.spawn("orders", shutdown.run_until_cancelled_owned(follow));
        let over = CancellationToken::new();
        let presence = self.presence.clone();
        let presence = presence.announce(self.bus.clone(), self.intake.clone(), over.clone());
        self.tasks.spawn("presence", presence);
        let progress = drain::tell(self.tasks.clone(), self.presence.running(), &self.config);
        self.tasks.spawn("drain", over.clone().run_until_cancelled_owned(progress));
        self.clone().take_jobs().await;
        over.cancel();
        Ok(())
    }

    /// Takes jobs for all slots; returns when no more may be taken and none runs.
    async fn take_jobs(self: Arc<Self>) {
        let slots = Slots::new(self.config.slots, self.intake.clone());
        let doors: FuturesUnordered<_> = (0..slots.doors())
            .map(|_| self.tasks.spawn("door", self.clone().door(slots.clone())))
            .collect();
        doors.for_each(|_| std::future::ready(())).await;
        slots.all_free().await;
    }

    /// Heeds what the scheduler says, until shutdown.
    async fn listen(self: Arc<Self>, mut words: ControlSubscription) {
        let listen = async {
            while let Some(word) = words.next::<ControlMessage>().await {
                match word.payload {
                    Ok(ControlMessage::CheckLease { job }) => self.check_lease(&job),
                    Ok(ControlMessage::CheckDrain) => self.intake.check(),
                    Err(error) => tracing::warn!(%error, "a word that is not understood"),
                }
            }
        };
        self.tasks.shutdown().run_until_cancelled(listen).await;
    }

    fn check_lease(&self, job: &JobId) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = running.get(job) {
            check.notify_one();
        }
    }

    /// One door: lets job after job in, each into a slot of its own.
    async fn door(self: Arc<Self>, slots: Slots) {
        let classes = self.config.classes.iter();
        let jobs = self.bus.jobs();
        let takers = classes.map(|class| jobs.puller(&self.config.region, *class).taker());
        let mut door = Door::new(slots, takers.collect());
        while let Some((delivery, slot)) = door.next().await {
            let agent = self.clone();
            self.tasks.spawn("slot", async move {
                agent.take(delivery).await;
                drop(slot);
            });
        }
    }

    async fn take(&self, delivery: Delivery<JobMessage>) {
        let message = match unread::check(&delivery) {
            Ok(message) => message.clone(),
            Err(unread) => return self.put_away(&delivery, unread).await,
        };
        let job = message.job;
        // Listed first: whoever sees a worker that takes nothing and runs nothing may
        // rely on it.
        let listed = self.presence.run(job);
        if !self.intake.is_open() {
            return done(delivery.nak(Duration::ZERO).await);
        }
        let held = match self.leases.claim(job, message.attempt).await {
            Ok(Some(held)) => held,
            Ok(None) => {
                tracing::info!(job.id = %job, attempt = %message.attempt, "nothing to claim");
                self.metrics.delivery("stale");
                return done(delivery.ack().await);
            }
            Err(error) => {
                tracing::warn!(job.id = %job, error = telemetry::chain(&error), "a claim failed");
                self.metrics.delivery("failed");
                return done(delivery.nak(RETRY).await);
            }
        };
        self.metrics.delivery("claimed");
        let span = self.span(&message, delivery.trace.as_ref());
        let check = held.check();
        self.running().insert(job, check.clone());
        let attempt = Attempt {
            bus: &self.bus,
            config: &self.config,
            tasks: &self.tasks,
            executor: &*self.executor,
            message,
            lease: held,
            metrics: &self.metrics,
        };
        // The claim stands: the attempt need not wait until the queue knows.
        let acked = async { done(delivery.ack().await) };
        let (failure, ()) = tokio::join!(attempt.run().instrument(span), acked);
        {
            // A later attempt of the same job may run here by now.
            let mut running = self.running();
            if running.get(&job).is_some_and(|known| Arc::ptr_eq(known, &check)) {
                running.remove(&job);
            }
        }
        drop(listed);
        if failure == Some(FailureKind::BuildkitUnavailable) {
            let draining = self.tasks.draining();
            draining.run_until_cancelled(self.executor.recovered()).await;
        }
    }

    /// Leaves a job to others, or throws away what is none.
    async fn put_away(&self, delivery: &Delivery<JobMessage>, unread: Unread) {
        let job = delivery.job;
        match unread {
            Unread::Newer { version } => {
                tracing::warn!(job.id = %job, version, "a job of a newer version is left to others");
                self.metrics.delivery("newer");
                done(delivery.pass_on().await);
            }
            Unread::Poison { reason } => {
                tracing::error!(job.id = %job, reason, "a job that cannot be read is thrown away");
                self.metrics.delivery("unreadable");
                // First out of the queue: the scheduler looks whether it is.
                match delivery.term(&reason).await {
                    Ok(()) => unread::report(&self.bus, &self.config, job, reason).await,
                    unconfirmed @ Err(_) => done(unconfirmed),
                }
            }
        }
    }

    /// An attempt in the trace of its job.
    fn span(&self, message: &JobMessage, parent: Option<&TraceParent>) -> Span {
        let span = tracing::info_span!(
            "attempt",
            otel.kind = "consumer",
            job.id = %message.job,
            snapshot.id = %message.snapshot,
            job.kind = message.spec.kind().as_str(),
            attempt = i64::from(message.attempt.get()),
            worker.id = %self.config.id,
            region = %self.config.region,
            outcome = tracing::field::Empty,
            otel.status_code = tracing::field::Empty,
        );
        telemetry::trace::set_parent(&span, parent.map(TraceParent::as_str));
        span
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<Notify>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An acknowledgement that was not confirmed costs a delivery, not correctness.
fn done(confirmed: Result<(), slipway_bus::AckError>) {
    if let Err(error) = confirmed {
        tracing::debug!(error = telemetry::chain(&error), "the message may come again");
    }
}
