//! Configuration files: TOML, read once, refused as a whole if anything is off.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Exit code for a bad command line or configuration (`EX_USAGE`, sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// The configuration cannot be used. Display names the key; who reports it names
/// the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or a key is unknown, missing or of the wrong type.
    #[error("the configuration `{}` is not valid", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key has a value that cannot work.
    #[error("`{key}` is not valid: {reason}")]
    Invalid {
        /// The key, with dots.
        key: &'static str,
        /// Why, and what to write instead.
        reason: String,
    },
}

/// Reads a TOML file into `T`. Give `T` `deny_unknown_fields`, so that a
/// misspelt key is an error.
///
/// # Errors
/// The file cannot be read or does not fit `T`.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| Error::Parse { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code)]
        listen: std::net::SocketAddr,
    }

    #[test]
    fn a_misspelt_key_names_file_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("worker.toml");
        std::fs::write(&path, "lisen = \"127.0.0.1:1\"\n").unwrap();
        let error = load::<Sample>(&path).unwrap_err();
        assert!(error.to_string().contains("worker.toml"));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("lisen"), "{source}");
    }
}
