//! Parts of a log on their way to a reader, as they are stored.
//!
//! Owns what can be done with entries without reading them in full: a reader takes
//! tens of thousands a second, and a thousand readers take the same. Invariant: a
//! piece holds whole entries that were looked at when they came in, one JSON line
//! each, in order, and at least one.

use std::iter;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use slipway_domain::log::seq_of;
use slipway_domain::{JobId, LogEntry, LogSeq};

use super::{Entries, Error, chunk};

/// Entries that were read one by one and travel on together, at most.
const TOGETHER: usize = 256;

/// Pieces of a log, in order.
pub type Pieces = BoxStream<'static, Result<Piece, Error>>;

/// Some entries of a log that follow each other.
#[derive(Debug, Clone)]
pub struct Piece {
    lines: Bytes,
}

impl Piece {
    /// Of whole lines, if there are any.
    pub(crate) fn of(lines: Bytes) -> Option<Self> {
        (!lines.is_empty()).then_some(Self { lines })
    }

    fn of_entries(entries: &[LogEntry]) -> Option<Self> {
        let mut lines = Vec::new();
        for entry in entries {
            serde_json::to_writer(&mut lines, entry).expect("an entry is plain data");
            lines.push(b'\n');
        }
        Self::of(lines.into())
    }

    /// Each entry as JSON, with its number.
    pub fn lines(&self) -> impl Iterator<Item = (LogSeq, &[u8])> {
        let mut rest = &self.lines[..];
        let lines = iter::from_fn(move || {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len().checked_sub(1)?);
            let (line, others) = rest.split_at(end + 1);
            rest = others;
            Some(line.strip_suffix(b"\n").unwrap_or(line))
        });
        lines.filter_map(|line| Some((seq_of(line)?, line)))
    }

    /// Each entry, read in full.
    pub fn entries(&self, job: JobId) -> impl Iterator<Item = Result<LogEntry, Error>> {
        self.lines().map(move |(_, line)| chunk::parse(job, line))
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.lines.len()
    }

    /// The number of its last entry.
    pub(super) fn last(&self) -> LogSeq {
        seq_of(&self.lines[self.last_line()..]).unwrap_or(LogSeq::ZERO)
    }

    /// Its entries after `after`, if there are any.
    pub(super) fn after(self, after: LogSeq) -> Option<Self> {
        // Most of the time all are wanted, or none.
        if self.last() <= after {
            return None;
        }
        let lines = self.lines.split_inclusive(|byte| *byte == b'\n');
        let known = lines.take_while(|line| seq_of(line).is_none_or(|seq| seq <= after));
        let start: usize = known.map(<[u8]>::len).sum();
        Self::of(self.lines.slice(start..))
    }

    /// What comes before the end of the log, and the end.
    pub(super) fn split_end(self) -> [Option<Self>; 2] {
        if self.last() < LogSeq::END {
            return [Some(self), None];
        }
        let mut before = self.lines;
        let end = before.split_off(Self { lines: before.clone() }.last_line());
        [Self::of(before), Self::of(end)]
    }

    /// Where its last line begins.
    fn last_line(&self) -> usize {
        let lines = self.lines.strip_suffix(b"\n").unwrap_or(&self.lines);
        memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1)
    }
}

/// Entries that were read one by one.
pub(super) fn of_entries(entries: Entries) -> Pieces {
    let together = entries.try_ready_chunks(TOGETHER).map(|entries| match entries {
        Ok(entries) => [Piece::of_entries(&entries).map(Ok), None],
        Err(stream::TryReadyChunksError(entries, error)) => {
            [Piece::of_entries(&entries).map(Ok), Some(Err(error))]
        }
    });
    together.flat_map(|pieces| stream::iter(pieces.into_iter().flatten())).boxed()
}

/// What comes after `after`.
pub(super) fn after(pieces: Pieces, after: LogSeq) -> Pieces {
    if after == LogSeq::ZERO {
        return pieces;
    }
    pieces.try_filter_map(move |piece| std::future::ready(Ok(piece.after(after)))).boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use jiff::Timestamp;
    use slipway_domain::log::LogSource;
    use slipway_domain::{AttemptNumber, LogEvent};

    use super::*;

    fn line(n: u32) -> LogEntry {
        let seq = LogSeq::new(AttemptNumber::FIRST, n);
        let event = LogEvent::Line { source: LogSource::Stdout, text: format!("line {n}\n\r") };
        LogEntry { seq, time: Timestamp::UNIX_EPOCH, event }
    }

    fn end() -> LogEntry {
        let event = LogEvent::End { state: "succeeded".into(), reason: None };
        LogEntry { seq: LogSeq::END, time: Timestamp::UNIX_EPOCH, event }
    }

    fn entries(piece: &Piece) -> Vec<LogEntry> {
        piece.entries(JobId::from_uuid(uuid::Uuid::nil())).map(Result::unwrap).collect()
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let all = [line(1), line(2), end()];
        let piece = Piece::of_entries(&all).unwrap();
        assert_eq!(entries(&piece), all);
        assert_eq!(piece.last(), LogSeq::END);
        assert!(Piece::of_entries(&[]).is_none());
    }

    #[test]
    fn a_reader_gets_what_comes_after_the_place_it_names() {
        let piece = Piece::of_entries(&[line(1), line(2), line(5)]).unwrap();
        let after = |n: u32| piece.clone().after(LogSeq::new(AttemptNumber::FIRST, n));
        assert_eq!(entries(&after(0).unwrap()).len(), 3);
        assert_eq!(entries(&after(1).unwrap()), [line(2), line(5)]);
        assert_eq!(entries(&after(3).unwrap()), [line(5)]);
        assert!(after(5).is_none());
    }

    #[test]
    fn the_end_is_told_from_what_comes_before() {
        let [before, after] = Piece::of_entries(&[line(1), end()]).unwrap().split_end();
        assert_eq!(entries(&before.unwrap()), [line(1)]);
        assert_eq!(entries(&after.unwrap()), [end()]);
        let [before, after] = Piece::of_entries(&[end()]).unwrap().split_end();
        assert!(before.is_none() && after.is_some());
        let [before, after] = Piece::of_entries(&[line(1)]).unwrap().split_end();
        assert!(before.is_some() && after.is_none());
    }

    #[tokio::test]
    async fn an_error_comes_after_the_entries_before_it() {
        let job = JobId::from_uuid(uuid::Uuid::nil());
        let read = [Ok(line(1)), Ok(line(2)), Err(Error::UnknownJob(job)), Ok(line(3))];
        let pieces: Vec<_> = of_entries(stream::iter(read).boxed()).collect().await;
        let pieces: Vec<_> = pieces.iter().map(|piece| piece.as_ref().map(entries)).collect();
        assert_eq!(pieces[0].as_ref().unwrap(), &[line(1), line(2)]);
        assert!(pieces[1].is_err());
        assert_eq!(pieces[2].as_ref().unwrap(), &[line(3)]);
    }
}
