//! Reading objects: a range, and the stream of its bytes.

use std::io::SeekFrom;
use std::ops::Range;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetResult, GetResultPayload};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::{Error, Metadata, ObjectKey};

/// The bytes of an object as they arrive.
pub type ObjectStream = BoxStream<'static, Result<Bytes, Error>>;

/// How much of a file is read at once. The store's own stream takes 8 KiB,
/// each with a trip to the thread pool.
const FILE_CHUNK: usize = 256 * 1024;

/// A part of an object, as HTTP range requests name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From the first offset up to and excluding the second; what lies beyond
    /// the end is cut off.
    Bounded(u64, u64),
    /// Everything from an offset.
    From(u64),
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// The offsets within an object of `size` bytes, or nothing if no byte of
    /// it is in the range.
    #[must_use]
    pub fn within(self, size: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Bounded(start, end) => start..end.min(size),
            Self::From(start) => start..size,
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        (!range.is_empty()).then_some(range)
    }
}

/// An object being read.
pub struct Object {
    /// What is known of the whole object.
    pub metadata: Metadata,
    /// Which of its bytes the stream brings.
    pub range: Range<u64>,
    key: ObjectKey,
    payload: GetResultPayload,
}

impl Object {
    pub(crate) fn new(key: ObjectKey, result: GetResult) -> Self {
        let metadata = Metadata::from(&result.meta);
        Self { metadata, range: result.range, key, payload: result.payload }
    }

    /// The bytes, in chunks of at most some hundred kilobytes.
    #[must_use]
    pub fn into_stream(self) -> ObjectStream {
        let Self { key, range, payload, .. } = self;
        match payload {
            GetResultPayload::File(file, _) => read_file(key, file, range),
            GetResultPayload::Stream(stream) => {
                stream.map_err(move |source| Error::read("read", &key, source)).boxed()
            }
        }
    }
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object").field("key", &self.key).field("range", &self.range).finish()
    }
}

fn read_file(key: ObjectKey, file: std::fs::File, range: Range<u64>) -> ObjectStream {
    let open = async move {
        let mut file = tokio::fs::File::from_std(file);
        file.seek(SeekFrom::Start(range.start)).await?;
        let part = file.take(range.end - range.start);
        std::io::Result::Ok(ReaderStream::with_capacity(part, FILE_CHUNK))
    };
    futures::stream::once(open)
        .try_flatten()
        .map_err(move |source| Error::Unavailable {
            operation: "read",
            path: key.to_string(),
            source: source.into(),
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_to_the_object() {
        assert_eq!(ByteRange::Bounded(2, 5).within(10), Some(2..5));
        assert_eq!(ByteRange::Bounded(2, 50).within(10), Some(2..10));
        assert_eq!(ByteRange::Bounded(10, 50).within(10), None);
        assert_eq!(ByteRange::Bounded(5, 5).within(10), None);
        assert_eq!(ByteRange::From(9).within(10), Some(9..10));
        assert_eq!(ByteRange::From(10).within(10), None);
        assert_eq!(ByteRange::Last(3).within(10), Some(7..10));
        assert_eq!(ByteRange::Last(30).within(10), Some(0..10));
        assert_eq!(ByteRange::Last(0).within(10), None);
        assert_eq!(ByteRange::Last(5).within(0), None);
    }
}
