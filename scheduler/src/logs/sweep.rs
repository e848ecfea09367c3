//! Ridding the streams of logs that are archived, many at a time.
//!
//! To purge a log by itself costs the server as much as to store it, and a stream whose
//! last log goes loses its file and needs another one. So what is archived is noted, and
//! what of it lies at the beginning of the stream goes by one request. What lies behind a
//! log that is still written, or that another scheduler archived, goes by itself after a
//! while. What is noted is forgotten with the process; see [`crate::settle`] for what the
//! next one does about it.
//! Invariant: what is removed is archived, by a record that says so.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use slipway_domain::{JobId, Region};
use tokio::time::Instant;

use super::{Error, Logs};

/// What is archived and may lie in a region's stream still.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// By place in the stream.
    chunks: BTreeMap<u64, Noted>,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    job: JobId,
    since: Instant,
}

impl Shelf {
    fn note(&mut self, job: JobId, places: &[u64], since: Instant) {
        self.chunks.extend(places.iter().map(|place| (*place, Noted { job, since })));
    }

    /// The first place from `first` on of which nothing is known; what lies before
    /// `first` is gone.
    fn known_to(&mut self, first: u64) -> u64 {
        self.forget_before(first);
        let known = self.chunks.keys().zip(first..).take_while(|(place, next)| *place == next);
        first + known.count() as u64
    }

    fn forget_before(&mut self, place: u64) {
        self.chunks = self.chunks.split_off(&place);
    }

    fn forget(&mut self, job: JobId) {
        self.chunks.retain(|_, noted| noted.job != job);
    }

    /// Logs that have waited since `since` or longer, with the place of their last chunk.
    fn waiting_since(&self, since: Instant) -> BTreeMap<JobId, u64> {
        let chunks = self.chunks.iter().filter(|(_, noted)| noted.since <= since);
        chunks.map(|(place, noted)| (noted.job, *place)).collect()
    }
}

impl Logs {
    /// Notes that chunks of a job are archived, as its record says now.
    pub(crate) fn note_archived(&self, region: &Region, job: JobId, places: &[u64]) {
        self.shelf(region, |shelf| shelf.note(job, places, Instant::now()));
    }

    /// Removes what is archived and lies at the beginning of the stream, and each log
    /// that has waited for so long.
    ///
    /// # Errors
    /// The stream cannot be reached.
    pub(crate) async fn sweep(&self, region: &Region, patience: Duration) -> Result<(), Error> {
        let logs = self.bus.logs();
        let failed = |source| Error::Sweep { region: region.clone(), source };
        while !self.shelf(region, |shelf| shelf.chunks.is_empty()) {
            let first = logs.lying(region).await.map_err(failed)?.first;
            let end = self.shelf(region, |shelf| shelf.known_to(first));
            if end == first {
                break;
            }
            logs.purge_before(region, end).await.map_err(failed)?;
            self.shelf(region, |shelf| shelf.forget_before(end));
        }
        let Some(since) = Instant::now().checked_sub(patience) else { return Ok(()) };
        for (job, last) in self.shelf(region, |shelf| shelf.waiting_since(since)) {
            self.purge(job, region, last).await?;
            self.shelf(region, |shelf| shelf.forget(job));
        }
        Ok(())
    }

    fn shelf<T>(&self, region: &Region, look: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        look(shelves.entry(region.clone()).or_default())
    }
}

#[cfg(test)]
mod tests;
