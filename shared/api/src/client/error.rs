//! What can go wrong between client and server.

use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use url::Url;

use crate::types::ErrorBody;

/// Why a request did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection came about: refused, no such host, no answer, bad TLS.
    #[error("`{base}` cannot be reached")]
    Unreachable {
        /// Address of the API.
        base: String,
        /// What the HTTP library says.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke, or nothing came for too long.
    #[error("{request} was interrupted")]
    Interrupted {
        /// Method and path.
        request: String,
        /// What the HTTP library says.
        #[source]
        source: reqwest::Error,
    },
    /// An upload made no progress for too long.
    #[error("{request} stopped moving for {} seconds", after.as_secs())]
    Stalled {
        /// Method and path.
        request: String,
        /// How long was waited.
        after: Duration,
    },
    /// The server answered with an error status.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The server's own words, or the name of the status.
        message: String,
        /// A stable word for programs, where the server gives one.
        code: Option<String>,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer is not what this version of the client understands.
    #[error("the answer to {request} is not understood; is it a Slipway server of this version?")]
    Malformed {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The server ended a stream again and again before it was complete.
    #[error("{request} keeps ending early")]
    Unstable {
        /// Method and path.
        request: String,
    },
    /// A name that cannot be part of an address: empty, `.` or `..`.
    #[error("`{0}` is no name")]
    BadName(String),
    /// An address that can have no path, such as `mailto:`.
    #[error("`{0}` is no address of an API")]
    BadBase(String),
    /// The API key has characters that no header can carry.
    #[error("the API key has characters that cannot be sent")]
    BadKey,
    /// The HTTP library could not be set up.
    #[error("setting up HTTP")]
    Setup(#[source] reqwest::Error),
}

impl Error {
    /// The HTTP status, if the server answered with an error.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the same request may go well a little later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 502..=504),
            _ => false,
        }
    }

    /// When the server wants to be asked again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn transport(base: &Url, request: &str, source: reqwest::Error) -> Self {
        if source.is_connect() {
            let source = source.without_url();
            return Self::Unreachable { base: base.to_string(), source };
        }
        Self::interrupted(request, source)
    }

    pub(crate) fn interrupted(request: &str, source: reqwest::Error) -> Self {
        Self::Interrupted { request: request.to_owned(), source: source.without_url() }
    }
}

/// Passes a success on and reads anything else as an error body.
pub(super) async fn checked(response: Response, request: &str) -> Result<Response, Error> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let body = response.bytes().await.unwrap_or_default();
    let (message, code) = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => (body.message, body.code),
        Err(_) => (plain_message(status, &body, request), None),
    };
    Err(Error::Refused { status: status.as_u16(), message, code, retry_after })
}

/// For answers that are no error body: from a proxy, or to a HEAD.
fn plain_message(status: StatusCode, body: &[u8], request: &str) -> String {
    let text = String::from_utf8_lossy(body);
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    match first {
        Some(line) if !line.starts_with(['<', '{']) => {
            format!("{request}: {status}: {}", line.chars().take(200).collect::<String>())
        }
        _ => format!("{request}: {status}"),
    }
}
