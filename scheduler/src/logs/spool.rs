//! A running job's log, spooled to a file that all its readers share.
//!
//! One consumer of the stream per followed job, however many read it; memory
//! does not grow with the log or with the readers. The file has no name and goes
//! with the last reader. Invariant: what is in the file is the merged log, and
//! it only grows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use slipway_blobstore::Store;
use slipway_bus::Bus;
use slipway_bus::logs::Item;
use slipway_domain::job::{JobRecord, LogState};
use slipway_domain::{JobId, LogEntry, LogEvent, LogMerge, LogSeq};
use slipway_runtime::Tasks;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::piece::{Piece, Pieces};
use super::{Error, archive, chunk, piece};
use crate::view::View;

/// Bytes that a reader takes at a time.
const PIECE: usize = 64 << 10;
/// Small chunks are kept at hand up to so many bytes; of large ones, the last.
const TAIL: usize = 32 << 10;

/// What is followed.
pub(super) struct Source {
    pub(super) job: JobId,
    pub(super) record: JobRecord,
    pub(super) bus: Bus,
    pub(super) view: Arc<View>,
    pub(super) store: Store,
}

/// How far the file goes.
#[derive(Debug, Clone, Default)]
struct Progress {
    bytes: u64,
    ended: bool,
    /// The last lines of the file. Who reads along, as a thousand may, takes them
    /// from here.
    tail: Bytes,
}

impl Progress {
    fn add(&mut self, lines: &Bytes, ended: bool) {
        self.bytes += lines.len() as u64;
        self.ended = ended;
        let is_small = self.tail.len() + lines.len() <= TAIL && !self.tail.is_empty();
        self.tail = match is_small {
            true => [&self.tail[..], lines].concat().into(),
            false => lines.clone(),
        };
    }

    /// What the file has from `offset` on, if that is at hand.
    fn since(&self, offset: u64) -> Option<Bytes> {
        let start = offset.checked_sub(self.bytes - self.tail.len() as u64)?;
        Some(self.tail.slice(usize::try_from(start).ok()?..))
    }
}

/// A spooled log; its task ends when this is dropped.
#[derive(Debug)]
pub(super) struct Spool {
    job: JobId,
    life: u32,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    task: JoinHandle<()>,
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Spool {
    /// Starts to follow a job.
    pub(super) fn start(source: Source, tasks: &Tasks) -> Result<Self, Error> {
        let (job, life) = (source.job, source.record.revival.redrives);
        let file = tempfile::tempfile().map_err(|source| Error::Spool { job, source })?;
        let file = Arc::new(file);
        let (sender, progress) = watch::channel(Progress::default());
        let merge = LogMerge::after(LogSeq::ZERO);
        let writer = Writer { file: file.clone(), progress: sender, merge, job };
        let task = tasks.spawn("log-spool", async move {
            if let Err(error) = follow(source, writer).await {
                let error = slipway_runtime::telemetry::chain(&error);
                tracing::warn!(job.id = %job, error, "following a log failed");
            }
        });
        Ok(Self { job, life, file, progress, task })
    }

    /// How often the job was redriven before this was begun.
    pub(super) fn life(&self) -> u32 {
        self.life
    }

    /// Whether it stopped before the end of the log.
    pub(super) fn is_broken(&self) -> bool {
        self.task.is_finished() && !self.progress.borrow().ended
    }

    /// The entries after `after`, until the end of the log, or until an error if
    /// the log cannot be followed any more.
    pub(super) fn read(self: Arc<Self>, after: LogSeq) -> Pieces {
        let reader = Reader { progress: self.progress.clone(), spool: self, offset: 0 };
        let pieces = stream::try_unfold(reader, |mut reader| async move {
            let piece = reader.next().await?;
            Ok::<_, Error>(piece.map(|piece| (piece, reader)))
        });
        piece::after(pieces.boxed(), after)
    }
}

struct Reader {
    spool: Arc<Spool>,
    progress: watch::Receiver<Progress>,
    offset: u64,
}

impl Reader {
    /// The next entries, as soon as there are any; `None` at the end.
    async fn next(&mut self) -> Result<Option<Piece>, Error> {
        let (offset, job) = (self.offset, self.spool.job);
        let more = self.progress.wait_for(|now| now.bytes > offset || now.ended).await;
        // The sender is gone only when the log cannot be followed any more.
        let (end, at_hand) = more
            .map(|now| (now.bytes, now.since(offset)))
            .map_err(|_| Error::Interrupted { job })?;
        let lines = match at_hand {
            Some(lines) => first_lines(lines),
            None => self.spooled(end).await?,
        };
        self.offset += lines.len() as u64;
        Ok(Piece::of(lines))
    }

    /// What the file has between the reader's place and `end`, or a part of it.
    async fn spooled(&self, end: u64) -> Result<Bytes, Error> {
        let (file, offset, job) = (self.spool.file.clone(), self.offset, self.spool.job);
        let spooled = move |source| Error::Spool { job, source };
        let read = tokio::task::spawn_blocking(move || read_lines(&file, offset, end));
        let lines = read.await.map_err(|error| spooled(io::Error::other(error)))?;
        lines.map(Bytes::from).map_err(spooled)
    }
}

/// Whole lines from the beginning of whole lines: about a piece, or one if it is
/// longer.
fn first_lines(lines: Bytes) -> Bytes {
    if lines.len() <= PIECE {
        return lines;
    }
    let end = memchr::memrchr(b'\n', &lines[..PIECE])
        .or_else(|| memchr::memchr(b'\n', &lines))
        .map_or(lines.len(), |at| at + 1);
    lines.slice(..end)
}

/// Whole lines from `offset` on: about a piece, or one line if it is longer.
fn read_lines(file: &File, offset: u64, end: u64) -> io::Result<Vec<u8>> {
    let available = usize::try_from(end - offset).unwrap_or(usize::MAX);
    let mut wanted = PIECE.min(available);
    loop {
        let mut piece = vec![0; wanted];
        file.read_exact_at(&mut piece, offset)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte == b'\n') {
            piece.truncate(last + 1);
            return Ok(piece);
        }
        if wanted == available {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        wanted = (wanted * 2).min(available);
    }
}

struct Writer {
    file: Arc<File>,
    progress: watch::Sender<Progress>,
    merge: LogMerge,
    job: JobId,
}

impl Writer {
    /// Adds what belongs to the log.
    fn add(&mut self, bytes: &Bytes) -> Result<(), Error> {
        let job = self.job;
        let lines = chunk::accepted(job, bytes, &mut self.merge);
        if lines.is_empty() {
            return Ok(());
        }
        let from = self.progress.borrow().bytes;
        let written = self.file.write_all_at(&lines, from);
        written.map_err(|source| Error::Spool { job, source })?;
        let ended = self.merge.ended();
        self.progress.send_modify(|now| now.add(&lines, ended));
        Ok(())
    }

    fn add_entry(&mut self, entry: &LogEntry) -> Result<(), Error> {
        let job = self.job;
        let mut line = serde_json::to_vec(entry).map_err(|source| Error::Entry { job, source })?;
        line.push(b'\n');
        self.add(&line.into())
    }
}

async fn follow(source: Source, mut writer: Writer) -> Result<(), Error> {
    let job = source.job;
    let mut earlier = archive::earlier_life(&source.store, &source.record).await?;
    while let Some(entry) = earlier.next().await {
        writer.add_entry(&entry?)?;
    }
    let items = source.bus.logs().follow(&source.record.region, job).into_stream();
    let mut items = std::pin::pin!(items);
    let mut changes = source.view.changes();
    // What changed before this subscription counts, too.
    changes.mark_changed();
    while !writer.merge.ended() {
        // Cancel-safe: a stream goes on where it was, and a watch loses nothing.
        tokio::select! {
            item = items.next() => match item {
                Some(Ok(Item::Chunk(chunk))) => writer.add(&chunk.bytes)?,
                Some(Ok(Item::CaughtUp | Item::Reset)) => {}
                Some(Err(source)) => return Err(Error::Stream { job, source }),
                None => return Err(Error::Interrupted { job }),
            },
            _ = changes.changed() => finish_elsewhere(&source, &mut writer).await?,
        }
    }
    Ok(())
}

/// The stream is purged once the log is archived, perhaps before it was read to
/// its end: then the rest comes from the archive.
async fn finish_elsewhere(source: &Source, writer: &mut Writer) -> Result<(), Error> {
    let log = source.view.records().job(&source.job).map(|entry| entry.value.log);
    match log {
        Some(LogState::Streamed) => Ok(()),
        Some(LogState::Archived) => {
            let mut entries = archive::read(&source.store, source.job, LogSeq::ZERO).await?;
            while let Some(entry) = entries.next().await {
                writer.add_entry(&entry?)?;
            }
            Ok(())
        }
        None => writer.add_entry(&LogEntry {
            seq: LogSeq::END,
            time: jiff::Timestamp::now(),
            event: LogEvent::End { state: "removed".into(), reason: None },
        }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_at_hand_is_what_the_file_has() {
        let (mut progress, mut file) = (Progress::default(), Vec::new());
        // Small ones are gathered; a large one stands alone, and so does what follows it.
        for size in [10, 20, TAIL - 40, 11, TAIL * 3, 5, 5] {
            let lines = Bytes::from([&vec![b'x'; size - 1][..], b"\n"].concat());
            file.extend_from_slice(&lines);
            progress.add(&lines, false);
            assert_eq!(progress.bytes, file.len() as u64);
            for offset in (0..=file.len()).filter(|at| *at == 0 || file[at - 1] == b'\n') {
                match progress.since(offset as u64) {
                    Some(rest) => assert_eq!(rest, file[offset..]),
                    None => assert!(offset + size < file.len(), "{offset} of {}", file.len()),
                }
            }
        }
        assert!(progress.tail.len() <= TAIL);
    }

    #[test]
    fn a_reader_takes_whole_lines_and_one_however_long() {
        let line = |size: usize| [&vec![b'x'; size - 1][..], b"\n"].concat();
        let taken = |lines: &[usize]| {
            first_lines(lines.iter().flat_map(|size| line(*size)).collect::<Vec<u8>>().into()).len()
        };
        assert_eq!(taken(&[10, 20]), 30);
        assert_eq!(taken(&[PIECE - 5, 20]), PIECE - 5);
        assert_eq!(taken(&[PIECE * 2, 20]), PIECE * 2);
        assert_eq!(taken(&[PIECE * 2]), PIECE * 2);
    }
}
