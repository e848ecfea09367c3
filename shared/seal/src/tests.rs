#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

fn to(identities: &[&Identity]) -> BTreeSet<Recipient> {
    identities.iter().map(|identity| identity.recipient()).collect()
}

#[test]
fn each_recipient_opens_and_nobody_else() {
    let [a, b, other] = std::array::from_fn(|_| Identity::generate());
    let sealed = seal(&"s3cret".into(), "for x", &to(&[&a, &b])).unwrap();
    for own in [&a, &b] {
        let opened = open(&sealed, "for x", &[other.clone(), own.clone()]).unwrap();
        assert_eq!(opened.expose_secret(), "s3cret");
    }
    assert!(matches!(open(&sealed, "for x", &[other]), Err(Error::NoIdentity)));
    assert!(matches!(open(&sealed, "for y", &[a]), Err(Error::OtherPurpose)));
    assert!(matches!(seal(&"s".into(), "x", &BTreeSet::new()), Err(Error::NoRecipient)));
    assert!(matches!(seal(&"s".into(), "x\ny", &to(&[&b])), Err(Error::Purpose)));
}

#[test]
fn a_changed_ciphertext_is_refused() {
    let own = Identity::generate();
    let mut sealed = seal(&"s3cret".into(), "x", &to(&[&own])).unwrap();
    let mut bytes = BASE64_STANDARD.decode(&sealed.ciphertext).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    sealed.ciphertext = BASE64_STANDARD.encode(bytes);
    let error = open(&sealed, "x", &[own]).unwrap_err();
    assert!(matches!(error, Error::Damaged) && !format!("{error:?}").contains("s3cret"));
}

#[test]
fn a_key_ring_is_made_once_private_and_turned_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys").join("us.identity");
    let ring = KeyRing::open(&path).unwrap();
    let first = ring.recipient().unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let sealed = seal(&"s".into(), "x", &[first.clone()].into()).unwrap();

    let shared = KeyRing::open(&path).unwrap();
    let second = shared.add().unwrap();
    assert_eq!(ring.recipient().unwrap(), second, "another worker sees the new one");
    open(&sealed, "x", &ring.identities().unwrap()).unwrap();

    ring.forget(&[first, second.clone()].into()).unwrap();
    assert_eq!(shared.recipient().unwrap(), second, "the newest is never forgotten");
    let error = open(&sealed, "x", &ring.identities().unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoIdentity));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = format!("{:?}", ring.identities().unwrap());
    assert!(!shown.contains("SECRET-KEY"), "{shown}");
}

#[test]
fn a_file_of_something_else_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("identity");
    for text in ["", "# nothing\n", "hunter2\n"] {
        std::fs::write(&path, text).unwrap();
        let error = KeyRing::open(&path).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(matches!(error, Error::Line { .. }) && !shown.contains("hunter2"), "{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_secret_comes_back(secret in any::<String>(), purpose in "[^\n]*") {
        let own = Identity::generate();
        let sealed = seal(&secret.as_str().into(), &purpose, &to(&[&own])).unwrap();
        let json = serde_json::to_string(&sealed).unwrap();
        let read: Sealed = serde_json::from_str(&json).unwrap();
        let opened = open(&read, &purpose, &[own]).unwrap();
        prop_assert_eq!(opened.expose_secret(), secret.as_str());
    }
}
