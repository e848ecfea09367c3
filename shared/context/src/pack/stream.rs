//! The second pass: the archive as a stream of chunks for an upload.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Error, Packer, Progress};
use crate::digest::ContextDigest;

/// Size of a chunk, and how many may wait to be taken.
const CHUNK: usize = 128 * 1024;
const WAITING: usize = 8;

impl Packer {
    /// Packs again and yields the archive in chunks of at most 128 KiB, on a
    /// thread for blocking work; at most 1 MiB waits to be taken. Must be
    /// called within a tokio runtime. Dropping the stream ends the thread at its
    /// next chunk.
    ///
    /// The stream ends well only if its bytes were those of `expected`, the
    /// result of [`Packer::digest`]. Otherwise its last item is
    /// [`Error::ContextChanged`], or [`Error::FileChanged`] if one file is to
    /// blame; nobody must then treat what was sent as the context.
    pub fn stream(
        &self,
        expected: ContextDigest,
        observe: impl FnMut(Progress) + Send + 'static,
    ) -> BoxStream<'static, Result<Bytes, Error>> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let packer = self.clone();
        // Not a task of its own right: it lives off the channel, and ends as
        // soon as the receiver is gone.
        tokio::task::spawn_blocking(move || {
            let mut chunks = Chunks {
                sender: sender.clone(),
                held: BytesMut::with_capacity(CHUNK),
                left: expected.size,
            };
            let last = match packer.pack(&mut chunks, observe) {
                Ok(packed) if packed.digest == expected => {
                    // Refused only if nobody listens any more.
                    let _ = chunks.send();
                    return;
                }
                Ok(_) => Error::ContextChanged,
                Err(Error::Write(source)) if source.kind() == io::ErrorKind::FileTooLarge => {
                    Error::ContextChanged
                }
                Err(error) => error,
            };
            // Nobody listens any more: then nobody needs to know.
            let _ = sender.blocking_send(Err(last));
        });
        ReceiverStream::new(receiver).boxed()
    }
}

/// Cuts what is written into chunks for the channel. The last chunk is held
/// back until the end, so that a mismatch is known before the size is reached.
struct Chunks {
    sender: mpsc::Sender<Result<Bytes, Error>>,
    held: BytesMut,
    left: u64,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let chunk = self.held.split().freeze();
        self.sender.blocking_send(Ok(chunk)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.held.len() == CHUNK {
            self.send()?;
        }
        let taken = bytes.len().min(CHUNK - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        self.left -= taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
