//! A certificate authority of the data folder, for what clients reach by TLS.
//!
//! Daytona's SDK for Python uploads over TLS only and trusts the machine's own
//! list of authorities only, so the authority can be put on that list. It is
//! made once; the certificate of the door for uploads is new at every start.
//!
//! Invariant: what the authority can vouch for is this machine's loopback alone,
//! whoever holds its key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};

use super::layout::{write, write_secret};

/// Where Debian looks for authorities of one's own.
const LIST: &str = "/usr/local/share/ca-certificates";

/// The authority and what it signed.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its certificate, in PEM.
    pub certificate: PathBuf,
    /// The certificate of servers on loopback, in PEM.
    pub server: PathBuf,
    /// Its key, in PEM.
    pub server_key: PathBuf,
    /// What tells it from authorities of other data folders.
    id: String,
}

impl Authority {
    /// Finds the authority in the data folder or makes it, and signs a new
    /// certificate.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn prepare(data: &Path) -> anyhow::Result<Self> {
        let folder = data.join("authority");
        fs::create_dir_all(&folder).context("cannot make the folder of the authority")?;
        let path = |name: &str| folder.join(name);
        let key = key(&path("authority.key"))?;
        let id: String = key.public_key_raw()[1..5].iter().map(|b| format!("{b:02x}")).collect();
        let certificate = path("authority.pem");
        if !certificate.exists() {
            let signed = params(&id).self_signed(&key).context("cannot make the authority")?;
            write(&certificate, &signed.pem())?;
        }
        let authority =
            Self { certificate, server: path("server.pem"), server_key: path("server.key"), id };
        authority.sign(&Issuer::new(params(&authority.id), key))?;
        Ok(authority)
    }

    fn sign(&self, issuer: &Issuer<'_, KeyPair>) -> anyhow::Result<()> {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).context("cannot name loopback")?;
        params.distinguished_name.push(DnType::CommonName, "slipway dev");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().context("cannot make a key")?;
        let signed = params.signed_by(&key, issuer).context("cannot sign a certificate")?;
        write(&self.server, &signed.pem())?;
        write_secret(&self.server_key, &key.serialize_pem())
    }

    /// Where the machine's list has it.
    fn listed(&self) -> PathBuf {
        Path::new(LIST).join(format!("slipway-dev-{}.crt", self.id))
    }

    /// Puts the authority on the machine's list.
    ///
    /// # Errors
    /// With the commands to give as root, if this user may not.
    pub fn trust(&self) -> anyhow::Result<()> {
        let (from, to) = (self.certificate.display(), self.listed());
        let by_hand = format!(
            "as root: cp {from} {} && update-ca-certificates (of the package ca-certificates)",
            to.display()
        );
        if let Err(error) = fs::copy(&self.certificate, &to) {
            bail!("the machine's list of authorities cannot be changed ({error}). {by_hand}");
        }
        let updated = Command::new("update-ca-certificates").output();
        let updated = updated.with_context(|| format!("cannot update the list. {by_hand}"))?;
        if !updated.status.success() {
            let text = String::from_utf8_lossy(&updated.stderr).into_owned();
            bail!("update-ca-certificates failed: {}", text.trim());
        }
        Ok(())
    }

    /// What to tell users about it.
    #[must_use]
    pub fn told(&self) -> String {
        let listed = self.listed();
        if listed.exists() {
            return format!(
                "trusted by this machine for loopback alone; to undo it: \
                 rm {} && update-ca-certificates --fresh",
                listed.display()
            );
        }
        "not trusted by this machine, as Daytona's SDK for Python needs it: start with --trust \
         (`make up TRUST=1`)"
            .to_owned()
    }
}

/// The same at every start, so that what is signed fits the certificate.
fn params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = format!("slipway dev authority {id}");
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2056, 1, 1);
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
        ],
        excluded_subtrees: vec![],
    });
    params
}

fn key(file: &Path) -> anyhow::Result<KeyPair> {
    if let Ok(pem) = fs::read_to_string(file) {
        let read = KeyPair::from_pem(&pem);
        return read.with_context(|| format!("`{}` is no key", file.display()));
    }
    let key = KeyPair::generate().context("cannot make a key")?;
    write_secret(file, &key.serialize_pem())?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_second_start_keeps_the_authority_and_renews_the_certificate() {
        let data = tempfile::tempdir().unwrap();
        let first = Authority::prepare(data.path()).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let before = (read(&first.certificate), read(&first.server));
        let again = Authority::prepare(data.path()).unwrap();
        assert_eq!(again.id, first.id);
        assert_eq!(read(&again.certificate), before.0);
        assert_ne!(read(&again.server), before.1);
        slipway_registry::tls::Identity::load(&again.server, &again.server_key).unwrap();
    }
}
