//! Secrets sealed to public keys (age, X25519), and the keys that open them.
//!
//! Owns the form of a sealed secret and the file of identities. Refuses to know
//! what a secret is for: whoever seals names a *purpose*, and only who names the
//! same one can open. The only crate with `age`.
//!
//! Invariants: a secret sealed for one purpose cannot be opened for another, so
//! that nobody who can write records can have it sent elsewhere; no error shows
//! a secret; an identity never leaves its file but in memory.

mod error;
mod identity;
mod ring;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_domain::credential::{Recipient, Sealed};
use zeroize::Zeroizing;

pub use error::Error;
pub use identity::Identity;
pub use ring::KeyRing;

/// Separates the purpose from the secret; a purpose cannot hold it.
const SEPARATOR: char = '\n';

/// Seals `secret`, for `purpose` alone, so that each of `recipients` can open it.
///
/// # Errors
/// [`Error::NoRecipient`] without recipients, [`Error::Purpose`] if the purpose
/// holds a line break.
pub fn seal(
    secret: &SecretString,
    purpose: &str,
    recipients: &BTreeSet<Recipient>,
) -> Result<Sealed, Error> {
    if recipients.is_empty() {
        return Err(Error::NoRecipient);
    }
    if purpose.contains(SEPARATOR) {
        return Err(Error::Purpose);
    }
    let keys: Vec<_> = recipients.iter().map(identity::parsed).collect::<Result<_, _>>()?;
    let keys = keys.iter().map(|key| key as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(keys).map_err(|_| Error::NoRecipient)?;
    let mut sealed = Vec::new();
    let written = encryptor.wrap_output(&mut sealed).and_then(|mut writer| {
        writer.write_all(purpose.as_bytes())?;
        writer.write_all(&[SEPARATOR as u8])?;
        writer.write_all(secret.expose_secret().as_bytes())?;
        writer.finish()
    });
    written.map_err(Error::Encrypt)?;
    Ok(Sealed { recipients: recipients.clone(), ciphertext: BASE64_STANDARD.encode(sealed) })
}

/// Opens what was sealed for `purpose` with the first identity that fits.
///
/// # Errors
/// [`Error::NoIdentity`] if none fits, [`Error::OtherPurpose`] if it was sealed
/// for something else, [`Error::Damaged`] if it is no sealed secret.
pub fn open(
    sealed: &Sealed,
    purpose: &str,
    identities: &[Identity],
) -> Result<SecretString, Error> {
    let bytes = BASE64_STANDARD.decode(&sealed.ciphertext).map_err(|_| Error::Damaged)?;
    let decryptor = age::Decryptor::new_buffered(bytes.as_slice()).map_err(|_| Error::Damaged)?;
    let keys = identities.iter().map(Identity::key);
    let mut reader = decryptor.decrypt(keys).map_err(|error| match error {
        age::DecryptError::NoMatchingKeys => Error::NoIdentity,
        _ => Error::Damaged,
    })?;
    // Longer than any secret that is taken, so that it is never moved and left
    // behind in memory.
    let mut plain = Zeroizing::new(Vec::with_capacity(bytes.len()));
    reader.read_to_end(&mut plain).map_err(|_| Error::Damaged)?;
    let text = std::str::from_utf8(&plain).map_err(|_| Error::Damaged)?;
    let (found, secret) = text.split_once(SEPARATOR).ok_or(Error::Damaged)?;
    if found != purpose {
        return Err(Error::OtherPurpose);
    }
    Ok(SecretString::from(secret))
}

#[cfg(test)]
mod tests;
