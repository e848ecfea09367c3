//! Uploads straight into the bucket of the context store: temporary keys of AWS,
//! or of a server that is compatible with it, by `sts:AssumeRole`.
//!
//! Invariant: a key opens what its organization owns and nothing else, since an
//! inline policy says so; the role may open more.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;
use slipway_aws::{AssumeRole, Client, Identity};
use slipway_domain::OrganizationId;
use slipway_runtime::config::Error;
use url::Url;

use crate::Grant;
use crate::keys::LIFETIME;

/// Where a bucket is, if nothing says it.
const DEFAULT_REGION: &str = "us-east-1";

/// The table `[uploads.sts]` as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// ARN of the role that may write to the bucket.
    pub role: String,
    /// Id of the access key with which the role is assumed.
    pub access_key_id: String,
    /// File with its secret.
    pub secret_access_key_file: PathBuf,
    /// STS, where it is not that of the bucket's AWS region.
    pub endpoint: Option<Url>,
    /// Where clients reach S3, if it is not where the scheduler does.
    pub storage_url: Option<Url>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct Sts {
    role: String,
    identity: Identity,
    endpoint: Option<Url>,
    storage_url: String,
    bucket: String,
    region: String,
}

impl File {
    pub(crate) fn check(self, contexts: &slipway_blobstore::Config) -> Result<Sts, Error> {
        let wrong = |key, reason: &str| Error::Invalid { key, reason: reason.to_owned() };
        let bucket = match (contexts.url.scheme(), contexts.url.host_str(), contexts.url.path()) {
            ("s3", Some(bucket), "" | "/") => bucket.to_owned(),
            _ => {
                let reason = "it needs `contexts` to be a whole bucket, `s3://BUCKET`: clients \
                              write `ORGANIZATION/HASH/context.tar` into it themselves";
                return Err(wrong("uploads.sts", reason));
            }
        };
        if !is_role(&self.role) {
            let reason = "give the role's ARN, `arn:aws:iam::ACCOUNT:role/NAME`";
            return Err(wrong("uploads.sts.role", reason));
        }
        let identity = Identity::from_file(self.access_key_id, self.secret_access_key_file);
        let identity = identity.map_err(|error| {
            let reason = format!("{error}: {}", error.source);
            Error::Invalid { key: "uploads.sts.secret_access_key_file", reason }
        })?;
        let region = contexts.region.clone().or_else(|| std::env::var("AWS_REGION").ok());
        let region = region.unwrap_or_else(|| DEFAULT_REGION.to_owned());
        let storage_url = self.storage_url.or_else(|| contexts.endpoint.clone());
        let storage_url = match storage_url {
            Some(url) => url,
            None => slipway_aws::endpoint("s3", None, "s3", &region)
                .map_err(|error| wrong("contexts.region", &error.to_string()))?,
        };
        let storage_url = storage_url.as_str().trim_end_matches('/').to_owned();
        Ok(Sts { role: self.role, identity, endpoint: self.endpoint, storage_url, bucket, region })
    }
}

fn is_role(arn: &str) -> bool {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    matches!(parts[..], ["arn", partition, "iam", "", account, name]
        if partition.starts_with("aws") && !account.is_empty() && name.starts_with("role/"))
}

impl Sts {
    /// Keys for the contexts of one organization, for an hour.
    pub(crate) async fn grant(
        &self,
        aws: &Client,
        organization: OrganizationId,
    ) -> Result<Grant, slipway_aws::Error> {
        let (session, policy) = (format!("slipway-{organization}-push"), self.policy(organization));
        let wanted = AssumeRole {
            role: &self.role,
            session: &session,
            external_id: None,
            policy: Some(&policy),
            lasts: LIFETIME,
        };
        let endpoint = self.endpoint.as_ref();
        let key = aws.assume_role(endpoint, &self.region, &self.identity, &wanted).await?;
        Ok(Grant {
            access_key: key.access_key_id,
            secret: key.secret_access_key,
            session_token: key.session_token.unwrap_or_default(),
            url: self.storage_url.clone(),
            bucket: self.bucket.clone(),
            region: self.region.clone(),
        })
    }

    /// Read, write (also in parts) and list below the organization's folder.
    fn policy(&self, organization: OrganizationId) -> String {
        let partition = self.role.split(':').nth(1).unwrap_or("aws");
        let bucket = format!("arn:{partition}:s3:::{}", self.bucket);
        let objects = format!("{bucket}/{organization}/*");
        json!({
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": [
                        "s3:GetObject",
                        "s3:PutObject",
                        "s3:AbortMultipartUpload",
                        "s3:ListMultipartUploadParts",
                    ],
                    "Resource": objects,
                },
                {
                    "Effect": "Allow",
                    "Action": "s3:ListBucket",
                    "Resource": bucket,
                    "Condition": {
                        "StringLike": {
                            "s3:prefix": [organization.to_string(), format!("{organization}/*")],
                        },
                    },
                },
            ],
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;

    use slipway_blobstore::Config;

    use super::*;

    fn check(role: &str, contexts: &str) -> Result<Sts, Error> {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        writeln!(secret, "s3cret").unwrap();
        let file = File {
            role: role.to_owned(),
            access_key_id: "id".to_owned(),
            secret_access_key_file: secret.path().to_owned(),
            endpoint: None,
            storage_url: None,
        };
        file.check(&Config::new(contexts.parse().unwrap()))
    }

    const ROLE: &str = "arn:aws-cn:iam::123456789012:role/uploads";

    #[test]
    fn a_wrong_setting_is_named() {
        let sts = check(ROLE, "s3://contexts").unwrap();
        assert_eq!(sts.storage_url, "https://s3.us-east-1.amazonaws.com");
        for (role, contexts, key) in [
            ("uploads", "s3://contexts", "uploads.sts.role"),
            ("arn:aws:iam::1:user/uploads", "s3://contexts", "uploads.sts.role"),
            (ROLE, "s3://contexts/folder", "uploads.sts"),
            (ROLE, "file:///contexts", "uploads.sts"),
        ] {
            let error = check(role, contexts).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn the_policy_ends_at_the_organization() {
        let organization = OrganizationId::from_uuid(uuid::Uuid::from_u128(7));
        let policy = check(ROLE, "s3://contexts").unwrap().policy(organization);
        let policy: serde_json::Value = serde_json::from_str(&policy).unwrap();
        let bucket = "arn:aws-cn:s3:::contexts";
        let [objects, list] = policy["Statement"].as_array().unwrap().as_slice() else {
            panic!("{policy}")
        };
        assert_eq!(objects["Resource"], format!("{bucket}/{organization}/*"));
        assert_eq!(list["Resource"], bucket);
        let prefixes = &list["Condition"]["StringLike"]["s3:prefix"];
        assert_eq!(prefixes, &json!([organization.to_string(), format!("{organization}/*")]));
    }
}
