//! Why a run does not begin. What fails within one is counted, not returned;
//! see [`crate::failures`].

/// Why a run did not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not tell what there is already.
    #[error(transparent)]
    Api(#[from] slipway_api::client::Error),
    /// The builds asked for do not fit beside the snapshots that there are.
    #[error(
        "{wanted} builds at once do not fit: the organization may hold {quota} snapshots \
         and has {held} already"
    )]
    NoRoom {
        /// Builds at once.
        wanted: usize,
        /// Snapshots that count against the quota; counting stops where it is
        /// clear that there is no room.
        held: usize,
        /// Snapshots that the organization may hold.
        quota: usize,
    },
}
