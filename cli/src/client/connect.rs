//! Which server, and as whom.

use secrecy::SecretString;
use slipway_api::Client;

use super::error::Error;

/// Prefixes of the variables, in the order of precedence. Address and key are
/// taken from the same pair, so that no key is sent to somebody else's server.
const PAIRS: [&str; 2] = ["SLIPWAY", "DAYTONA"];

/// A client for the server and the key that the environment names.
pub fn from_environment() -> Result<Client, Error> {
    connect(|name| std::env::var(name).ok())
}

fn connect(lookup: impl Fn(&str) -> Option<String>) -> Result<Client, Error> {
    let lookup = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
    let pair = PAIRS
        .map(|prefix| (format!("{prefix}_API_URL"), format!("{prefix}_API_KEY")))
        .into_iter()
        .map(|(url, key)| ((lookup(&url), url), (lookup(&key), key)))
        .find(|((url, _), (key, _))| url.is_some() || key.is_some());
    let Some(((url, url_name), (key, key_name))) = pair else {
        return Err(Error::NoServer);
    };
    let missing = |name: &str, given: &str| Error::HalfServer {
        missing: name.to_owned(),
        given: given.to_owned(),
    };
    let url = url.ok_or_else(|| missing(&url_name, &key_name))?;
    let key = key.ok_or_else(|| missing(&key_name, &url_name))?;
    let parsed: Result<url::Url, _> = url.trim().parse();
    let parsed = parsed.map_err(|source| Error::BadUrl { name: url_name.clone(), url, source })?;
    if !matches!(parsed.scheme(), "http" | "https") {
        return Err(Error::BadScheme { name: url_name, url: parsed });
    }
    Ok(Client::new(parsed, &SecretString::from(key.trim().to_owned()))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Error, connect};

    fn base(variables: &[(&str, &str)]) -> Result<String, Error> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        connect(lookup).map(|client| client.base().to_string())
    }

    #[test]
    fn slipway_comes_before_daytona_and_pairs_are_not_mixed() {
        let slipway = [("SLIPWAY_API_URL", "http://s:1"), ("SLIPWAY_API_KEY", "k")];
        let daytona = [("DAYTONA_API_URL", "http://d:2/api/"), ("DAYTONA_API_KEY", "k")];
        assert_eq!(base(&[slipway, daytona].concat()).unwrap(), "http://s:1/api");
        assert_eq!(base(&daytona).unwrap(), "http://d:2/api");
        let empty = [("SLIPWAY_API_URL", " "), ("SLIPWAY_API_KEY", "")];
        assert_eq!(base(&[empty, daytona].concat()).unwrap(), "http://d:2/api");
        assert!(matches!(base(&[slipway[0], daytona[1]]), Err(Error::HalfServer { .. })));
        assert!(matches!(base(&[]), Err(Error::NoServer)));
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_its_variable() {
        for url in ["127.0.0.1:3000", "not a url", "ftp://x/"] {
            let error = base(&[("SLIPWAY_API_URL", url), ("SLIPWAY_API_KEY", "k")]).unwrap_err();
            assert!(error.to_string().contains("SLIPWAY_API_URL"), "{error}");
        }
    }
}
