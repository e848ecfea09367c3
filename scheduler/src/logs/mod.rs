//! Logs of jobs: while they run, from the region's stream; afterwards, from the
//! region's object store.
//!
//! Owns putting entries in order ([`slipway_domain::LogMerge`]), handing them to
//! any number of readers, and archiving. Invariant: every reader, live or late,
//! gets the same entries in the same order, and the last one is the end, which
//! comes only when every snapshot of the job has heard how it ended.

mod archive;
mod chunk;
mod end;
mod piece;
mod spool;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use slipway_blobstore::Store;
use slipway_bus::Bus;
use slipway_domain::job::{JobRecord, LogState};
use slipway_domain::{JobId, LogEntry, LogEvent, LogSeq, Region};
use slipway_runtime::Tasks;

use crate::view::View;
use spool::Spool;

pub use piece::{Piece, Pieces};

/// Why a log cannot be read or archived.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such job.
    #[error("there is no job `{0}`")]
    UnknownJob(JobId),
    /// The stream cannot be read or written.
    #[error("the log stream of job `{job}` does not answer")]
    Stream {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: slipway_bus::logs::Error,
    },
    /// The object store cannot be read or written.
    #[error("the archived log of job `{job}` cannot be reached")]
    Store {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: slipway_blobstore::Error,
    },
    /// A temporary file cannot be used.
    #[error("cannot spool the log of job `{job}`")]
    Spool {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The stream did not answer in time.
    #[error("the log stream of job `{job}` did not answer in time")]
    NoAnswer {
        /// The job.
        job: JobId,
    },
    /// The log in the stream has no end, although it was written.
    #[error("the log of job `{job}` is incomplete in its stream")]
    Incomplete {
        /// The job.
        job: JobId,
    },
    /// What follows the log was stopped before its end.
    #[error("the log of job `{job}` was interrupted")]
    Interrupted {
        /// The job.
        job: JobId,
    },
    /// What is stored is no log.
    #[error("the log of job `{job}` holds an entry that cannot be read")]
    Entry {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The logs of all jobs. Share it in an `Arc`.
#[derive(Debug)]
pub struct Logs {
    bus: Bus,
    view: Arc<View>,
    stores: BTreeMap<Region, Store>,
    tasks: Tasks,
    spools: Mutex<HashMap<JobId, Weak<Spool>>>,
}

/// Entries of an archived log, in order.
type Entries = BoxStream<'static, Result<LogEntry, Error>>;

impl Logs {
    /// Logs over the bus and the regions' object stores.
    #[must_use]
    pub fn new(bus: Bus, view: Arc<View>, stores: BTreeMap<Region, Store>, tasks: Tasks) -> Self {
        Self { bus, view, stores, tasks, spools: Mutex::default() }
    }

    /// The entries of a job's log after `after`. With `follow` the stream goes
    /// on until the job is over; without, it ends with what is there now.
    ///
    /// # Errors
    /// There is no such job, or its log cannot be reached.
    pub async fn read(&self, job: JobId, after: LogSeq, follow: bool) -> Result<Pieces, Error> {
        let record = self.record(job)?;
        let pieces = self.pieces(&record, after, follow).await?;
        Ok(end::after_snapshots(self.view.clone(), &record, pieces))
    }

    async fn pieces(
        &self,
        record: &JobRecord,
        after: LogSeq,
        follow: bool,
    ) -> Result<Pieces, Error> {
        let job = record.id;
        if record.log == LogState::Archived {
            let entries = archive::read(self.store(record)?, job, after).await?;
            return Ok(piece::of_entries(entries));
        }
        if follow {
            return Ok(self.spool(record)?.read(after));
        }
        let earlier = archive::earlier_life(self.store(record)?, record).await?;
        let earlier = piece::after(piece::of_entries(earlier), after);
        let stream = chunk::read_now(&self.bus, &record.region, job, after);
        self.rest_from_archive(record, earlier.chain(stream).boxed(), after)
    }

    /// The log may be archived and purged while it is read from the stream: then
    /// the rest of it comes from the archive.
    fn rest_from_archive(
        &self,
        record: &JobRecord,
        stream: Pieces,
        after: LogSeq,
    ) -> Result<Pieces, Error> {
        let (job, view, store) = (record.id, self.view.clone(), self.store(record)?.clone());
        let last = Arc::new(AtomicU64::new(after.get()));
        let seen = last.clone();
        let stream =
            stream.inspect_ok(move |piece| seen.store(piece.last().get(), Ordering::Relaxed));
        let rest = stream::once(async move {
            let last = LogSeq::from_u64(last.load(Ordering::Relaxed));
            let log = view.records().job(&job).map(|entry| entry.value.log);
            if last < LogSeq::END && log == Some(LogState::Archived) {
                return Ok(piece::of_entries(archive::read(&store, job, last).await?));
            }
            Ok(stream::empty().boxed())
        });
        Ok(stream.chain(rest.try_flatten()).boxed())
    }

    /// The spool that follows a running job, shared by all its readers.
    fn spool(&self, record: &JobRecord) -> Result<Arc<Spool>, Error> {
        let mut spools = self.spools.lock().unwrap_or_else(PoisonError::into_inner);
        spools.retain(|_, spool| spool.strong_count() > 0);
        let known = spools.get(&record.id).and_then(Weak::upgrade);
        let same_life = |spool: &Arc<Spool>| spool.life() == record.revival.redrives;
        if let Some(spool) = known.filter(|spool| !spool.is_broken()).filter(same_life) {
            return Ok(spool);
        }
        let source = spool::Source {
            job: record.id,
            record: record.clone(),
            bus: self.bus.clone(),
            view: self.view.clone(),
            store: self.store(record)?.clone(),
        };
        let spool = Arc::new(Spool::start(source, &self.tasks)?);
        spools.insert(record.id, Arc::downgrade(&spool));
        Ok(spool)
    }

    fn record(&self, job: JobId) -> Result<Arc<JobRecord>, Error> {
        let record = self.view.records().job(&job).map(|entry| entry.value);
        record.ok_or(Error::UnknownJob(job))
    }

    fn store(&self, record: &JobRecord) -> Result<&Store, Error> {
        // A job of a region that was taken out of the configuration is as good
        // as unknown: nobody can say where its log lies.
        self.stores.get(&record.region).ok_or(Error::UnknownJob(record.id))
    }
}

/// What the entries of a piece are in the plain log; empty if none is text.
///
/// # Errors
/// What is stored is no log.
pub fn text(job: JobId, piece: &Piece) -> Result<Bytes, Error> {
    let mut plain = String::with_capacity(piece.size());
    for entry in piece.entries(job) {
        let (mark, text) = match entry?.event {
            LogEvent::Line { text, .. } => ("", text),
            LogEvent::Step(_) | LogEvent::End { reason: None, .. } => continue,
            LogEvent::End { reason: Some(reason), .. } => ("ERROR: ", reason),
        };
        for part in [mark, &text, "\n"] {
            plain.push_str(part);
        }
    }
    Ok(plain.into())
}
