//! Temporary keys for uploads.
//!
//! Everything about a key stands in its name: whose it is and until when. Secret
//! and session token follow from the name by HMAC-SHA-256 under one secret, which
//! all schedulers share through the bucket `uploads`. So no key is stored, and
//! each is good at every scheduler and after a restart.
//!
//! Invariant: whoever does not hold the secret can make up names of keys, but
//! neither sign with them nor know their tokens.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use slipway_bus::topology::{BucketName, keys::UPLOAD_SECRET};
use slipway_bus::{Bus, bucket};
use slipway_domain::OrganizationId;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

/// How long a key is good.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// What every name begins with.
const PREFIX: &str = "SLIPWAY";
/// Form of a name: this byte, 16 of the organization, 8 of the end in seconds
/// since 1970, and 8 random ones, in hexadecimal digits.
const FORM: u8 = 1;

/// Makes keys and knows them again.
#[derive(Clone)]
pub struct Keys {
    secret: [u8; 32],
}

/// A key, as a client gets it.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its name.
    pub access_key: String,
    /// What requests are signed with.
    pub secret: SecretString,
    /// What each request shows beside its signature.
    pub session_token: SecretString,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

/// What a name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose contexts the key opens.
    pub organization: OrganizationId,
    /// Until when.
    pub expires_at: Timestamp,
}

/// The bucket's form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    secret: String,
}

impl Keys {
    /// The keys of this installation. The first scheduler makes the secret.
    ///
    /// # Errors
    /// NATS cannot be read or written.
    pub async fn load(bus: &Bus) -> Result<Self, bucket::Error> {
        let bucket = bus.bucket(&BucketName::Uploads);
        loop {
            if let Some(entry) = bucket.get(UPLOAD_SECRET).await? {
                let stored: Stored = entry.json()?;
                let mut secret = [0; 32];
                if hex::decode_to_slice(&stored.secret, &mut secret).is_ok() {
                    return Ok(Self { secret });
                }
                tracing::error!("the secret of uploads is not readable and is made anew");
                bucket.delete(UPLOAD_SECRET, entry.revision).await?;
            }
            let secret = hex::encode(rand::random::<[u8; 32]>());
            match bucket.create(UPLOAD_SECRET, &Stored { version: 1, secret }, None).await {
                // Another scheduler was faster, or we were: what is stored counts.
                Err(error) if !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
    }

    /// A new key for the contexts of an organization.
    #[must_use]
    pub fn issue(&self, organization: OrganizationId, now: Timestamp) -> Key {
        let lifetime = SignedDuration::try_from(LIFETIME).expect("an hour fits");
        let expires_at = now + lifetime;
        let mut name = vec![FORM];
        name.extend(organization.as_uuid().as_bytes());
        name.extend(expires_at.as_second().to_be_bytes());
        name.extend(rand::random::<[u8; 8]>());
        let access_key = format!("{PREFIX}{}", hex::encode_upper(name));
        let secret = self.secret_of(&access_key).into();
        let session_token = self.token_of(&access_key).into();
        Key { access_key, secret, session_token, expires_at }
    }

    /// What a name claims. Proves nothing.
    #[must_use]
    pub fn claim(access_key: &str) -> Option<Claim> {
        let name = hex::decode(access_key.strip_prefix(PREFIX)?).ok()?;
        let (form, rest) = name.split_first()?;
        let (organization, rest) = rest.split_first_chunk::<16>()?;
        let (end, rest) = rest.split_first_chunk::<8>()?;
        if *form != FORM || rest.len() != 8 {
            return None;
        }
        let expires_at = Timestamp::from_second(i64::from_be_bytes(*end)).ok()?;
        let organization = OrganizationId::from_uuid(Uuid::from_bytes(*organization));
        Some(Claim { organization, expires_at })
    }

    /// The secret of a name.
    #[must_use]
    pub fn secret_of(&self, access_key: &str) -> String {
        self.derive("secret", access_key)
    }

    /// Whether `token` is the session token of a name.
    #[must_use]
    pub fn is_token_of(&self, access_key: &str, token: &str) -> bool {
        self.token_of(access_key).as_bytes().ct_eq(token.as_bytes()).into()
    }

    fn token_of(&self, access_key: &str) -> String {
        self.derive("token", access_key)
    }

    /// A name for an upload in parts that is good for one object only.
    #[must_use]
    pub fn upload_id(&self, upload: Uuid, path: &str) -> String {
        let upload = upload.simple().to_string();
        let proof = self.derive("upload", &format!("{upload} {path}"));
        format!("{upload}-{proof}")
    }

    /// The upload of that name, if it is one of this object.
    #[must_use]
    pub fn upload(&self, id: &str, path: &str) -> Option<Uuid> {
        let upload = Uuid::try_parse(id.get(..32)?).ok()?;
        let ours = self.upload_id(upload, path);
        bool::from(ours.as_bytes().ct_eq(id.as_bytes())).then_some(upload)
    }

    fn derive(&self, what: &str, of: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("any length will do");
        mac.update(what.as_bytes());
        mac.update(&[0]);
        mac.update(of.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use secrecy::ExposeSecret as _;
    use slipway_bus::topology::Topology;
    use slipway_testkit::NatsServer;

    use super::*;

    fn organization() -> OrganizationId {
        OrganizationId::from_uuid(Uuid::from_u128(7))
    }

    #[test]
    fn a_key_says_whose_it_is_and_until_when() {
        let keys = Keys { secret: [1; 32] };
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let key = keys.issue(organization(), now);
        let claim = Keys::claim(&key.access_key).unwrap();
        assert_eq!(claim.organization, organization());
        assert_eq!(claim.expires_at.as_second(), 1_700_003_600);
        assert!(key.access_key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(keys.secret_of(&key.access_key), key.secret.expose_secret());
        assert!(keys.is_token_of(&key.access_key, key.session_token.expose_secret()));
        // Nothing fits another name or another installation.
        let next = keys.issue(organization(), now);
        assert_ne!(next.access_key, key.access_key);
        assert!(!keys.is_token_of(&next.access_key, key.session_token.expose_secret()));
        let other = Keys { secret: [2; 32] };
        assert_ne!(other.secret_of(&key.access_key), key.secret.expose_secret());
        for wrong in ["", "AKIAIOSFODNN7EXAMPLE", "SLIPWAY", "SLIPWAY01", "SLIPWAYzz"] {
            assert_eq!(Keys::claim(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_upload_belongs_to_one_object() {
        let keys = Keys { secret: [1; 32] };
        let upload = Uuid::from_u128(9);
        let id = keys.upload_id(upload, "a/b");
        assert_eq!(keys.upload(&id, "a/b"), Some(upload));
        for (id, path) in [(id.as_str(), "a/c"), ("", "a/b"), (&id[..32], "a/b"), ("ä", "a/b")] {
            assert_eq!(keys.upload(id, path), None, "{id}");
        }
    }

    #[tokio::test]
    async fn every_scheduler_makes_and_knows_the_same_keys() {
        let nats = NatsServer::start().await;
        let config = slipway_bus::Config::new(nats.url(), "test");
        let bus = slipway_bus::connect(&config).await.unwrap();
        bus.ensure(&Topology::single("us".parse().unwrap())).await.unwrap();
        let (first, second) = tokio::join!(Keys::load(&bus), Keys::load(&bus));
        let (first, second, later) =
            (first.unwrap(), second.unwrap(), Keys::load(&bus).await.unwrap());
        assert_eq!((first.secret, first.secret), (second.secret, later.secret));
        assert_ne!(first.secret, [0; 32]);
    }
}
