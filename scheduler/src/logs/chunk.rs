//! Chunks of the log stream: JSON lines, one entry each.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use slipway_bus::Bus;
use slipway_bus::logs::{Item, LogReader};
use slipway_domain::{JobId, LogEntry, LogMerge, LogSeq, Region};

use super::Error;
use super::piece::{self, Piece, Pieces};

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

/// The lines of a chunk that belong to the log. A chunk that does as a whole, which
/// is the rule, is not copied.
pub(super) fn accepted(job: JobId, bytes: &Bytes, merge: &mut LogMerge) -> Bytes {
    let mut kept = 0;
    let lines: Vec<&[u8]> = accept(job, bytes, merge)
        .map(|(_, line)| line)
        .inspect(|line| kept += line.len())
        .collect();
    if kept == bytes.len() && bytes.ends_with(b"\n") {
        return bytes.clone();
    }
    let mut lines = lines.concat();
    if lines.last().is_some_and(|byte| *byte != b'\n') {
        lines.push(b'\n');
    }
    lines.into()
}

/// The log as the stream has it now, after `after`.
pub(super) fn read_now(bus: &Bus, region: &Region, job: JobId, after: LogSeq) -> Pieces {
    let reader = bus.logs().follow(region, job);
    piece::after(until_caught_up(reader, job).boxed(), after)
}

/// The accepted entries of each chunk until all that was there has been read.
fn until_caught_up(
    reader: LogReader,
    job: JobId,
) -> impl Stream<Item = Result<Piece, Error>> + Send {
    let state = Some((reader, LogMerge::after(LogSeq::ZERO)));
    stream::unfold(state, move |state| async move {
        let (mut reader, mut merge) = state?;
        loop {
            match reader.next().await {
                Ok(Item::Chunk(chunk)) => {
                    let lines = accepted(job, &chunk.bytes, &mut merge);
                    if let Some(piece) = Piece::of(lines) {
                        return Some((Ok(piece), Some((reader, merge))));
                    }
                }
                // What follows begins anew; the merge drops what was handed out.
                Ok(Item::Reset) => {}
                Ok(Item::CaughtUp) => return None,
                Err(source) => return Some((Err(Error::Stream { job, source }), None)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::{AttemptNumber, LogEvent, log::LogSource};

    use super::*;

    fn lines(numbers: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let mut lines = vec![];
        for n in numbers {
            let seq = LogSeq::new(AttemptNumber::FIRST, n);
            let event = LogEvent::Line { source: LogSource::Stdout, text: n.to_string() };
            let entry = LogEntry { seq, time: jiff::Timestamp::UNIX_EPOCH, event };
            serde_json::to_writer(&mut lines, &entry).unwrap();
            lines.push(b'\n');
        }
        lines
    }

    #[test]
    fn what_belongs_to_the_log_is_kept_line_by_line() {
        let job = JobId::from_uuid(uuid::Uuid::nil());
        let mut merge = LogMerge::after(LogSeq::ZERO);
        let mut accepted = |bytes: Vec<u8>| accepted(job, &bytes.into(), &mut merge);
        assert_eq!(accepted(lines([1, 2])), lines([1, 2]));
        assert_eq!(accepted(lines([2, 3])), lines([3]));
        assert!(accepted(lines([1, 2])).is_empty());
        let spoilt = [lines([4]), b"{\"seq\":4294967301}\n\n".to_vec(), lines([6])].concat();
        assert_eq!(accepted(spoilt), lines([4, 6]));
        let unfinished = lines([7]);
        assert_eq!(accepted(unfinished[..unfinished.len() - 1].to_vec()), unfinished);
        assert_eq!(merge.gaps(), 1);
    }
}
