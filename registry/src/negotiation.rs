//! Content negotiation: which manifests a client takes (RFC 9110, section 12.5.1).
//!
//! Owns reading `Accept`. Refuses conversion: a manifest's digest is that of its
//! bytes, so it is given as it was pushed or not at all.

use axum::http::{HeaderMap, header};
use slipway_oci::MediaType;

/// Whether a client takes `media_type`. One that does not say takes everything.
/// Manifests are JSON, so a client that wants plain JSON takes them, too.
pub(crate) fn accepts(headers: &HeaderMap, media_type: &MediaType) -> bool {
    let mut stated =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
    if stated.peek().is_none() {
        return true;
    }
    stated.flat_map(|value| value.split(',')).any(|range| takes(range, media_type.as_str()))
}

fn takes(range: &str, media_type: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let wanted = parts.next().unwrap_or_default();
    let refused = parts.any(|parameter| {
        let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
        weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
    });
    let fits = matches!(wanted, "*/*" | "application/*" | "application/json")
        || wanted.eq_ignore_ascii_case(media_type);
    fits && !refused
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn taken(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT, value.parse().unwrap());
        }
        accepts(&headers, &MediaType::OciIndex)
    }

    #[test]
    fn an_index_goes_to_those_who_take_one() {
        let index = MediaType::OciIndex.to_string();
        let manifest = MediaType::OciManifest.to_string();
        assert!(taken(&[]) && taken(&["*/*"]) && taken(&["application/*;q=0.1"]));
        assert!(taken(&[&index]) && taken(&[&format!("{manifest}, {index};q=0.5")]));
        assert!(taken(&[&manifest, &index]) && taken(&["text/html, application/json"]));
        assert!(!taken(&[&manifest]) && !taken(&["text/html"]));
        assert!(!taken(&[&format!("{index};q=0")]) && !taken(&[""]));
    }
}
