//! The end of a log, as a reader gets it.
//!
//! Invariant: who has read the end finds the job's snapshots as it left them. The
//! end is stored only after they are, but the scheduler that is asked for the log
//! may hear of the log before it hears of the records.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use slipway_domain::LogSeq;
use slipway_domain::job::JobRecord;

use super::Error;
use super::piece::{Piece, Pieces};
use crate::view::View;

/// How long records may lag behind the log before the reader is sent away to
/// resume.
const DEADLINE: Duration = Duration::from_secs(30);

/// The entries, with the end held back until the view shows what it says.
pub(super) fn after_snapshots(view: Arc<View>, record: &JobRecord, pieces: Pieces) -> Pieces {
    let (job, life) = (record.id, record.revival.redrives);
    let hold = move |piece: Result<Piece, Error>| {
        let view = view.clone();
        async move {
            if piece.as_ref().is_ok_and(|piece| piece.last() == LogSeq::END) {
                let mut changes = view.changes();
                let told = changes.wait_for(|_| view.records().is_told(&job, life));
                match tokio::time::timeout(DEADLINE, told).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return Err(Error::Interrupted { job }),
                }
            }
            piece
        }
    };
    // What comes before the end does not wait.
    let split = |piece: Result<Piece, Error>| {
        let pieces = match piece {
            Ok(piece) => piece.split_end().map(|piece| piece.map(Ok)),
            Err(error) => [Some(Err(error)), None],
        };
        stream::iter(pieces.into_iter().flatten())
    };
    pieces.flat_map(split).then(hold).boxed()
}
