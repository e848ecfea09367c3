//! Calls to AWS, signed with Signature Version 4.
//!
//! Owns how a call is signed, sent and its refusal read, who we are in AWS
//! ([`Identity`]), and the one call that two parts need: `sts:AssumeRole`
//! ([`AssumeRole`]). Refuses to know what the calls are for, and to send one
//! again: whoever asks knows whether that is worth it.
//!
//! Invariants: no secret is in an error or in what `Debug` prints; no redirect
//! is followed, so a signature reaches the endpoint that it was made for.

mod sts;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use sts::{ASSUME_ROLE, AssumeRole};

/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Largest answer that is read, in bytes.
const ANSWER: usize = 64 << 10;

/// An access key, permanent or of a session.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: SecretString,
    /// The token of its session.
    pub session_token: Option<SecretString>,
}

/// The file with the secret of an access key cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read `{}`", path.display())]
pub struct SecretError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl Identity {
    /// A permanent key whose secret lies in a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn from_file(access_key_id: String, secret: PathBuf) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(&secret);
        let text = text.map_err(|source| SecretError { path: secret, source })?;
        let secret_access_key = text.trim().to_owned().into();
        Ok(Self { access_key_id, secret_access_key, session_token: None })
    }
}

/// Why a call has no result. Display is for the user and holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// AWS says no.
    #[error("AWS refuses `{action}`: {reason}")]
    Refused {
        /// The call.
        action: &'static str,
        /// What AWS said.
        reason: String,
    },
    /// AWS cannot be reached, is overloaded, or answers with something else.
    #[error("`{action}` of AWS failed: {reason}")]
    Failed {
        /// The call.
        action: &'static str,
        /// What happened.
        reason: String,
    },
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS")]
pub struct TlsError(#[source] reqwest::Error);

/// One request.
#[derive(Debug)]
pub struct Call<'a> {
    /// As policies and errors name it, for example `sts:AssumeRole`.
    pub action: &'static str,
    /// The service's name in signatures.
    pub service: &'static str,
    /// The AWS region.
    pub region: &'a str,
    /// Where to send it.
    pub endpoint: Url,
    /// Headers beside those of the signature.
    pub headers: &'a [(&'static str, &'static str)],
    /// What to send.
    pub body: String,
}

/// Sends calls. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
}

impl Client {
    /// A client with deadlines.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, TlsError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .build()
            .map_err(TlsError)?;
        Ok(Self { http })
    }

    /// Sends a call as `identity` and returns the answer's body.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(&self, call: &Call<'_>, identity: &Identity) -> Result<Vec<u8>, Error> {
        let signed = signature(call, identity)?;
        let mut request = self.http.post(call.endpoint.clone()).body(call.body.clone());
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let sent = request.send().await;
        let mut response = sent.map_err(|error| failed(call.action, reason_of(error)))?;
        let mut body = Vec::new();
        while let Some(chunk) =
            response.chunk().await.map_err(|error| failed(call.action, reason_of(error)))?
        {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER {
                return Err(failed(call.action, "its answer is too large"));
            }
        }
        match response.status() {
            StatusCode::OK => Ok(body),
            status => Err(refused(call, status, &body)),
        }
    }
}

/// The endpoint that is configured, or else Amazon's own of a region.
///
/// # Errors
/// The region is no name of one.
pub fn endpoint(
    action: &'static str,
    given: Option<&Url>,
    host: &str,
    region: &str,
) -> Result<Url, Error> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://{host}.{region}.amazonaws.com{suffix}/")
        .parse()
        .map_err(|_| failed(action, "the AWS region is none"))
}

fn signature(call: &Call<'_>, identity: &Identity) -> Result<Vec<(HeaderName, String)>, Error> {
    let wrong = |_| failed(call.action, "it cannot be signed");
    let token = identity.session_token.as_ref().map(|token| token.expose_secret().to_owned());
    let secret = identity.secret_access_key.expose_secret();
    let key = Credentials::new(&identity.access_key_id, secret, token, None, "slipway").into();
    let parameters = v4::SigningParams::builder()
        .identity(&key)
        .region(call.region)
        .name(call.service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|_| failed(call.action, "it cannot be signed"))?
        .into();
    let headers = call.headers.iter().copied();
    let body = SignableBody::Bytes(call.body.as_bytes());
    let request = SignableRequest::new("POST", call.endpoint.as_str(), headers, body);
    let (instructions, _) = sign(request.map_err(wrong)?, &parameters).map_err(wrong)?.into_parts();
    let headers = instructions.headers().map(|(name, value)| {
        let name = HeaderName::try_from(name);
        let name = name.map_err(|_| failed(call.action, "it cannot be signed"))?;
        Ok((name, value.to_owned()))
    });
    headers.filter(|header| !matches!(header, Ok((name, _)) if *name == CONTENT_TYPE)).collect()
}

/// What AWS says, in either of its forms.
fn refused(call: &Call<'_>, status: StatusCode, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let code = element(&text, "Code").or_else(|| value(&text, "__type"));
    let message = element(&text, "Message").or_else(|| value(&text, "message"));
    let said: Vec<&str> = [code, message].into_iter().flatten().collect();
    let reason = format!("status {} {}", status.as_u16(), said.join(": "));
    let (action, reason) = (call.action, reason.trim_end().to_owned());
    match status.as_u16() {
        429 | 500..=599 => Error::Failed { action, reason },
        _ => Error::Refused { action, reason },
    }
}

/// The text of an element of XML that has no child. What AWS puts there in our
/// cases needs no unescaping.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

/// The text of a key of a flat JSON object.
fn value<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    let (_, rest) = rest.split_once('"')?;
    rest.split_once('"').map(|(text, _)| text)
}

fn failed(action: &'static str, reason: impl Into<String>) -> Error {
    Error::Failed { action, reason: reason.into() }
}

/// Without the address, and with what lies below.
fn reason_of(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(below) = source {
        text = format!("{text}: {below}");
        source = below.source();
    }
    text
}
