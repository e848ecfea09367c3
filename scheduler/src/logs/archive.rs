//! Archived logs: JSON lines, zstd, one object for each job.

use std::io;
use std::time::Duration;

use async_compression::tokio::bufread::{ZstdDecoder, ZstdEncoder};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use slipway_blobstore::{ObjectKey, Store};
use slipway_bus::Bus;
use slipway_bus::logs::Item;
use slipway_domain::job::JobRecord;
use slipway_domain::{JobId, LogEntry, LogEvent, LogMerge, LogSeq, Region};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::io::{ReaderStream, StreamReader};

use super::{Entries, Error, Logs, chunk};

/// How long the stream may take to store one entry.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to archive a log.
const ARCHIVE_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Bytes of a piece on its way to the store. Most logs are smaller, and three such
/// buffers are filled with zeros for each.
const PIECE: usize = 64 << 10;

impl Logs {
    /// Ends the log of a job that is over and archives it, after what the archive
    /// has of an earlier life of the job. May be repeated. Returns the place in
    /// the stream up to which it is archived.
    ///
    /// # Errors
    /// The stream or the store cannot be reached; nothing is lost then.
    pub async fn seal(&self, record: &JobRecord) -> Result<u64, Error> {
        let job = record.id;
        self.end(record).await?;
        let store = self.store(record)?;
        if let Some((log, last)) = short(&self.bus, record).await {
            write_short(store, job, &log).await?;
            return Ok(last);
        }
        let written = write(&self.bus, store, record);
        match tokio::time::timeout(ARCHIVE_DEADLINE, written).await {
            Ok(written) => written,
            Err(_) => Err(Error::NoAnswer { job }),
        }
    }

    /// Removes what [`Logs::seal`] has archived from the stream, and nothing that
    /// came later: the job may have been redriven meanwhile.
    ///
    /// # Errors
    /// The stream cannot be reached.
    pub async fn purge(&self, job: JobId, region: &Region, last: u64) -> Result<(), Error> {
        let purged = self.bus.logs().purge_to(region, job, last).await;
        purged.map(|_| ()).map_err(|source| Error::Stream { job, source })
    }

    /// The place in the stream of the last chunk of a job, if it has any.
    ///
    /// # Errors
    /// The stream cannot be read.
    pub async fn last_chunk(&self, job: JobId, region: &Region) -> Result<Option<u64>, Error> {
        let logs = self.bus.logs();
        let chunks = match tokio::time::timeout(DEADLINE, logs.read_all(region, job)).await {
            Ok(chunks) => chunks.map_err(|source| Error::Stream { job, source })?,
            Err(_) => return Err(Error::NoAnswer { job }),
        };
        Ok(chunks.last().map(|chunk| chunk.stream_seq))
    }

    /// Deletes a job's log for good.
    ///
    /// # Errors
    /// The stream or the store cannot be reached.
    pub async fn delete(&self, record: &JobRecord) -> Result<(), Error> {
        let job = record.id;
        let purged = self.bus.logs().purge(&record.region, job).await;
        purged.map_err(|source| Error::Stream { job, source })?;
        let deleted = self.store(record)?.delete(&ObjectKey::JobLog(*job.as_uuid())).await;
        deleted.map_err(|source| Error::Store { job, source })
    }

    /// Appends the last entry, after which nothing counts.
    pub(crate) async fn end(&self, record: &JobRecord) -> Result<(), Error> {
        let event = LogEvent::End {
            state: record.state.name().to_owned(),
            reason: record.state.failure().map(|failure| failure.message.clone()),
        };
        // The record's own time, so that a repeat says the same.
        let entry = LogEntry { seq: LogSeq::END, time: record.updated_at, event };
        let name = match record.revival.redrives {
            0 => "end".to_owned(),
            n => format!("end/{n}"),
        };
        self.append(record, &entry, &name).await
    }

    /// Notes at the head of the log why the job waits, before any attempt.
    ///
    /// # Errors
    /// The stream cannot be reached.
    pub async fn note_waiting(&self, record: &JobRecord, reason: &str) -> Result<(), Error> {
        if record.revival.redrives > 0 {
            // It would sort before what the archive has already.
            return Ok(());
        }
        let text = format!("waiting: {reason}");
        let event = LogEvent::Line { source: slipway_domain::log::LogSource::System, text };
        let seq = LogSeq::new(slipway_domain::AttemptNumber::new(0), 1);
        let entry = LogEntry { seq, time: Timestamp::now(), event };
        self.append(record, &entry, "waiting").await
    }

    async fn append(&self, record: &JobRecord, entry: &LogEntry, name: &str) -> Result<(), Error> {
        let mut line = serde_json::to_vec(entry).expect("an entry is plain data");
        line.push(b'\n');
        let scheduler = "scheduler".parse().expect("a constant of the right form");
        let message_id = format!("{}/{name}", record.id);
        let (logs, job) = (self.bus.logs(), record.id);
        let published =
            logs.publish_chunk(&record.region, &scheduler, job, line.into(), &message_id);
        match tokio::time::timeout(DEADLINE, published).await {
            Ok(published) => published.map_err(|source| Error::Stream { job, source }),
            Err(_) => Err(Error::NoAnswer { job }),
        }
    }
}

/// A log that is short, as most are, whole, and the place of its end in the stream.
/// Reading it so costs one request, and compressing it at once takes little memory.
async fn short(bus: &Bus, record: &JobRecord) -> Option<(Vec<u8>, u64)> {
    if record.revival.redrives > 0 {
        return None;
    }
    let job = record.id;
    let logs = bus.logs();
    let chunks = logs.first_chunks(&record.region, job).await.inspect_err(|error| {
        let error = slipway_runtime::telemetry::chain(error);
        tracing::debug!(job.id = %job, error, "reading the log another way");
    });
    let mut merge = LogMerge::after(LogSeq::ZERO);
    let mut log = vec![];
    for chunk in chunks.ok()? {
        for (_, line) in chunk::accept(job, &chunk.bytes, &mut merge) {
            log.extend_from_slice(line);
        }
        if merge.ended() {
            note_gaps(job, &merge);
            return Some((log, chunk.stream_seq));
        }
    }
    None
}

async fn write_short(store: &Store, job: JobId, log: &[u8]) -> Result<(), Error> {
    let packed = zstd::bulk::compress(log, zstd::DEFAULT_COMPRESSION_LEVEL);
    let packed = packed.map_err(|source| Error::Spool { job, source })?;
    let key = ObjectKey::JobLog(*job.as_uuid());
    let written = store.put_bytes(&key, packed);
    match tokio::time::timeout(ARCHIVE_DEADLINE, written).await {
        Ok(written) => written.map_err(|source| Error::Store { job, source }),
        Err(_) => Err(Error::NoAnswer { job }),
    }
}

fn note_gaps(job: JobId, merge: &LogMerge) {
    if merge.gaps() > 0 {
        tracing::warn!(job.id = %job, gaps = merge.gaps(), "the log lacks entries");
    }
}

/// Copies a log from the stream to the store, compressed on the way, after what
/// the store has of the job's earlier life. Returns the place of its end in the
/// stream.
async fn write(bus: &Bus, store: &Store, record: &JobRecord) -> Result<u64, Error> {
    let (region, job) = (&record.region, record.id);
    let (plain, mut sink) = tokio::io::duplex(PIECE);
    let encoder = ZstdEncoder::new(BufReader::with_capacity(PIECE, plain));
    let mut pieces = ReaderStream::with_capacity(encoder, PIECE);
    let feed = async {
        let mut merge = LogMerge::after(LogSeq::ZERO);
        let mut earlier = earlier_life(store, record).await?;
        while let Some(entry) = earlier.next().await {
            let entry = entry?;
            if merge.accept(&entry) {
                let mut line = serde_json::to_vec(&entry).expect("an entry is plain data");
                line.push(b'\n');
                let written = sink.write_all(&line).await;
                written.map_err(|source| Error::Spool { job, source })?;
            }
        }
        let mut reader = bus.logs().follow(region, job);
        let mut last = 0;
        while !merge.ended() {
            match reader.next().await.map_err(|source| Error::Stream { job, source })? {
                Item::Chunk(chunk) => {
                    last = chunk.stream_seq;
                    let accepted = chunk::accept(job, &chunk.bytes, &mut merge);
                    let bytes = accepted.map(|(_, line)| line).collect::<Vec<_>>().concat();
                    let written = sink.write_all(&bytes).await;
                    written.map_err(|source| Error::Spool { job, source })?;
                }
                Item::Reset => {}
                Item::CaughtUp => break,
            }
        }
        if !merge.ended() {
            // Its end was written before this began: somebody else has archived
            // and purged it meanwhile, and that archive is whole.
            return Err(Error::Incomplete { job });
        }
        note_gaps(job, &merge);
        drop(sink);
        Ok(last)
    };
    let store_it = async {
        let mut writer = store.writer(ObjectKey::JobLog(*job.as_uuid()));
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|source| Error::Spool { job, source })?;
            let written = writer.write(piece).await;
            written.map_err(|source| Error::Store { job, source })?;
        }
        Ok::<_, Error>(writer)
    };
    // A writer that is dropped, because the other half failed, cleans up.
    let (last, writer) = tokio::try_join!(feed, store_it)?;
    writer.commit().await.map_err(|source| Error::Store { job, source })?;
    Ok(last)
}

/// What the archive has of a job from before it was redriven, without the end
/// that it had then.
pub(super) async fn earlier_life(store: &Store, record: &JobRecord) -> Result<Entries, Error> {
    if record.revival.redrives == 0 {
        return Ok(stream::empty().boxed());
    }
    match read(store, record.id, LogSeq::ZERO).await {
        Ok(entries) => {
            let goes_on = |entry: &LogEntry| std::future::ready(entry.seq < LogSeq::END);
            Ok(entries.try_filter(goes_on).boxed())
        }
        Err(Error::Store { source, .. }) if source.is_not_found() => Ok(stream::empty().boxed()),
        Err(error) => Err(error),
    }
}

/// The entries of an archived log after `after`.
pub(super) async fn read(store: &Store, job: JobId, after: LogSeq) -> Result<Entries, Error> {
    let object = store.get(&ObjectKey::JobLog(*job.as_uuid()), None).await;
    let object = object.map_err(|source| Error::Store { job, source })?;
    let bytes = object.into_stream().map_err(io::Error::other);
    let lines = BufReader::new(ZstdDecoder::new(StreamReader::new(bytes))).lines();
    let entries = stream::try_unfold(lines, move |mut lines| async move {
        let line = lines.next_line().await.map_err(|source| Error::Spool { job, source })?;
        let Some(line) = line else { return Ok(None) };
        Ok(Some((chunk::parse(job, line.as_bytes())?, lines)))
    });
    let wanted = entries.try_filter(move |entry| std::future::ready(entry.seq > after));
    Ok(wanted.boxed())
}
