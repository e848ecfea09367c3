//! One run: the system comes up, is used and hurt, settles, and is judged.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Serialize;
use slipway_api::Client;
use slipway_api::client::{Retry, Settings as ClientSettings};
use slipway_blobstore::ObjectKey;
use slipway_bus::Bus;
use slipway_domain::job::LogState;
use slipway_runtime::Tasks;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::history::{Entry, History, Observe, What};
use crate::invariants::{self, Violation};
use crate::look::{self, Look};
use crate::plan::{self, Fault, Step};
use crate::records::Watcher;
use crate::settings::{Settings, Spoil};
use crate::source::Source;
use crate::system::{LOOK, System};
use crate::traffic::Traffic;

/// How long the system may take to come up.
const START: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What was done to the system, by kind.
    pub blows: BTreeMap<&'static str, u64>,
    /// Requests by what was answered.
    pub answers: BTreeMap<&'static str, u64>,
    /// Snapshots by their state at the end.
    pub ends: BTreeMap<String, u64>,
    /// Attempts of the jobs that were there at the end.
    pub attempts: u64,
    /// How long it took until nothing moved any more, in milliseconds; absent if it
    /// never did.
    pub settled_ms: Option<u64>,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
    /// Whether it was ended early.
    pub stopped: bool,
}

/// Runs `settings` until it is over or `stop` is cancelled, which ends the blows
/// early and goes on to the check. `observe` is told what happens meanwhile.
///
/// # Errors
/// The harness itself could not go on.
pub async fn run(
    settings: &Settings,
    observe: Box<Observe>,
    stop: &CancellationToken,
) -> Result<Outcome, Error> {
    let history = History::create(&settings.history, observe)
        .map_err(|source| Error::Write { path: settings.history.clone(), source })?;
    let history = Arc::new(history);
    history.note(What::Began { seed: settings.seed, shape: settings.shape() });
    let tasks = Tasks::new();
    let source = Source::start(settings.seed, &tasks).await.map_err(Error::Port)?;
    let system = System::start(settings, Arc::clone(&history)).await?;
    let judged = hurt_and_judge(settings, &system, source, &history, stop).await;
    system.stop().await;
    tasks.shut_down(Duration::from_secs(1)).await;
    judged?;
    Ok(outcome(settings.seed, &history.entries(), stop.is_cancelled()))
}

async fn hurt_and_judge(
    settings: &Settings,
    system: &System,
    source: Source,
    history: &Arc<History>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let nats = slipway_bus::Config::new(format!("nats://{}", system.nats), "chaos");
    let bus = slipway_bus::connect(&nats).await.map_err(Error::Connect)?;
    let clients = clients(system)?;
    ready(settings, system, &clients).await?;
    let watcher = Watcher::new(&bus, Arc::clone(history));
    let work = async {
        let seed = settings.seed;
        let (clients, history) = (clients.clone(), Arc::clone(history));
        let traffic = Traffic { seed, clients: clients.clone(), source, history };
        let enough = CancellationToken::new();
        let blows = async {
            hurt(settings, system, &watcher, stop).await;
            system.heal();
            enough.cancel();
        };
        tended(system, async { tokio::join!(traffic.run(&enough), blows) }).await;
        tended(system, traffic.prove(settings.settle)).await;
        judge(settings, system, &bus, &clients, &watcher).await
    };
    // Cancel-safe: nobody goes on with either.
    tokio::select! {
        judged = work => judged,
        broken = watcher.run() => {
            let error = broken.expect_err("the watch never ends by itself");
            Err(Error::Read(error.into()))
        }
    }
}

/// Lets the blows fall at their times, and returns when the last is over.
async fn hurt(settings: &Settings, system: &System, watcher: &Watcher, stop: &CancellationToken) {
    let begun = Instant::now();
    let mut falling = FuturesUnordered::new();
    let plan = plan::faults(settings.seed, &settings.shape(), settings.length);
    let mut plan = plan.into_iter().peekable();
    while let Some(Step { at_ms, .. }) = plan.peek() {
        let due = begun + Duration::from_millis(*at_ms);
        // Cancel-safe: blows stay in the set.
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep_until(due) => {
                let Some(Step { fault, .. }) = plan.next() else { break };
                watcher.history().note(What::Blow(fault.clone()));
                falling.push(blow(system, watcher, fault));
            }
            Some(()) = falling.next() => {}
        }
    }
    while falling.next().await.is_some() {}
}

/// Starts again what ends by itself while something else goes on.
async fn tended<T>(system: &System, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        // Cancel-safe: the work goes on where it was.
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => system.tend(),
        }
    }
}

async fn blow(system: &System, watcher: &Watcher, fault: Fault) {
    match fault {
        Fault::RepeatJobs { count, stale } => watcher.repeat_jobs(count, stale).await,
        Fault::RepeatEvents { count } => watcher.repeat_events(count).await,
        fault => system.suffer(&fault).await,
    }
}

async fn judge(
    settings: &Settings,
    system: &System,
    bus: &Bus,
    clients: &[Client],
    watcher: &Watcher,
) -> Result<(), Error> {
    let look = Look { system, bus, clients, watcher, history: watcher.history() };
    look.settle(settings.settle).await;
    if let Some(spoil) = settings.spoil {
        break_on_purpose(system, watcher, spoil).await?;
    }
    look.write_down().await
}

/// A client for each scheduler, with little patience.
fn clients(system: &System) -> Result<Vec<Client>, Error> {
    let patience = ClientSettings {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(20),
        retry: Retry { attempts: 2, ..Retry::default() },
        ..ClientSettings::default()
    };
    let client = |address: &std::net::SocketAddr| {
        let url = format!("http://{address}/api").parse().expect("an address is one of a URL");
        let key = system.key.clone().into();
        Client::with_settings(url, &key, patience.clone()).map_err(Error::Client)
    };
    system.apis.iter().map(client).collect()
}

/// Waits until every scheduler knows every worker.
async fn ready(settings: &Settings, system: &System, clients: &[Client]) -> Result<(), Error> {
    let regions = settings.shape().regions;
    let wanted: usize = regions.iter().map(|region| region.workers as usize).sum();
    let begun = Instant::now();
    for (n, client) in (1..).zip(clients) {
        loop {
            let workers = client.workers().await.map(|workers| workers.len());
            if matches!(workers, Ok(count) if count == wanted) {
                break;
            }
            system.tend();
            if begun.elapsed() > START {
                let waiting = format!("scheduler {n} knows {workers:?} workers of {wanted}");
                return Err(Error::NotUp { waiting, logs: settings.folder.join("logs") });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Breaks one promise, so that it can be seen that the check sees it.
async fn break_on_purpose(system: &System, watcher: &Watcher, spoil: Spoil) -> Result<(), Error> {
    let records = watcher.records();
    if spoil == Spoil::Log {
        let archived = records.jobs.values().filter(|(job, _)| job.log == LogState::Archived);
        for (job, _) in archived.take(1) {
            let store = look::open(system, &job.region)?;
            let log = ObjectKey::JobLog(*job.id.as_uuid());
            store.delete(&log).await.map_err(Error::Store)?;
        }
        return Ok(());
    }
    for (snapshot, _) in records.snapshots.values() {
        let Some(image) = snapshot.state.image() else { continue };
        let store = look::open(system, &snapshot.region)?;
        let blobs = look::blobs(&store, &image.digest).await.unwrap_or_default();
        let Some(last) = blobs.last() else { continue };
        let key = ObjectKey::Blob(*last);
        let spoilt = match spoil {
            Spoil::Blob => store.delete(&key).await,
            _ => store.put_bytes(&key, "spoilt").await,
        };
        return spoilt.map_err(Error::Store);
    }
    Ok(())
}

fn outcome(seed: u64, history: &[Entry], stopped: bool) -> Outcome {
    let mut outcome = Outcome {
        seed,
        blows: BTreeMap::new(),
        answers: BTreeMap::new(),
        ends: BTreeMap::new(),
        attempts: 0,
        settled_ms: None,
        violations: invariants::check(history),
        stopped,
    };
    for entry in history {
        match &entry.what {
            What::Blow(fault) => *outcome.blows.entry(fault.name()).or_default() += 1,
            What::Acknowledged { .. } => *outcome.answers.entry("acknowledged").or_default() += 1,
            What::Refused { .. } => *outcome.answers.entry("refused").or_default() += 1,
            What::Unknown { .. } => *outcome.answers.entry("unanswered").or_default() += 1,
            What::Deleted { .. } => *outcome.answers.entry("deleted").or_default() += 1,
            What::LastSnapshot(seen) => {
                *outcome.ends.entry(seen.state.clone()).or_default() += 1;
            }
            What::LastJob(seen) => outcome.attempts += u64::from(seen.attempt),
            What::Settled { after_ms } => outcome.settled_ms = Some(*after_ms),
            _ => {}
        }
    }
    outcome
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
            let counts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
            counts.join(", ")
        }
        writeln!(f, "seed      {}", self.seed)?;
        writeln!(f, "blows     {}", list(&self.blows))?;
        writeln!(f, "requests  {}", list(&self.answers))?;
        writeln!(f, "ends      {}; {} attempts", list(&self.ends), self.attempts)?;
        match self.settled_ms {
            Some(ms) => writeln!(f, "settled   {:.1} s after the last blow", ms as f64 / 1e3)?,
            None => writeln!(f, "settled   never")?,
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION {violation}")?;
        }
        Ok(())
    }
}
