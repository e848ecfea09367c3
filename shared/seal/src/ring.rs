//! The file of a region's identities: one per line, the newest last.
//!
//! Several workers may share the file: it is read whenever it is used, and
//! replaced as a whole, so that nobody sees half of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret as _;
use slipway_domain::credential::Recipient;

use crate::{Error, Identity};

/// A file of identities.
#[derive(Debug, Clone)]
pub struct KeyRing {
    path: PathBuf,
}

impl KeyRing {
    /// The identities of the file at `path`; a first one is made if there is no
    /// file. Only its owner can read it.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds something else.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let ring = Self { path: path.to_owned() };
        match ring.create() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ring.failed(source)),
        }
        ring.identities()?;
        Ok(ring)
    }

    /// Makes the file with a first identity. The file appears whole, or not.
    fn create(&self) -> io::Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let file = self.written(&[Identity::generate()])?;
        file.persist_noclobber(&self.path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Every identity, the newest last; at least one.
    ///
    /// # Errors
    /// As for [`KeyRing::open`].
    pub fn identities(&self) -> Result<Vec<Identity>, Error> {
        let text = fs::read_to_string(&self.path).map_err(|source| self.failed(source))?;
        let lines = text.lines().enumerate();
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let identities: Vec<_> = lines
            .map(|(index, line)| {
                let wrong = || Error::Line { path: self.path.clone(), line: index + 1 };
                Identity::parse(line.trim()).ok_or_else(wrong)
            })
            .collect::<Result<_, _>>()?;
        if identities.is_empty() {
            return Err(Error::Line { path: self.path.clone(), line: 1 });
        }
        Ok(identities)
    }

    /// The public key of the newest identity: what new secrets are sealed to.
    ///
    /// # Errors
    /// As for [`KeyRing::open`].
    pub fn recipient(&self) -> Result<Recipient, Error> {
        let newest = self.identities()?.pop();
        newest.map(|identity| identity.recipient()).ok_or(Error::NoIdentity)
    }

    /// Adds a new identity and returns its public key. The others stay.
    ///
    /// # Errors
    /// As for [`KeyRing::open`].
    pub fn add(&self) -> Result<Recipient, Error> {
        let _locked = self.lock()?;
        let mut identities = self.identities()?;
        let new = Identity::generate();
        let recipient = new.recipient();
        identities.push(new);
        self.replace(&identities)?;
        Ok(recipient)
    }

    /// Forgets the identities of these public keys, but never the newest.
    ///
    /// # Errors
    /// As for [`KeyRing::open`].
    pub fn forget(&self, retired: &BTreeSet<Recipient>) -> Result<(), Error> {
        let _locked = self.lock()?;
        let identities = self.identities()?;
        let newest = identities.len() - 1;
        let kept = identities.into_iter().enumerate();
        let kept =
            kept.filter(|(index, own)| *index == newest || !retired.contains(&own.recipient()));
        let kept: Vec<_> = kept.map(|(_, identity)| identity).collect();
        self.replace(&kept)
    }

    /// Held by whoever changes the file. It lies beside it, since the file
    /// itself is replaced.
    fn lock(&self) -> Result<fs::File, Error> {
        let path = self.path.with_extension("lock");
        let file =
            fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let locked = file.and_then(|file| file.lock().map(|()| file));
        locked.map_err(|source| self.failed(source))
    }

    fn replace(&self, identities: &[Identity]) -> Result<(), Error> {
        let replaced = self.written(identities).and_then(|file| {
            file.persist(&self.path).map_err(|error| error.error)?;
            Ok(())
        });
        replaced.map_err(|source| self.failed(source))
    }

    fn written(&self, identities: &[Identity]) -> io::Result<tempfile::NamedTempFile> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(folder)?;
        for identity in identities {
            writeln!(file, "{}", identity.text().expose_secret())?;
        }
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { path: self.path.clone(), source }
    }
}
