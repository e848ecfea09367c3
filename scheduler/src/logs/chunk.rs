//! Chunks of the log stream: JSON lines, one entry each.

use futures::{Stream, StreamExt as _, stream};
use slipway_bus::Bus;
use slipway_bus::logs::{Item, LogReader};
use slipway_domain::{JobId, LogEntry, LogMerge, LogSeq, Region};

use super::{Entries, Error};

/// The entries of a chunk that belong to the log, each with its line. One that
/// cannot be read is left out, which shows as a gap.
pub(super) fn accept<'a>(
    job: JobId,
    bytes: &'a [u8],
    merge: &'a mut LogMerge,
) -> impl Iterator<Item = (LogEntry, &'a [u8])> + 'a {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(move |line| match parse(job, line) {
        Ok(entry) => merge.accept(&entry).then_some((entry, line)),
        Err(error) => {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(job.id = %job, error, "a log entry is left out");
            None
        }
    })
}

/// Reads one line.
pub(super) fn parse(job: JobId, line: &[u8]) -> Result<LogEntry, Error> {
    serde_json::from_slice(line).map_err(|source| Error::Entry { job, source })
}

/// The log as the stream has it now.
pub(super) fn read_now(bus: &Bus, region: &Region, job: JobId, after: LogSeq) -> Entries {
    let reader = bus.logs().follow(region, job);
    until_caught_up(reader, job)
        .flat_map(move |chunk| match chunk {
            Ok(entries) => stream::iter(entries.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        })
        .filter(move |entry| {
            let wanted = entry.as_ref().map_or(true, |entry| entry.seq > after);
            std::future::ready(wanted)
        })
        .boxed()
}

/// The accepted entries of each chunk until all that was there has been read.
fn until_caught_up(
    reader: LogReader,
    job: JobId,
) -> impl Stream<Item = Result<Vec<LogEntry>, Error>> {
    let state = Some((reader, LogMerge::after(LogSeq::ZERO)));
    stream::unfold(state, move |state| async move {
        let (mut reader, mut merge) = state?;
        loop {
            match reader.next().await {
                Ok(Item::Chunk(chunk)) => {
                    let accepted = accept(job, &chunk.bytes, &mut merge);
                    let entries = accepted.map(|(entry, _)| entry).collect();
                    return Some((Ok(entries), Some((reader, merge))));
                }
                // What follows begins anew; the merge drops what was handed out.
                Ok(Item::Reset) => {}
                Ok(Item::CaughtUp) => return None,
                Err(source) => return Some((Err(Error::Stream { job, source }), None)),
            }
        }
    })
}
