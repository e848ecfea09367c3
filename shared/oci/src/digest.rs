//! Content digests: `algorithm:hex`, and the writers that compute them.
//!
//! Owns the strict form of the OCI image specification (descriptor.md,
//! "Digests"): `sha256` with 64 and `sha512` with 128 lowercase hex digits.
//! Refuses every other algorithm, since content that cannot be verified must
//! not be accepted.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};

/// The text was not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no `:` between algorithm and hex digits.
    #[error("digest `{0}` has no algorithm")]
    NoAlgorithm(String),
    /// The algorithm is neither `sha256` nor `sha512`.
    #[error("digest algorithm `{0}` is not supported")]
    UnsupportedAlgorithm(String),
    /// The number of hex digits is not that of the algorithm.
    #[error("digest `{0}` has the wrong length")]
    Length(String),
    /// A character is not one of `0-9a-f`.
    #[error("digest `{0}` is not lowercase hexadecimal")]
    Hex(String),
}

/// A hash algorithm of the OCI registry of algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, what every registry and client uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The digest of some content; displays as `sha256:<64 hex>` or
/// `sha512:<128 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Digest {
    /// 32 bytes of SHA-256.
    Sha256([u8; 32]),
    /// 64 bytes of SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 digest of `content`.
    #[must_use]
    pub fn sha256(content: impl AsRef<[u8]>) -> Self {
        Self::Sha256(Sha256::digest(content).into())
    }

    /// The digest of `content` by `algorithm`.
    #[must_use]
    pub fn of(algorithm: Algorithm, content: impl AsRef<[u8]>) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::sha256(content),
            Algorithm::Sha512 => Self::Sha512(Sha512::digest(content).into()),
        }
    }

    /// A SHA-256 digest from its 64 hex digits alone, as they stand in URLs
    /// and object keys.
    ///
    /// # Errors
    /// If `hex` is not 64 lowercase hexadecimal digits.
    pub fn from_sha256_hex(hex: &str) -> Result<Self, Error> {
        decode(hex).map(Self::Sha256)
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The lowercase hex digits after the colon.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (algorithm, hex) =
            text.split_once(':').ok_or_else(|| Error::NoAlgorithm(text.to_owned()))?;
        match algorithm {
            "sha256" => decode(hex).map(Self::Sha256),
            "sha512" => decode(hex).map(Self::Sha512),
            other => Err(Error::UnsupportedAlgorithm(other.to_owned())),
        }
    }
}

/// Decodes strictly: `hex::decode` alone would take uppercase digits, and then
/// one content would have several names.
fn decode<const N: usize>(digits: &str) -> Result<[u8; N], Error> {
    if !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Error::Hex(digits.to_owned()));
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| Error::Length(digits.to_owned()))?;
    Ok(bytes)
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text)
    }
}

/// Reads a digest where its text lies.
struct Text;

impl de::Visitor<'_> for Text {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(E::custom)
    }
}

/// Computes a digest and counts bytes while content streams through.
#[derive(Debug, Clone)]
pub struct DigestWriter {
    state: State,
    written: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl DigestWriter {
    /// An empty content, to be hashed by `algorithm`.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        Self { state, written: 0 }
    }

    /// Appends `bytes` to the content.
    pub fn update(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        match &mut self.state {
            State::Sha256(hash) => hash.update(bytes),
            State::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The number of bytes so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The digest of everything written.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(hash) => Digest::Sha256(hash.finalize().into()),
            State::Sha512(hash) => Digest::Sha512(hash.finalize().into()),
        }
    }
}

impl io::Write for DigestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The content is not what its descriptor promised. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The content hashes to something else.
    #[error("content has digest `{actual}` instead of `{expected}`")]
    Digest {
        /// What was promised.
        expected: Box<Digest>,
        /// What arrived.
        actual: Box<Digest>,
    },
    /// The content goes on beyond its size, found without reading further.
    #[error("content is longer than {size} bytes")]
    TooLong {
        /// The promised or greatest allowed size.
        size: u64,
    },
    /// The content ended before its size.
    #[error("content ended after {actual} of {expected} bytes")]
    TooShort {
        /// What was promised.
        expected: u64,
        /// What arrived.
        actual: u64,
    },
}

/// Checks streaming content against an expected digest, an exact size and an
/// upper bound, each of them optional.
#[derive(Debug, Clone)]
pub struct Verifier {
    hash: DigestWriter,
    digest: Option<Digest>,
    size: Option<u64>,
    limit: u64,
}

impl Verifier {
    /// Checks against `digest` only.
    #[must_use]
    pub fn new(digest: Digest) -> Self {
        Self { digest: Some(digest), ..Self::unknown(digest.algorithm()) }
    }

    /// Computes the digest of content about which nothing is known.
    #[must_use]
    pub fn unknown(algorithm: Algorithm) -> Self {
        Self { hash: DigestWriter::new(algorithm), digest: None, size: None, limit: u64::MAX }
    }

    /// Demands exactly `size` bytes.
    #[must_use]
    pub const fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// Demands at most `limit` bytes.
    #[must_use]
    pub const fn at_most(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`Mismatch::TooLong`] as soon as the content exceeds its size or bound;
    /// the surplus is not hashed.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let bound = self.size.unwrap_or(u64::MAX).min(self.limit);
        if self.hash.written() + bytes.len() as u64 > bound {
            return Err(Mismatch::TooLong { size: bound });
        }
        self.hash.update(bytes);
        Ok(())
    }

    /// The number of bytes so far.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.hash.written()
    }

    /// The digest of the whole content, if it is what was promised.
    ///
    /// # Errors
    /// [`Mismatch::TooShort`] or [`Mismatch::Digest`].
    pub fn finish(self) -> Result<Digest, Mismatch> {
        let written = self.hash.written();
        if let Some(expected) = self.size.filter(|size| *size != written) {
            return Err(Mismatch::TooShort { expected, actual: written });
        }
        let actual = self.hash.finish();
        match self.digest {
            Some(expected) if expected != actual => {
                Err(Mismatch::Digest { expected: expected.into(), actual: actual.into() })
            }
            _ => Ok(actual),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn known_digests() {
        assert_eq!(Digest::sha256("").to_string(), EMPTY);
        let long = Digest::of(Algorithm::Sha512, "abc").to_string();
        assert!(long.starts_with("sha512:ddaf35a193617abacc417349ae204131"));
        assert_eq!(long.parse::<Digest>().unwrap().to_string(), long);
    }

    #[test]
    fn refuses_everything_but_the_canonical_form() {
        let hex = &EMPTY[7..];
        let cases = [
            (String::new(), Error::NoAlgorithm(String::new())),
            (hex.to_owned(), Error::NoAlgorithm(hex.to_owned())),
            (format!("md5:{}", &hex[..32]), Error::UnsupportedAlgorithm("md5".into())),
            (format!("SHA256:{hex}"), Error::UnsupportedAlgorithm("SHA256".into())),
            (format!("sha256:{}", hex.to_uppercase()), Error::Hex(hex.to_uppercase())),
            (format!("sha256:{}", &hex[1..]), Error::Length(hex[1..].into())),
            (format!("sha512:{hex}"), Error::Length(hex.into())),
            (format!("sha256: {}", &hex[1..]), Error::Hex(format!(" {}", &hex[1..]))),
            (format!("sha256:{hex}/.."), Error::Hex(format!("{hex}/.."))),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Digest>(), Err(error), "{text}");
        }
    }

    #[test]
    fn json_form_is_the_display_form() {
        let digest: Digest = EMPTY.parse().unwrap();
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(json, format!("\"{EMPTY}\""));
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        assert!(serde_json::from_str::<Digest>("\"sha256:zz\"").is_err());
    }

    #[test]
    fn verifier_tells_each_mismatch_apart() {
        let digest = Digest::sha256("hello");
        let feed = |verifier: Verifier, text: &str| {
            let mut verifier = verifier;
            verifier.update(text.as_bytes()).and_then(|()| verifier.finish())
        };
        assert_eq!(feed(Verifier::new(digest).size(5), "hello"), Ok(digest));
        assert_eq!(feed(Verifier::new(digest), "hello"), Ok(digest));
        assert_eq!(feed(Verifier::unknown(Algorithm::Sha256), "hello"), Ok(digest));
        assert_eq!(
            feed(Verifier::new(digest).size(5), "hellooo"),
            Err(Mismatch::TooLong { size: 5 })
        );
        assert_eq!(
            feed(Verifier::new(digest).at_most(4), "hello"),
            Err(Mismatch::TooLong { size: 4 })
        );
        assert_eq!(
            feed(Verifier::new(digest).size(5), "hell"),
            Err(Mismatch::TooShort { expected: 5, actual: 4 })
        );
        assert_eq!(
            feed(Verifier::new(digest), "jello"),
            Err(Mismatch::Digest {
                expected: digest.into(),
                actual: Digest::sha256("jello").into()
            })
        );
    }

    proptest! {
        #[test]
        fn chunking_does_not_matter(content: Vec<u8>, cut in any::<proptest::sample::Index>()) {
            let at = if content.is_empty() { 0 } else { cut.index(content.len()) };
            let mut writer = DigestWriter::new(Algorithm::Sha256);
            writer.write_all(&content[..at]).unwrap();
            writer.write_all(&content[at..]).unwrap();
            prop_assert_eq!(writer.written(), content.len() as u64);
            prop_assert_eq!(writer.finish(), Digest::sha256(&content));
        }

        #[test]
        fn parse_inverts_display(bytes: [u8; 32]) {
            let digest = Digest::Sha256(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        }
    }
}
