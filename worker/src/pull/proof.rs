//! Whether a source has the very blob that the pool has.
//!
//! A user may bring a registry of their own, whose manifests name whatever
//! digests they have heard of. If a name were enough, it would open the layers
//! of others. So the source shows pieces of the blob, at places that it cannot
//! know beforehand, and they are compared with the pool's.

use std::ops::Range;

use futures::future::try_join_all;
use rand::Rng as _;
use slipway_blobstore::{ByteRange, ObjectKey, Store};
use slipway_domain::Failure;
use slipway_domain::failure::FailureKind;
use slipway_oci::Descriptor;
use slipway_source::Pull;

use super::failure::{of_source, of_store};

/// Bytes of a piece.
const PIECE: u64 = 16 << 10;
/// Pieces of a blob that is larger than all of them.
const PIECES: u64 = 4;

/// Fails unless the source of `pull` has the bytes that the pool has for
/// `blob`.
pub(super) async fn demand(pull: &Pull, store: &Store, blob: &Descriptor) -> Result<(), Failure> {
    let pieces = pieces(blob.size, |most| rand::rng().random_range(0..=most));
    try_join_all(pieces.into_iter().map(|range| compare(pull, store, blob, range))).await?;
    Ok(())
}

async fn compare(
    pull: &Pull,
    store: &Store,
    blob: &Descriptor,
    range: Range<u64>,
) -> Result<(), Failure> {
    let theirs = pull.part(blob, range.clone()).await.map_err(of_source)?;
    let key = ObjectKey::Blob(blob.digest);
    let wanted = ByteRange::Bounded(range.start, range.end);
    let ours = store.get(&key, Some(wanted)).await.map_err(of_store)?;
    let mut ours = ours.into_stream();
    let mut at = 0;
    while let Some(chunk) = futures::TryStreamExt::try_next(&mut ours).await.map_err(of_store)? {
        if theirs.get(at..at + chunk.len()) != Some(&chunk[..]) {
            let text = format!(
                "the registry `{}` sends other content for `{}` than this digest stands for",
                pull.host(),
                blob.digest
            );
            return Err(Failure::new(FailureKind::ImageInvalid, text));
        }
        at += chunk.len();
    }
    Ok(())
}

/// Which pieces to ask for: all of a small blob, some of a large one. `draw`
/// gives an offset up to and including the greatest.
fn pieces(size: u64, mut draw: impl FnMut(u64) -> u64) -> Vec<Range<u64>> {
    if size <= PIECE * PIECES {
        return (size > 0).then_some(0..size).into_iter().collect();
    }
    let most = size - PIECE;
    (0..PIECES).map(|_| draw(most)).map(|start| start..start + PIECE).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    proptest! {
        #[test]
        fn pieces_lie_within_the_blob(size: u64, seed: u64) {
            for piece in pieces(size, |most| seed % most.saturating_add(1).max(1)) {
                prop_assert!(piece.start < piece.end && piece.end <= size);
                prop_assert!(piece.end - piece.start <= PIECE * PIECES);
            }
        }
    }

    #[test]
    fn a_small_blob_is_compared_whole() {
        assert_eq!(pieces(0, |_| 0), []);
        assert_eq!(pieces(5, |_| 0).pop(), Some(0..5));
        assert_eq!(pieces(PIECE * PIECES + 1, |most| most).len(), PIECES as usize);
    }
}
