//! `WWW-Authenticate`: how a registry wants to be shown credentials (RFC 9110,
//! section 11.6.1; distribution specification, "token authentication").

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A way of authentication that is known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// Its URL, as the registry wrote it.
        realm: String,
        /// For whom the token is to be.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The way to take: a token where the registry offers one.
    pub(crate) fn choose(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
        let offered = values.filter_map(|value| value.to_str().ok()).flat_map(parse);
        let known: Vec<Self> = offered.filter_map(Self::read).collect();
        known.iter().find(|one| matches!(one, Self::Bearer { .. })).or(known.first()).cloned()
    }

    fn read((scheme, mut parameters): Offer) -> Option<Self> {
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
            scope: parameters.remove("scope").filter(|scope| !scope.is_empty()),
        })
    }
}

/// A scheme and its parameters, names in lowercase.
type Offer = (String, BTreeMap<String, String>);

/// Reads a header that may hold several challenges. What is malformed ends the
/// reading; what stands before it counts.
fn parse(text: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', ',']);
    while let Some((word, after)) = token(rest) {
        let spaced = after.trim_start_matches([' ', '\t']);
        match (spaced.strip_prefix('='), offers.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let value = value.trim_start_matches([' ', '\t']);
                let Some((value, after)) = quoted(value).or_else(|| plain(value)) else { break };
                parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            }
            // A parameter of nothing.
            (Some(_), None) => break,
            (None, _) => {
                offers.push((word.to_owned(), BTreeMap::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    offers
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_end =
        |letter: char| !(letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(letter));
    let end = text.find(is_end).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn plain(text: &str) -> Option<(String, &str)> {
    let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
    let (value, rest) = text.split_at(end);
    Some((value.to_owned(), rest))
}

fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut letters = inner.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &inner[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    fn choose(values: &[&str]) -> Option<Challenge> {
        let header = |value: &&str| (WWW_AUTHENTICATE, value.parse().unwrap());
        Challenge::choose(&values.iter().map(header).collect())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) }
    }

    #[test]
    fn the_forms_that_registries_use() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull,push""#;
        let wanted = bearer(
            "https://auth.docker.io/token",
            Some("registry.docker.io"),
            Some("repository:library/debian:pull,push"),
        );
        assert_eq!(choose(&[hub]), Some(wanted));
        assert_eq!(choose(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(choose(&["basic"]), Some(Challenge::Basic));
        assert_eq!(choose(&["bearer realm=https://a/t"]), Some(bearer("https://a/t", None, None)));
        let spaced = r#"Bearer realm = "x" , error="invalid_token", scope="""#;
        assert_eq!(choose(&[spaced]), Some(bearer("x", None, None)));
        assert_eq!(choose(&["Negotiate", "Digest qop=\"a, b\""]), None);
        assert_eq!(choose(&["Bearer service=\"x\""]), None);
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn a_token_is_preferred_over_a_password() {
        let one = r#"Basic realm="a, Bearer b", Bearer realm="https://t""#;
        assert_eq!(choose(&[one]), Some(bearer("https://t", None, None)));
        assert_eq!(choose(&["Basic", "Bearer realm=\"t\""]), Some(bearer("t", None, None)));
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic(text in "[ -~]{0,80}") {
            parse(&text);
        }

        #[test]
        fn values_come_back_as_they_were_quoted(value in "[ -~]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let offers = parse(&format!("Bearer realm=\"{escaped}\", service=s"));
            prop_assert_eq!(&offers[0].1["realm"], &value);
            prop_assert_eq!(&offers[0].1["service"], "s");
        }
    }
}
