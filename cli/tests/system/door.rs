//! The identity of a cluster's door for uploads, and how clients come to trust it.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The list of authorities that clients on Linux read.
pub const LIST: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Writes an authority and what it signed for loopback; returns the door's section of
/// a scheduler's configuration.
pub fn section(folder: &Path) -> String {
    let path = |name: &str| folder.join(name);
    if !path("door.key").exists() {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(path("authority.pem"), authority.pem()).unwrap();
        fs::write(path("door.pem"), certificate.pem()).unwrap();
        fs::write(path("door.key"), key.serialize_pem()).unwrap();
    }
    format!(
        "[uploads.door]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {:?}, key = {:?} }}\n",
        path("door.pem"),
        path("door.key"),
    )
}

/// The machine's list of authorities with the cluster's on it, as a file.
pub fn list(folder: &Path) -> PathBuf {
    let machine = fs::read_to_string(LIST).expect("Remedy: `apt-get install ca-certificates`");
    let ours = fs::read_to_string(folder.join("authority.pem")).unwrap();
    let list = folder.join("authorities.pem");
    fs::write(&list, machine + "\n" + &ours).unwrap();
    list
}
