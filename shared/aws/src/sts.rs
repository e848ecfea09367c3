//! `sts:AssumeRole`.

use std::time::Duration;

use url::Url;

use crate::{Call, Client, Error, Identity, element, endpoint, failed};

/// The call, as errors name it.
pub const ASSUME_ROLE: &str = "sts:AssumeRole";

/// A role that is to be assumed for a while.
#[derive(Debug, Clone)]
pub struct AssumeRole<'a> {
    /// Its ARN.
    pub role: &'a str,
    /// Name of the session, as the role's owner sees it.
    pub session: &'a str,
    /// What the role's owner demands to be shown.
    pub external_id: Option<&'a str>,
    /// A policy in JSON; the session may do what role and policy both allow.
    pub policy: Option<&'a str>,
    /// How long the session lasts; STS gives at least 15 minutes.
    pub lasts: Duration,
}

impl Client {
    /// Assumes a role as `identity`; returns the key of the session.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn assume_role(
        &self,
        sts: Option<&Url>,
        region: &str,
        identity: &Identity,
        wanted: &AssumeRole<'_>,
    ) -> Result<Identity, Error> {
        let call = Call {
            action: ASSUME_ROLE,
            service: "sts",
            region,
            endpoint: endpoint(ASSUME_ROLE, sts, "sts", region)?,
            headers: &[("content-type", "application/x-www-form-urlencoded")],
            body: wanted.form(),
        };
        let answer = self.send(&call, identity).await?;
        let text = String::from_utf8_lossy(&answer);
        let field = |name| {
            let found = element(&text, name).map(str::to_owned);
            found.ok_or_else(|| failed(ASSUME_ROLE, "its answer is not understood"))
        };
        Ok(Identity {
            access_key_id: field("AccessKeyId")?,
            secret_access_key: field("SecretAccessKey")?.into(),
            session_token: Some(field("SessionToken")?.into()),
        })
    }
}

impl AssumeRole<'_> {
    fn form(&self) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("Action", "AssumeRole").append_pair("Version", "2011-06-15");
        form.append_pair("RoleArn", self.role).append_pair("RoleSessionName", self.session);
        form.append_pair("DurationSeconds", &self.lasts.as_secs().to_string());
        for (name, value) in [("ExternalId", self.external_id), ("Policy", self.policy)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        form.finish()
    }
}
