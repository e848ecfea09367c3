//! The two calls, signed (Signature Version 4).

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use secrecy::ExposeSecret as _;
use url::Url;

use crate::Error;
use crate::config::{Config, Error as ConfigError, Identity};

pub(crate) const ASSUME: &str = "sts:AssumeRole";
pub(crate) const TOKEN: &str = "ecr:GetAuthorizationToken";
/// How long one call may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// Largest answer that is read, in bytes.
const ANSWER: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Caller {
    http: reqwest::Client,
    config: Config,
}

struct Call<'a> {
    action: &'static str,
    role: &'a str,
    service: &'static str,
    region: &'a str,
    endpoint: Url,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Caller {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("slipway/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(DEADLINE)
            .build()
            .map_err(ConfigError::Tls)?;
        Ok(Self { http, config })
    }

    pub(crate) async fn assume_role(
        &self,
        region: &str,
        role: &str,
        form: &[(&str, &str)],
    ) -> Result<Identity, Error> {
        let identity = self.config.identity.as_ref().ok_or(Error::NoIdentity)?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let call = Call {
            action: ASSUME,
            role,
            service: "sts",
            region,
            endpoint: endpoint(ASSUME, &self.config.sts_endpoint, "sts", region)?,
            headers: vec![("content-type", "application/x-www-form-urlencoded")],
            body,
        };
        let answer = self.send(&call, identity).await?;
        let text = String::from_utf8_lossy(&answer);
        let field = |name| {
            let found = element(&text, name).map(str::to_owned);
            found.ok_or_else(|| failed(ASSUME, "its answer is not understood"))
        };
        Ok(Identity {
            access_key_id: field("AccessKeyId")?,
            secret_access_key: field("SecretAccessKey")?.into(),
            session_token: Some(field("SessionToken")?.into()),
        })
    }

    pub(crate) async fn authorization_token(
        &self,
        region: &str,
        role: &str,
        identity: &Identity,
    ) -> Result<Vec<u8>, Error> {
        let target = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
        let call = Call {
            action: TOKEN,
            role,
            service: "ecr",
            region,
            endpoint: endpoint(TOKEN, &self.config.ecr_endpoint, "api.ecr", region)?,
            headers: vec![("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target)],
            body: "{}".to_owned(),
        };
        self.send(&call, identity).await
    }

    async fn send(&self, call: &Call<'_>, identity: &Identity) -> Result<Vec<u8>, Error> {
        let signed = signature(call, identity)?;
        let mut request = self.http.post(call.endpoint.clone()).body(call.body.clone());
        for (name, value) in &call.headers {
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

fn endpoint(
    action: &'static str,
    given: &Option<Url>,
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
        _ => Error::Refused { action, role: call.role.to_owned(), reason },
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
