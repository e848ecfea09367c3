//! Where a BuildKit listens.
//!
//! Owns the text form of endpoints. Refuses forms it cannot dial, so that an
//! [`Endpoint`] that exists can be dialled. `Display` gives the text that
//! parses back to the same value.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;

/// Address of a BuildKit, parsed from text.
///
/// | text | means |
/// |---|---|
/// | `docker:///run/docker.sock`, `docker+unix://…` | BuildKit inside a Docker Engine, by an HTTP upgrade on its socket |
/// | `unix:///run/buildkit/buildkitd.sock` | buildkitd on a unix socket |
/// | `tcp://host:port` | buildkitd on TCP, with mutual TLS if a [`Tls`] is given |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Socket of a Docker Engine (absolute path).
    Docker(PathBuf),
    /// Socket of a buildkitd (absolute path).
    Unix(PathBuf),
    /// TCP address of a buildkitd.
    Tcp {
        /// Name or address; an IPv6 address without its brackets.
        host: String,
        /// Port, never 0.
        port: u16,
    },
}

/// Mutual TLS for a [`Endpoint::Tcp`]: whom to trust and who we are.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificates (PEM) that may sign the server's.
    pub ca: String,
    /// Our certificate chain (PEM).
    pub cert: String,
    /// The key of our certificate (PEM).
    pub key: SecretString,
    /// The name that the server's certificate must carry.
    pub server_name: String,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not begin with a scheme that we can dial.
    #[error(
        "`{0}` is not a BuildKit endpoint: expected `docker:///path`, `unix:///path` or `tcp://host:port`"
    )]
    UnknownScheme(String),
    /// The path of a socket is empty or relative.
    #[error(
        "socket path of `{0}` is not absolute: write it with three slashes, as in `unix:///path`"
    )]
    RelativePath(String),
    /// A TCP address lacks a host or a port from 1 to 65535.
    #[error("`{0}` has no host and port: expected `tcp://host:port`")]
    MissingPort(String),
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| Error::UnknownScheme(text.to_owned()))?;
        match scheme {
            "docker" | "docker+unix" => socket_path(text, rest).map(Self::Docker),
            "unix" => socket_path(text, rest).map(Self::Unix),
            "tcp" => host_and_port(rest)
                .map(|(host, port)| Self::Tcp { host, port })
                .ok_or_else(|| Error::MissingPort(text.to_owned())),
            _ => Err(Error::UnknownScheme(text.to_owned())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(path) => write!(f, "docker://{}", path.display()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => write!(f, "tcp://{}", authority(host, *port)),
        }
    }
}

/// `host:port` as a URL writes it: IPv6 addresses in brackets.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn socket_path(text: &str, path: &str) -> Result<PathBuf, Error> {
    if path.starts_with('/') && path.len() > 1 {
        Ok(PathBuf::from(path))
    } else {
        Err(Error::RelativePath(text.to_owned()))
    }
}

fn host_and_port(rest: &str) -> Option<(String, u16)> {
    let (host, port) = rest.rsplit_once(':')?;
    let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(inner) => {
            inner.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?
        }
        None => host,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    (!host.is_empty() && host.chars().all(plain)).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_form_is_parsed() {
        let parse = |text: &str| text.parse::<Endpoint>().unwrap();
        let docker = Endpoint::Docker("/run/docker.sock".into());
        assert_eq!(parse("docker:///run/docker.sock"), docker);
        assert_eq!(parse("docker+unix:///run/docker.sock"), docker);
        assert_eq!(parse("unix:///b.sock"), Endpoint::Unix("/b.sock".into()));
        let tcp = |host: &str, port| Endpoint::Tcp { host: host.into(), port };
        assert_eq!(parse("tcp://buildkit.example:1234"), tcp("buildkit.example", 1234));
        assert_eq!(parse("tcp://[::1]:1234"), tcp("::1", 1234));
        assert_eq!(parse("tcp://[::1]:1234").to_string(), "tcp://[::1]:1234");
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_its_reason() {
        let error = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert!(matches!(error(""), Error::UnknownScheme(_)));
        assert!(matches!(error("/run/docker.sock"), Error::UnknownScheme(_)));
        assert!(matches!(error("http://a:1"), Error::UnknownScheme(_)));
        assert!(matches!(error("unix://run/b.sock"), Error::RelativePath(_)));
        assert!(matches!(error("docker://"), Error::RelativePath(_)));
        for text in
            ["tcp://a", "tcp://a:0", "tcp://:1", "tcp://a:99999", "tcp://a/b:1", "tcp://[x]:1"]
        {
            assert!(matches!(error(text), Error::MissingPort(_)), "{text}");
        }
    }

    proptest! {
        #[test]
        fn display_parses_back(host in "[a-z][a-z0-9.-]{0,20}", port in 1u16.., path in "/[ -~]{1,30}") {
            for endpoint in [
                Endpoint::Tcp { host, port },
                Endpoint::Unix(path.clone().into()),
                Endpoint::Docker(path.into()),
            ] {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = text.parse::<Endpoint>();
        }
    }
}
