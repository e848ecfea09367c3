//! A token server's key, with which it signs what registries of the
//! distribution project verify.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, SigningKey as _};
use serde_json::{Value, json};

/// The key of a token server, and the certificate that registries know it by.
pub struct Issuer {
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl Issuer {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap();
        Self { key, certificate }
    }

    /// What registries know the key by, in PEM.
    pub fn certificate(&self) -> String {
        self.certificate.pem()
    }

    /// A JSON web token for the scopes that a client asks for: a query or a form.
    pub fn token(&self, asked: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let chain = [BASE64_STANDARD.encode(self.certificate.der())];
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": chain });
        let claims = json!({
            "iss": "issuer", "sub": "tester", "aud": "registry", "jti": "1",
            "iat": now, "nbf": now - 5, "exp": now + 300, "access": access(asked),
        });
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&head), encode(&claims));
        let signature = fixed(&self.key.sign(text.as_bytes()).unwrap());
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Everything that is asked for.
fn access(asked: &str) -> Vec<Value> {
    let fields = url::form_urlencoded::parse(asked.as_bytes());
    let scopes = fields.filter(|(name, _)| name == "scope");
    scopes
        .filter_map(|(_, scope)| {
            let [kind, name, actions] = scope.split(':').collect::<Vec<_>>()[..] else {
                return None;
            };
            let actions: Vec<_> = actions.split(',').collect();
            Some(json!({ "type": kind, "name": name, "actions": actions }))
        })
        .collect()
}

/// An ECDSA signature as web tokens have it: two numbers of 32 bytes, out of
/// the two integers of its DER form.
fn fixed(der: &[u8]) -> Vec<u8> {
    let integer = |at: usize| {
        let length = usize::from(der[at + 1]);
        let digits = &der[at + 2..at + 2 + length];
        let digits = &digits[digits.len().saturating_sub(32)..];
        ([vec![0; 32 - digits.len()], digits.to_vec()].concat(), at + 2 + length)
    };
    let (first, next) = integer(2);
    [first, integer(next).0].concat()
}
