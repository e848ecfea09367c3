//! Who wants to know what is used.

use slipway_blobstore::Repository;
use slipway_oci::Digest;

/// Is told of every manifest or index that went to a client. Called in the
/// midst of a request: an implementation that has more to do than remember it
/// does so elsewhere.
pub trait UseObserver: Send + Sync + 'static {
    /// A client got `digest` out of `repository`. Looking (`HEAD`) does not
    /// count.
    fn served(&self, repository: &Repository, digest: &Digest);
}
