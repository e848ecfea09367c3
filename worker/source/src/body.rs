//! Bodies that are read whole, and the signs that one is not what it should be.

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

/// Why a body was not read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is larger than the limit.
    TooLarge,
    /// It broke off.
    Broken(reqwest::Error),
}

/// Reads at most `limit` bytes; a body that is longer is given up as soon as
/// that is known.
pub(crate) async fn read(response: &mut Response, limit: u64) -> Result<Bytes, Fault> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Fault::TooLarge);
    }
    let mut bytes = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(Fault::Broken)? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(Fault::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// The media type without parameters, in lowercase.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

pub(crate) fn is_web_page(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|text| matches!(&*text, "text/html" | "application/xhtml+xml"))
}
