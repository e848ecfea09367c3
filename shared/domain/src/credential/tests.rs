#![allow(clippy::unwrap_used)]
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn url(text: &str) -> RegistryUrl {
    text.parse().unwrap()
}

fn image(text: &str) -> ImageReference {
    text.parse().unwrap()
}

fn record(n: u128, at: &str) -> RegistryCredentialRecord {
    RegistryCredentialRecord {
        version: 1,
        id: CredentialId::from_uuid(Uuid::from_u128(n)),
        organization: OrganizationId::from_uuid(Uuid::nil()),
        name: format!("n{n}"),
        url: url(at),
        username: "u".into(),
        project: String::new(),
        kind: CredentialKind::Basic,
        sealed: BTreeMap::new(),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

#[test]
fn addresses_are_normalised() {
    for (text, normal) in [
        ("", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("docker.io/acme", "docker.io"),
        ("ghcr.io///", "ghcr.io"),
        ("HTTPS://GHCR.io/acme/", "https://ghcr.io/acme"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("localhost:5000", "localhost:5000"),
        ("[::1]:5000", "[::1]:5000"),
        ("  ghcr.io ", "ghcr.io"),
    ] {
        assert_eq!(url(text).to_string(), normal, "{text}");
    }
    for bad in [
        "ftp://x.io",
        "https://",
        "https://user:pw@ghcr.io",
        "user@ghcr.io",
        "ghcr.io/Acme",
        "ghcr.io/a?b",
        "ghcr.io/a#b",
        "ghcr.io/a//b",
        "ghcr.io/a:1",
        "ghcr.io/..",
        "ghcr",
        "a b.io",
        "ghcr.io:port",
        "x.io\n",
        "-x.io",
    ] {
        let parsed = bad.parse::<RegistryUrl>();
        assert!(parsed.is_err() || bad.ends_with('\n'), "{bad}: {parsed:?}");
    }
    assert_ne!(url("notdocker.io").host(), "docker.io");
    assert_ne!(url("docker.io.evil.com").host(), "docker.io");
}

#[test]
fn a_credential_is_for_its_host_and_its_repositories() {
    for (at, name) in [
        ("docker.io", "debian:12"),
        ("docker.io", "acme/app"),
        (
            "https://ghcr.io",
            "ghcr.io/acme/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
        ("ghcr.io/acme", "ghcr.io/acme/app:1"),
        ("ghcr.io/acme/app", "ghcr.io/acme/app:1"),
        ("Ghcr.io", "GHCR.io/a"),
        ("r.io:5000", "r.io:5000/a"),
    ] {
        assert!(url(at).covers(&image(name)), "{at} {name}");
    }
    for (at, name) in [
        ("ghcr.io", "debian"),
        ("ghcr.io/acme", "ghcr.io/acme-evil/app"),
        ("ghcr.io/acme/app", "ghcr.io/acme"),
        ("ghcr.io", "ghcr.io.evil.com/app"),
        ("r.io", "r.io:5000/a"),
        ("r.io:500", "r.io:5000/a"),
        ("docker.io", "ghcr.io/docker.io/a"),
    ] {
        assert!(!url(at).covers(&image(name)), "{at} {name}");
    }
}

#[test]
fn the_longest_address_wins_and_then_the_newest() {
    let all = [record(1, "r.io"), record(2, "r.io/a"), record(3, "r.io"), record(4, "x.io/a/b")];
    let chosen = |name: &str| matching(&all, &image(name)).map(|found| found.name.as_str());
    assert_eq!(chosen("r.io/a/b"), Some("n2"));
    assert_eq!(chosen("r.io/b"), Some("n3"));
    assert_eq!(chosen("debian"), None);
}

#[test]
fn ecr_is_known_by_its_address_and_a_role_by_its_arn() {
    let ecr = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com";
    assert_eq!(url(ecr).ecr(), Some(("123456789012", "eu-west-1")));
    assert_eq!(url(&format!("{ecr}.cn")).ecr(), Some(("123456789012", "eu-west-1")));
    for no in ["12.dkr.ecr.eu.amazonaws.com", "123456789012.dkr.ecr.eu.amazonaws.com.evil.io"] {
        assert_eq!(url(no).ecr(), None, "{no}");
    }
    let role = "arn:aws:iam::123456789012:role/team/pull";
    let kind = |at: &str, user: &str, password| CredentialKind::of(&url(at), user, password);
    assert_eq!(kind(ecr, role, false), Some(CredentialKind::EcrRole));
    assert_eq!(kind(ecr, role, true), Some(CredentialKind::Basic));
    assert_eq!(kind("ghcr.io", role, false), None);
    assert_eq!(kind(ecr, "arn:aws:iam::123456789012:user/x", false), None);
    assert_eq!(kind(ecr, "AWS", false), None);
}

#[test]
fn a_retired_key_never_comes_back() {
    let key =
        |n: char| -> Recipient { format!("age1{}", n.to_string().repeat(58)).parse().unwrap() };
    let now = Timestamp::UNIX_EPOCH;
    let keys = RegionKeysRecord::new("us".parse().unwrap(), now);
    let keys = keys.with(&key('a'), now).unwrap().with(&key('b'), now).unwrap();
    assert_eq!(keys.with(&key('a'), now), None);
    let rotated = keys.rotated(&[key('a')].into(), key('c'), now);
    assert_eq!(rotated.recipients, [key('b'), key('c')].into());
    assert_eq!(rotated.with(&key('a'), now), None);
}

#[test]
fn a_stored_credential_of_version_1_is_read() {
    let stored = r#"{"version":1,"id":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f",
        "organization":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5e","name":"hub","url":"docker.io",
        "username":"me","project":"","kind":"basic","sealed":{"us":{"recipients":
        ["age1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"],"ciphertext":"YQ=="}},
        "created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"}"#;
    let record: RegistryCredentialRecord = serde_json::from_str(stored).unwrap();
    let us = record.for_region(&"us".parse().unwrap()).unwrap();
    assert_eq!(us.purpose(), record.purpose());
    assert_eq!(record.for_region(&"eu".parse().unwrap()), None);
}

proptest! {
    /// The rule of Daytona's contract: the image begins with the address without
    /// its scheme, and goes on with nothing, `/`, `:` or a digest; where the
    /// address has no path, a `:` after it would be a port and is another host.
    #[test]
    fn matching_is_that_of_the_contract(
        host in "[a-c]{1,2}\\.io(:[1-9]{1,2})?",
        path in prop::collection::vec("[a-b]{1,2}", 0..3),
        other in "[a-c]{1,2}\\.io(:[1-9]{1,2})?",
        same in any::<bool>(),
        repository in prop::collection::vec("[a-b]{1,2}", 1..4),
        tag in prop::option::of("[a-z]{1,3}"),
    ) {
        let mut at = host.clone();
        for segment in &path {
            at = format!("{at}/{segment}");
        }
        let domain = if same { &host } else { &other };
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let text = format!("{domain}/{}{tag}", repository.join("/"));
        let rest = text.strip_prefix(&at);
        let wanted = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')
            || (rest.starts_with(':') && !path.is_empty()));
        prop_assert_eq!(url(&at).covers(&image(&text)), wanted, "{} {}", at, text);
    }

    #[test]
    fn normalising_twice_changes_nothing(text in "(https?://)?[a-zA-Z0-9.:-]{0,12}(/[a-zA-Z0-9._-]{0,6}){0,3}/*") {
        if let Ok(once) = text.parse::<RegistryUrl>() {
            let twice: RegistryUrl = once.to_string().parse().unwrap();
            prop_assert_eq!(&once, &twice);
            prop_assert!(!once.to_string().ends_with('/'));
        }
    }
}
