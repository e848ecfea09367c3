//! Taking in very many records at once.
//!
//! Owns what a record that came is found by, until all have come: sorting the indexes
//! once takes much less than finding a place in each for one record after the other.
//! Invariant: after [`Records::complete`] everything is as if the records had come one
//! by one.

use slipway_domain::OrganizationId;

use super::Records;
use super::names::Names;
use super::orders::Line;
use super::page::JobLine;

/// Entries that are allocated at once.
const CHUNK: usize = 4096;

/// What records are found by that came so far.
#[derive(Debug, Default)]
pub(super) struct Loading {
    pub(super) snapshots: Journal<Line>,
    pub(super) jobs: Journal<(OrganizationId, JobLine)>,
}

/// Entries with the revisions of their records, in the order in which they came. A
/// record that came again or was deleted since has another revision, or none. In
/// chunks: one piece that grows would leave holes as large as itself.
#[derive(Debug)]
pub(super) struct Journal<T>(Vec<Vec<(T, u64)>>);

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T> Journal<T> {
    pub(super) fn push(&mut self, entry: T, revision: u64) {
        match self.0.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push((entry, revision)),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push((entry, revision));
                self.0.push(chunk);
            }
        }
    }

    fn retain(&mut self, is_current: impl Fn(&T, u64) -> bool) {
        for chunk in &mut self.0 {
            chunk.retain(|(entry, revision)| is_current(entry, *revision));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten().map(|(entry, _)| entry)
    }
}

impl Records {
    /// Nothing yet, and very many records are to come. Until [`Self::complete`] they are
    /// found by id and name alone.
    #[must_use]
    pub fn loading() -> Self {
        Self { names: Names::loading(), loading: Some(Loading::default()), ..Self::default() }
    }

    /// Puts all that came since [`Self::loading`] into the indexes at once.
    pub fn complete(&mut self) {
        let Some(Loading { mut snapshots, mut jobs }) = self.loading.take() else { return };
        jobs.retain(|(_, job), revision| self.jobs.revision(&job.id) == Some(revision));
        self.index.fill_jobs(&jobs);
        // Their room is that of the next indexes.
        drop(jobs);
        snapshots.retain(|line, revision| self.snapshots.revision(&line.id) == Some(revision));
        snapshots.iter().for_each(|line| self.note(line));
        self.followers = snapshots.iter().map(|line| (line.job, line.id)).collect();
        self.index.fill_snapshots(&snapshots);
        self.names.complete();
        self.begin_all();
    }
}
