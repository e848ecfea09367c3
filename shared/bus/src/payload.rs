//! JSON payloads on the wire.
//!
//! Owns encoding and what happens to bytes that cannot be read: they become a
//! [`Poison`] value that the receiver must dispose of, never a dropped message.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

impl Poison {
    /// The form that the message says it has, which can be read even if the rest
    /// cannot; `None` if it says none.
    #[must_use]
    pub fn version(&self) -> Option<u32> {
        #[derive(Deserialize)]
        struct Form {
            version: u32,
        }
        serde_json::from_slice::<Form>(&self.payload).ok().map(|form| form.version)
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_form_of_a_message_is_read_before_the_rest() {
        let poison = |text: &'static str| {
            decode::<Vec<u8>>("subject", &Bytes::from_static(text.as_bytes())).unwrap_err()
        };
        assert_eq!(poison(r#"{"job": [], "version": 7}"#).version(), Some(7));
        for text in ["{}", r#"{"version": "7"}"#, r#"{"version": 7"#, "7", ""] {
            assert_eq!(poison(text).version(), None, "{text}");
        }
    }
}
