//! Looking through a context archive that a client has uploaded.
//!
//! Owns: the identity of the stored bytes, the root `.dockerignore`, and the
//! refusal of archives that would reach outside the folder they are unpacked in.
//! Refuses: unpacking, and judging the entries by the ignore rules.
//!
//! Archives are plain tar or gzip. One whose end is missing is accepted where
//! nothing of its content is missing: Daytona's command line closes its tar
//! writer only after the upload, so that the last file's padding and the two
//! closing blocks never arrive.
//!
//! Invariant: memory use is bounded by the largest extended header, at most
//! [`MAX_KEPT`] bytes, however large the archive is.

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt};

use self::entries::Entries;
use crate::digest::{ContextDigest, Tally};

mod entries;
mod records;
#[cfg(test)]
mod tests;

/// Longest extended header and longest `.dockerignore`, in bytes.
pub const MAX_KEPT: u64 = 1024 * 1024;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be read from where they are stored.
    #[error("reading the context archive")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The gzip stream is damaged or ends too early.
    #[error("the context archive is damaged gzip")]
    Gzip(#[source] std::io::Error),
    /// The bytes are no tar archive, or a damaged one.
    #[error("the context archive is no valid tar at byte {offset}: {reason}")]
    Malformed {
        /// Position in the tar (after decompression).
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// The archive ends in the middle of an entry's content or header.
    #[error("the context archive ends in the middle of {}", name(entry.as_deref()))]
    Truncated {
        /// The entry, unless even its header is incomplete.
        entry: Option<String>,
    },
    /// An entry, or a hard link's target, starts with `/`.
    #[error("the context archive has an absolute path: `{path}`")]
    Absolute {
        /// As in the archive.
        path: String,
    },
    /// An entry, or a hard link's target, has a part `..`.
    #[error("the context archive has a path with `..`: `{path}`")]
    Escapes {
        /// As in the archive.
        path: String,
    },
    /// An extended header or the `.dockerignore` is longer than [`MAX_KEPT`].
    #[error("`{what}` in the context archive is longer than 1 MiB")]
    TooLarge {
        /// Which of them.
        what: &'static str,
    },
}

fn name(entry: Option<&str>) -> String {
    entry.map_or_else(|| "a header".to_owned(), |entry| format!("`{entry}`"))
}

/// How the stored bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// A gzipped tar, possibly of several members.
    Gzip,
}

/// What was learned about an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Identity of the bytes as stored.
    pub digest: ContextDigest,
    /// How they are compressed.
    pub compression: Compression,
    /// Number of entries.
    pub entries: u64,
    /// Content of the last regular entry `.dockerignore` at the root.
    pub dockerignore: Option<Vec<u8>>,
    /// For a plain tar without its closing blocks: its identity once zero bytes
    /// have been appended up to this size, which makes it complete.
    pub completed: Option<ContextDigest>,
}

/// Takes an archive piece by piece.
#[derive(Default)]
pub struct Scanner {
    tally: Tally,
    input: Input,
}

#[derive(Default)]
enum Input {
    /// Too little was seen to tell; at most one byte.
    #[default]
    Unknown,
    FirstByte(u8),
    Plain(Entries),
    Gzip(Box<MultiGzDecoder<Decompressed>>),
}

impl Scanner {
    /// A scanner that has seen nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. After an error the scanner must not be used again.
    ///
    /// # Errors
    /// Every variant but [`Error::Read`] and [`Error::Truncated`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.tally.update(bytes);
        match &mut self.input {
            Input::Plain(entries) => return entries.push(bytes),
            Input::Gzip(decoder) => return decompress(decoder, bytes),
            Input::Unknown | Input::FirstByte(_) => {}
        }
        let first = match self.input {
            Input::FirstByte(first) => vec![first],
            _ => Vec::new(),
        };
        let seen = [&first, bytes].concat();
        match *seen.as_slice() {
            [] => Ok(()),
            [first] => {
                self.input = Input::FirstByte(first);
                Ok(())
            }
            [0x1f, 0x8b, ..] => {
                let mut decoder = Box::new(MultiGzDecoder::new(Decompressed::default()));
                let result = decompress(&mut decoder, &seen);
                self.input = Input::Gzip(decoder);
                result
            }
            _ => {
                let mut entries = Entries::default();
                let result = entries.push(&seen);
                self.input = Input::Plain(entries);
                result
            }
        }
    }

    /// Says that the archive has ended.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Gzip`] and [`Error::Malformed`].
    pub fn finish(self) -> Result<Scanned, Error> {
        let (compression, summary) = match self.input {
            Input::Plain(entries) => (Compression::None, entries.finish()?),
            Input::Gzip(mut decoder) => {
                let result = decoder.try_finish();
                let sink = std::mem::take(decoder.get_mut());
                if let Err(source) = result {
                    return Err(sink.failure.unwrap_or(Error::Gzip(source)));
                }
                (Compression::Gzip, sink.entries.finish()?)
            }
            Input::Unknown => (Compression::None, Entries::default().finish()?),
            Input::FirstByte(_) => return Err(Error::Truncated { entry: None }),
        };
        let completed = (compression == Compression::None && summary.missing > 0).then(|| {
            let mut tally = self.tally.clone();
            tally.update(&vec![0; summary.missing]);
            tally.finish()
        });
        Ok(Scanned {
            digest: self.tally.finish(),
            compression,
            entries: summary.entries,
            dockerignore: summary.dockerignore,
            completed,
        })
    }
}

/// Scans a whole stream, giving way to other tasks between pieces.
///
/// # Errors
/// [`Error::Read`] with the stream's error, and every other variant.
pub async fn scan<S, E>(stream: S) -> Result<Scanned, Error>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut stream = std::pin::pin!(stream);
    let mut scanner = Scanner::new();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes.map_err(|error| Error::Read(error.into()))?;
        for piece in bytes.chunks(128 * 1024) {
            scanner.push(piece)?;
            tokio::task::consume_budget().await;
        }
    }
    scanner.finish()
}

/// Where the decompressor puts the tar. `Write` can only say that it failed;
/// why is kept here.
#[derive(Default)]
struct Decompressed {
    entries: Entries,
    failure: Option<Error>,
}

impl std::io::Write for Decompressed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.entries.push(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                self.failure = Some(error);
                Err(std::io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn decompress(decoder: &mut MultiGzDecoder<Decompressed>, bytes: &[u8]) -> Result<(), Error> {
    let result = std::io::Write::write_all(decoder, bytes);
    result.map_err(|source| {
        let failure = decoder.get_mut().failure.take();
        failure.unwrap_or(Error::Gzip(source))
    })
}
