//! What a registry says about an error, made fit to be shown.
//!
//! Owns the error form of the distribution specification ("Error codes").
//! Refuses everything else: a page of HTML, or whatever a host inside the
//! network answers to a request that was tricked to it, is never repeated.

use serde::Deserialize;

/// Longest text of a registry that is shown, in characters.
const LONGEST: usize = 240;

#[derive(Deserialize)]
struct Envelope {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The first error of a body in the specification's form, on one line.
pub(crate) fn read(body: &[u8]) -> Option<String> {
    let envelope: Envelope = serde_json::from_slice(body).ok()?;
    let first = envelope.errors.into_iter().next()?;
    let text = match (first.code, first.message) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{code}: {message}"),
        (Some(text), _) | (None, Some(text)) => text,
        (None, None) => return None,
    };
    let text = shown(&text);
    (!text.is_empty()).then_some(text)
}

/// Text from outside on one line, without control characters, cut.
pub(crate) fn shown(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut line: String = plain.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_the_specification_is_shown() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m\nway","detail":1}]}"#;
        assert_eq!(read(body).as_deref(), Some("DENIED: no [31m way"));
        assert_eq!(read(br#"{"errors":[{"code":"UNKNOWN"}]}"#).as_deref(), Some("UNKNOWN"));
        assert_eq!(read(br#"{"errors":[]}"#), None);
        assert_eq!(read(b"<html>secret page</html>"), None);
        assert_eq!(read(br#"{"AccessKeyId":"AKIA"}"#), None);
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
