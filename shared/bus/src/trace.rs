//! W3C trace context in message headers.
//!
//! Owns the header and its syntax check; refuses to know any tracing library.
//! A process says once, by [`follow`], where its current trace is to be had;
//! [`in_trace`] says it for one piece of work. Every message that is made inside
//! carries the header, and deliveries hand it out again. Invariant: a
//! malformed header from outside is dropped, never passed on.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use async_nats::HeaderMap;

const HEADER: &str = "traceparent";

static SOURCE: OnceLock<fn() -> Option<String>> = OnceLock::new();

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// A `traceparent` value (W3C Trace Context, section 3.2.2), for example
/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

/// The text is not a `traceparent` of version 00.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a traceparent")]
pub struct Error(String);

impl TraceParent {
    /// The header's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TraceParent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut fields = text.split('-');
        let mut hex = |len: usize| {
            fields.next().is_some_and(|field| {
                field.len() == len && field.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
            })
        };
        let valid = text.starts_with("00-") && hex(2) && hex(32) && hex(16) && hex(2);
        if valid && fields.next().is_none() {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error(text.to_owned()))
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Runs `work`; every message it publishes from its own task carries `parent`.
/// Tasks that it spawns are outside, unless they are wrapped as well.
pub async fn in_trace<F: Future>(parent: TraceParent, work: F) -> F::Output {
    CURRENT.scope(parent, work).await
}

/// Has every message carry what `source` says when it is made, unless it is made
/// in an [`in_trace`]. The first call in a process counts.
pub fn follow(source: fn() -> Option<String>) {
    let _first = SOURCE.set(source);
}

/// Adds the current parent, if there is one.
pub(crate) fn attach(headers: &mut HeaderMap) {
    if CURRENT.try_with(|parent| headers.insert(HEADER, parent.as_str())).is_ok() {
        return;
    }
    let source = SOURCE.get().and_then(|source| source());
    if let Some(parent) = source.and_then(|text| text.parse::<TraceParent>().ok()) {
        headers.insert(HEADER, parent.as_str());
    }
}

/// The parent that came with a message.
pub(crate) fn extract(headers: Option<&HeaderMap>) -> Option<TraceParent> {
    headers?.get(HEADER)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[tokio::test]
    async fn headers_carry_the_parent_in_scope_and_only_there() {
        let mut outside = HeaderMap::new();
        attach(&mut outside);
        assert_eq!(extract(Some(&outside)), None);
        in_trace(VALID.parse().unwrap(), async {
            let mut inside = HeaderMap::new();
            attach(&mut inside);
            assert_eq!(extract(Some(&inside)).unwrap().as_str(), VALID);
        })
        .await;
    }

    #[test]
    fn malformed_parents_are_dropped() {
        for bad in ["", "00", "00-x-y-z", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]
        {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad:?}");
        }
        assert!(format!("{VALID}-00").parse::<TraceParent>().is_err());
    }
}
