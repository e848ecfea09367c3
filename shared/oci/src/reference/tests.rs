//! The inputs are the published vectors of the distribution project's
//! `reference` package (`TestReferenceParse`, `TestValidateReferenceName`,
//! `TestValidateRemoteName`, `TestParseRepositoryInfo`), expected in the
//! normalised form.
#![allow(clippy::unwrap_used)]

use proptest::prelude::{prop_assert_eq, proptest};

use super::*;

const F: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";
const ID: &str = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a";

fn parse(text: &str) -> Result<ImageReference, Error> {
    text.parse()
}

/// input, domain, path, tag, whether the digest `F` is expected
const VALID: &[(&str, &str, &str, &str)] = &[
    ("test_com", "docker.io", "library/test_com", ""),
    ("test.com:tag", "docker.io", "library/test.com", "tag"),
    ("test.com:5000", "docker.io", "library/test.com", "5000"),
    ("test.com/repo:tag", "test.com", "repo", "tag"),
    ("test:5000/repo", "test:5000", "repo", ""),
    ("test:5000/repo:tag", "test:5000", "repo", "tag"),
    ("lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase"),
    ("sub-dom1.foo.com/bar/baz/quux", "sub-dom1.foo.com", "bar/baz/quux", ""),
    (
        "sub-dom1.foo.com/bar/baz/quux:some-long-tag",
        "sub-dom1.foo.com",
        "bar/baz/quux",
        "some-long-tag",
    ),
    (
        "b.gcr.io/test.example.com/my-app:test.example.com",
        "b.gcr.io",
        "test.example.com/my-app",
        "test.example.com",
    ),
    ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com", "myimage", "xn--n3h.com"),
    ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080"),
    ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080"),
    ("192.168.1.1", "docker.io", "library/192.168.1.1", ""),
    ("192.168.1.1:tag", "docker.io", "library/192.168.1.1", "tag"),
    ("192.168.1.1:5000", "docker.io", "library/192.168.1.1", "5000"),
    ("192.168.1.1/repo", "192.168.1.1", "repo", ""),
    ("192.168.1.1:5000/repo", "192.168.1.1:5000", "repo", ""),
    ("192.168.1.1:5000/repo:5050", "192.168.1.1:5000", "repo", "5050"),
    ("[2001:db8::1]/repo", "[2001:db8::1]", "repo", ""),
    ("[2001:db8:1:2:3:4:5:6]/repo:tag", "[2001:db8:1:2:3:4:5:6]", "repo", "tag"),
    ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000", "repo", ""),
    ("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000", "repo", "tag"),
    ("[2001:db8::]:5000/repo", "[2001:db8::]:5000", "repo", ""),
    ("[::1]:5000/repo", "[::1]:5000", "repo", ""),
    ("docker/docker", "docker.io", "docker/docker", ""),
    ("library/debian", "docker.io", "library/debian", ""),
    ("debian", "docker.io", "library/debian", ""),
    ("docker.io/docker/docker", "docker.io", "docker/docker", ""),
    ("docker.io/debian", "docker.io", "library/debian", ""),
    ("index.docker.io/docker/docker", "docker.io", "docker/docker", ""),
    ("index.docker.io/library/debian", "docker.io", "library/debian", ""),
    ("index.docker.io/debian", "docker.io", "library/debian", ""),
    ("127.0.0.1:5000/docker/docker", "127.0.0.1:5000", "docker/docker", ""),
    ("192.168.0.1:8/debian", "192.168.0.1:8", "debian", ""),
    ("[fc00:1:2:3:4:5:6:7]:5000/library/debian", "[fc00:1:2:3:4:5:6:7]:5000", "library/debian", ""),
    ("Docker/docker", "Docker", "docker", ""),
    ("DOCKER/docker", "DOCKER", "docker", ""),
    ("localhost/app:1", "localhost", "app", "1"),
    ("docker---rules/docker", "docker.io", "docker---rules/docker", ""),
    ("d/docker", "docker.io", "d/docker", ""),
    ("dock__er/docker", "docker.io", "dock__er/docker", ""),
    ("docker.io/library/foo/bar", "docker.io", "library/foo/bar", ""),
    ("dbcc1", "docker.io", "library/dbcc1", ""),
];

#[test]
fn valid_vectors_of_the_distribution_project() {
    for (input, domain, path, tag) in VALID {
        let reference = parse(input).unwrap();
        let found = (
            reference.domain(),
            reference.path().as_str(),
            reference.tag().map_or("", Tag::as_str),
            reference.digest(),
        );
        assert_eq!(found, (*domain, *path, *tag, None), "{input}");
        assert_eq!(parse(&reference.to_string()).unwrap(), reference, "{input}");
        assert_eq!(parse(&reference.familiar()).unwrap(), reference, "{input}");
    }
}

#[test]
fn digest_vectors_with_and_without_a_tag() {
    for (input, domain, path, tag) in VALID {
        let reference = parse(&format!("{input}@{F}")).unwrap();
        assert_eq!(reference.domain(), *domain, "{input}");
        assert_eq!(reference.path().as_str(), *path);
        assert_eq!(reference.tag().map_or("", Tag::as_str), *tag);
        assert_eq!(reference.digest().unwrap().to_string(), F);
    }
    let long = format!("xn--7o8h.com/myimage:xn--7o8h.com@sha512:{}", "f".repeat(128));
    assert_eq!(parse(&long).unwrap().to_string(), long);
    assert!(parse(&format!("docker.io/{ID}")).is_ok());
}

#[test]
fn invalid_vectors_of_the_distribution_project() {
    let long = format!("{}/docker", "this_is_too_long".repeat(16));
    let deep = format!("{}a:tag", "a/".repeat(129));
    let short = "repo@sha256:ffffffffffffffffffffffffffffffffff";
    let unknown = F.replace("sha256", "validname@invaliddigest");
    let bare = format!("@{F}");
    let inputs = [
        "",
        ":justtag",
        &bare,
        short,
        &unknown,
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        &deep,
        "aa/asdf$$^/aa",
        "[2001:db8::1]",
        "[2001:db8::1]:5000",
        "[2001:db8::1]:tag",
        "[fe80::1%eth0]:5000/repo",
        "[fe80::1%@invalidzone]:5000/repo",
        "https://github.com/docker/docker",
        "docker/Docker",
        "-docker",
        "-docker/docker",
        "-docker.io/docker/docker",
        "docker///docker",
        "docker.io/docker/Docker",
        "docker.io/docker///docker",
        "[fc00::1]",
        "[fc00::1]:5000",
        "fc00::1:5000/debian",
        "[2001:db8:3:4::192.0.2.33]:5000/debian",
        ID,
        "docker-/docker",
        "-docker-/docker",
        "____/____",
        "_docker/_docker",
        "dock..er/docker",
        "dock_.er/docker",
        "dock-.er/docker",
        "docker/",
        &long,
    ];
    for input in inputs {
        assert!(parse(input).is_err(), "{input}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    assert_eq!(parse(""), Err(Error::Empty));
    assert_eq!(parse(ID), Err(Error::Identifier(ID.into())));
    assert_eq!(parse("-a.b/c"), Err(Error::Domain("-a.b".into())));
    let upper = name::Error::Uppercase("docker/Docker".into());
    assert_eq!(parse("docker/Docker"), Err(Error::Name(upper)));
    assert_eq!(parse("a:b:c"), Err(Error::Name(name::Error::Tag("b:c".into()))));
    assert!(matches!(parse("a@sha256:ff"), Err(Error::Digest(digest::Error::Length(_)))));
}

#[test]
fn familiar_names_of_the_distribution_project() {
    let cases = [
        ("docker.io/fooo/bar", "fooo/bar"),
        ("docker.io/library/ubuntu", "ubuntu"),
        ("docker.io/nonlibrary/ubuntu", "nonlibrary/ubuntu"),
        ("127.0.0.1:8000/private/moonbase", "127.0.0.1:8000/private/moonbase"),
        ("example.com/privatebase", "example.com/privatebase"),
        ("docker.io/library/foo/bar", "library/foo/bar"),
        ("docker.io/store/foo/bar", "store/foo/bar"),
        ("FOO/bar", "FOO/bar"),
        ("docker.io/library/busybox:latest", "busybox:latest"),
    ];
    for (full, familiar) in cases {
        assert_eq!(parse(full).unwrap().familiar(), familiar);
        assert_eq!(parse(familiar).unwrap().to_string(), full);
    }
}

proptest! {
    #[test]
    fn display_of_any_reference_parses_to_itself(
        text in "([a-zA-Z0-9.-]{1,12}(:[0-9]{1,5})?/)?[a-z0-9/._-]{1,16}(:[A-Za-z0-9._-]{1,8})?"
    ) {
        if let Ok(reference) = parse(&text) {
            prop_assert_eq!(parse(&reference.to_string()), Ok(reference));
        }
    }
}
