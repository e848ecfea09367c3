//! A sorted set that knows the rank of its entries, so that a page of any number is
//! found without walking through those before it.
//!
//! Owns chunks of sorted entries, each full or nearly so: an entry costs little more
//! than itself, and one million are two thousand chunks, whose lengths are summed in
//! a microsecond. Refuses duplicates. Invariants: entries ascend over all chunks; no
//! chunk is empty, and none holds more than [`FULL`].

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

/// Most entries of a chunk.
const FULL: usize = 512;

/// A sorted set with ranks from 0.
#[derive(Debug)]
pub struct Ranked<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Ranked<T> {
    fn default() -> Self {
        Self { chunks: vec![], len: 0 }
    }
}

impl<T: Ord> FromIterator<T> for Ranked<T> {
    /// Sorts them all at once: for very many much less than one after the other.
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut entries = Vec::from_iter(entries);
        entries.sort_unstable();
        entries.dedup();
        let len = entries.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(FULL));
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            chunks.push(entries.by_ref().take(FULL).collect());
        }
        Self { chunks, len }
    }
}

impl<T: Ord> Ranked<T> {
    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Takes in an entry, unless it is there.
    pub fn insert(&mut self, entry: T) {
        let at = self.chunk_of(&entry).min(self.chunks.len().saturating_sub(1));
        let is_last = at + 1 >= self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(vec![entry]);
            self.len = 1;
            return;
        };
        let Err(place) = chunk.binary_search(&entry) else { return };
        self.len += 1;
        if chunk.len() < FULL {
            chunk.insert(place, entry);
        } else if is_last && place == FULL {
            // What comes in order leaves full chunks behind, in either direction.
            self.chunks.push(vec![entry]);
        } else if place == 0 {
            self.chunks.insert(at, vec![entry]);
        } else {
            let mut upper = chunk.split_off(FULL / 2);
            match place.checked_sub(FULL / 2) {
                Some(place) => upper.insert(place, entry),
                None => chunk.insert(place, entry),
            }
            self.chunks.insert(at + 1, upper);
        }
    }

    /// Takes an entry out, if it is there.
    pub fn remove(&mut self, entry: &T) {
        let at = self.chunk_of(entry);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        let Ok(place) = chunk.binary_search(entry) else { return };
        chunk.remove(place);
        self.len -= 1;
        let left = chunk.len();
        let next = self.chunks.get(at + 1).map_or(FULL, Vec::len);
        if left == 0 {
            self.chunks.remove(at);
        } else if left + next <= FULL / 2 {
            let next = self.chunks.remove(at + 1);
            self.chunks[at].extend(next);
        }
    }

    /// How many entries there are before the first that is not `before`. All that are
    /// `before` must come first.
    pub fn rank(&self, before: impl Fn(&T) -> bool) -> usize {
        let at = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&before));
        let whole: usize = self.chunks[..at].iter().map(Vec::len).sum();
        whole + self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(before))
    }

    /// The entry of a rank.
    pub fn get(&self, rank: usize) -> Option<&T> {
        self.from(rank).next()
    }

    /// The entries from a rank on, ascending.
    pub fn from(&self, rank: usize) -> impl Iterator<Item = &T> {
        let (at, skip) = self.place(rank);
        self.chunks[at..].iter().flatten().skip(skip)
    }

    /// The entries before a rank, descending.
    pub fn down_from(&self, rank: usize) -> impl Iterator<Item = &T> {
        let (at, skip) = self.place(rank);
        let part = self.chunks.get(at).map_or(&[][..], |chunk| &chunk[..skip]);
        part.iter().rev().chain(self.chunks[..at].iter().rev().flat_map(|chunk| chunk.iter().rev()))
    }

    /// The entries from a position of a list on: in groups that are equal `by` a key,
    /// groups in either direction, and each group ascending in both.
    pub fn listed<'a>(
        &'a self,
        descending: bool,
        start: usize,
        by: impl Fn(&T, &T) -> Ordering + 'a,
    ) -> impl Iterator<Item = &'a T> {
        let ascending = (!descending).then(|| self.from(start));
        let mut position = start;
        let mut probe =
            if descending { self.len.checked_sub(start.saturating_add(1)) } else { None };
        let groups = std::iter::from_fn(move || {
            let entry = self.get(probe?)?;
            let low = self.rank(|other| by(other, entry).is_lt());
            let high = self.rank(|other| by(other, entry).is_le());
            let skip = position - (self.len - high);
            position = self.len - low;
            probe = low.checked_sub(1);
            Some(self.from(low + skip).take(high - low - skip))
        });
        ascending.into_iter().flatten().chain(groups.flatten())
    }

    /// All entries, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The chunk in which an entry lies, or would lie.
    fn chunk_of(&self, entry: &T) -> usize {
        self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| last < entry))
    }

    /// The chunk of a rank, and the place in it.
    fn place(&self, rank: usize) -> (usize, usize) {
        let mut before = 0;
        for (at, chunk) in self.chunks.iter().enumerate() {
            if rank < before + chunk.len() {
                return (at, rank - before);
            }
            before += chunk.len();
        }
        (self.chunks.len(), 0)
    }
}
