//! Where a registry is: its name for people and credentials, the host that
//! serves it, and whether it may be spoken to without TLS.

use std::net::IpAddr;

use url::Url;

use crate::Config;

/// What references call Docker Hub, and where it is.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A registry as it is named and as it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// `host[:port]` in lowercase, as references and credentials name it.
    pub(crate) name: String,
    /// `host[:port]` that is connected to.
    pub(crate) authority: String,
    /// Whether it may be spoken to without TLS.
    pub(crate) may_be_plain: bool,
}

impl Location {
    pub(crate) fn new(name: &str, config: &Config) -> Self {
        let name = name.to_ascii_lowercase();
        let authority = if name == HUB.0 { HUB.1.to_owned() } else { name.clone() };
        let may_be_plain = is_loopback(&name) || config.insecure.contains(&name);
        Self { name, authority, may_be_plain }
    }

    /// Everywhere that a reference to `name` may be found, in the order in
    /// which to ask.
    pub(crate) fn all(name: &str, config: &Config) -> Vec<Self> {
        let mirrors = config.mirrors.get(&name.to_ascii_lowercase());
        let names = mirrors.into_iter().flatten().map(String::as_str).chain([name]);
        names.map(|name| Self::new(name, config)).collect()
    }
}

/// The authority of a URL as configuration writes it.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// `host` or `host:port`, and nothing that a URL could read as more.
pub(crate) fn is_authority(text: &str) -> bool {
    let forbidden =
        |letter: char| letter.is_whitespace() || letter.is_control() || "/\\@?#%".contains(letter);
    if text.is_empty() || text.contains(forbidden) {
        return false;
    }
    Url::parse(&format!("https://{text}/")).is_ok_and(|url| {
        url.has_host() && url.username().is_empty() && url.password().is_none() && url.path() == "/"
    })
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_may_be_plain_and_others_only_when_configured() {
        let config = Config { insecure: ["lan:5000".into()].into(), ..Config::default() };
        for plain in
            ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "LAN:5000"]
        {
            assert!(Location::new(plain, &config).may_be_plain, "{plain}");
        }
        for tls in
            ["lan", "lan:5001", "localhost.example.com", "128.0.0.1", "127.0.0.1.nip.io", "[::2]"]
        {
            assert!(!Location::new(tls, &config).may_be_plain, "{tls}");
        }
    }

    #[test]
    fn docker_hub_is_reached_elsewhere_and_mirrors_come_first() {
        let mirrors = [("docker.io".to_owned(), vec!["mirror".to_owned()])];
        let config = Config { mirrors: mirrors.into(), ..Config::default() };
        let all = Location::all("docker.io", &config);
        let all: Vec<_> =
            all.iter().map(|one| (one.name.as_str(), one.authority.as_str())).collect();
        assert_eq!(all, [("mirror", "mirror"), ("docker.io", "registry-1.docker.io")]);
        assert_eq!(Location::all("ghcr.io", &config).len(), 1);
    }
}
