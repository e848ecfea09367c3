//! JSON payloads on the wire.
//!
//! Owns encoding and what happens to bytes that cannot be read: they become a
//! [`Poison`] value that the receiver must dispose of, never a dropped message.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message whose payload is not what the receiver expects. It stays the
/// receiver's: end it with a reason, or it is delivered again and again.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the message on `{subject}` ({} bytes)", payload.len())]
pub struct Poison {
    /// Where it was published.
    pub subject: String,
    /// What was published.
    pub payload: Bytes,
    /// What is wrong with it.
    #[source]
    pub source: serde_json::Error,
}

/// Serializes; fails for maps whose keys are not text and the like.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(Bytes::from)
}

/// Deserializes, keeping the bytes for the report on failure.
pub(crate) fn decode<T: DeserializeOwned>(subject: &str, payload: &Bytes) -> Result<T, Poison> {
    serde_json::from_slice(payload).map_err(|source| Poison {
        subject: subject.to_owned(),
        payload: payload.clone(),
        source,
    })
}
