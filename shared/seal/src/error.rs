//! What can go wrong. No variant holds a secret, nor what was sealed.

use std::io;
use std::path::PathBuf;

/// Why a secret was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody to seal it to.
    #[error("there is no key to seal to")]
    NoRecipient,
    /// The purpose holds a line break.
    #[error("the purpose of a sealed secret is one line")]
    Purpose,
    /// Text that is no public key.
    #[error("`{0}` is not an age recipient")]
    Recipient(String),
    /// It could not be encrypted.
    #[error("a secret cannot be sealed")]
    Encrypt(#[source] io::Error),
    /// It is sealed to other keys.
    #[error("a secret is sealed to other keys than this worker has")]
    NoIdentity,
    /// It was sealed for something else.
    #[error("a secret was sealed for another purpose")]
    OtherPurpose,
    /// What was stored is no sealed secret.
    #[error("a sealed secret is damaged")]
    Damaged,
    /// The file of identities cannot be read or written.
    #[error("cannot use the identity file `{}`", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than identities.
    #[error("line {line} of the identity file `{}` is no identity", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}
