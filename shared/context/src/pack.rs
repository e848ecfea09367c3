//! Packing a folder into the tar that a build gets as its context.
//!
//! Owns: which entries go in, in which order, and what is said about each.
//! Refuses: storing the archive anywhere; it only ever flows through.
//!
//! The archive is what `docker build` would send:
//! - entries in the byte order of their names, folders before what they hold,
//!   relative and without `./`; no entry for the root itself;
//! - an ignored folder is not opened unless a `!` pattern may bring back
//!   something below it, and is listed only if that happens;
//! - modes with their setuid, setgid and sticky bits, times in whole seconds,
//!   symbolic links as they are, repeated names of one file as hard links, and
//!   of the extended attributes `security.capability` and `user.*`;
//! - owner and group 0 unless [`Owners::Kept`] is asked for, because Docker's
//!   clients do the same and `COPY` keeps what the context says;
//! - pipes and device nodes as such, sockets left out.
//!
//! Invariant: memory use depends on the length of folder listings and on the
//! number of hard-linked files, never on the size of the content.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use self::archive::{Archive, Header, Kind};
use self::walk::{Found, Walk};
use crate::digest::ContextDigest;
use crate::ignore::IgnoreRules;

mod archive;
mod stream;
#[cfg(test)]
mod tests;
mod walk;

/// Why a folder could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context is not there or cannot be looked at.
    #[error("opening the build context `{}`", path.display())]
    Root {
        /// The folder as given.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// An entry that belongs to the context cannot be read.
    #[error("reading `{}` in the build context", path.display())]
    Read {
        /// Relative to the context.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A file got shorter or longer, or became something else, meanwhile.
    #[error("`{}` changed while it was being packed", path.display())]
    FileChanged {
        /// Relative to the context.
        path: PathBuf,
    },
    /// The second pass did not give the archive that the first had announced.
    #[error("the build context changed while it was being sent")]
    ContextChanged,
    /// The archive could not be handed on.
    #[error("writing the context archive")]
    Write(#[source] io::Error),
    /// The thread that packs ended without a result.
    #[error("packing the build context was abandoned")]
    Abandoned,
}

impl Error {
    /// Whether the folder was modified while it was packed, so that packing it
    /// once more may well succeed.
    #[must_use]
    pub fn is_change(&self) -> bool {
        matches!(self, Self::FileChanged { .. } | Self::ContextChanged)
    }
}

/// Whose files the archive says they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// User and group 0, as Docker's clients send every context.
    #[default]
    Root,
    /// As in the file system.
    Kept,
}

/// How far a pass has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Entries written, folders and links included.
    pub entries: u64,
    /// Bytes of file content written.
    pub bytes: u64,
}

/// What a completed pass has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Identity of the archive.
    pub digest: ContextDigest,
    /// What went in.
    pub total: Progress,
    /// Sockets that were left out, relative to the context.
    pub sockets: Vec<PathBuf>,
}

/// Packs one folder. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Packer {
    root: Arc<Path>,
    rules: Arc<IgnoreRules>,
    owners: Owners,
}

impl Packer {
    /// A packer for the folder `root`, which may be a symbolic link to one.
    #[must_use]
    pub fn new(root: &Path, rules: IgnoreRules) -> Self {
        Self { root: root.into(), rules: Arc::new(rules), owners: Owners::default() }
    }

    /// Says whose files the archive claims they are.
    #[must_use]
    pub fn owners(mut self, owners: Owners) -> Self {
        self.owners = owners;
        self
    }

    /// Writes the archive, reporting progress for every entry and at least once
    /// for every 256 KiB of content. Blocks; see [`Packer::stream`].
    ///
    /// # Errors
    /// Every variant but [`Error::ContextChanged`] and [`Error::Abandoned`].
    pub fn pack(
        &self,
        out: impl Write,
        mut observe: impl FnMut(Progress),
    ) -> Result<Packed, Error> {
        let mut pass = Pass {
            root: &self.root,
            owners: self.owners,
            archive: Archive::new(out),
            links: HashMap::new(),
            total: Progress::default(),
            sockets: Vec::new(),
            observe: &mut observe,
        };
        let mut walk = Walk::new(&self.root, &self.rules)?;
        while let Some(found) = walk.next()? {
            pass.add(&found)?;
        }
        pass.finish()
    }

    /// Packs without keeping the result, to learn the archive's identity.
    ///
    /// # Errors
    /// As for [`Packer::pack`].
    pub fn digest(&self, observe: impl FnMut(Progress)) -> Result<Packed, Error> {
        self.pack(io::sink(), observe)
    }
}

/// One run over the folder.
struct Pass<'a, W: Write> {
    root: &'a Path,
    owners: Owners,
    archive: Archive<W>,
    /// Device and inode of files with several names, and the first of them.
    links: HashMap<(u64, u64), Vec<u8>>,
    total: Progress,
    sockets: Vec<PathBuf>,
    observe: &'a mut dyn FnMut(Progress),
}

impl<W: Write> Pass<'_, W> {
    fn add(&mut self, found: &Found) -> Result<(), Error> {
        let path = self.root.join(found.as_path());
        let kind = found.metadata.file_type();
        let done = if kind.is_file() {
            self.add_file(found, &path)?
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(|source| found.unreadable(source))?;
            self.add_entry(found, Kind::Symlink(target.as_os_str().as_bytes()))?
        } else if kind.is_dir() {
            self.add_entry(found, Kind::Folder)?
        } else if kind.is_fifo() {
            self.add_entry(found, Kind::Pipe)?
        } else if kind.is_socket() {
            self.sockets.push(found.as_path().to_owned());
            false
        } else {
            let device = found.metadata.rdev();
            let is_block = kind.is_block_device();
            self.add_entry(found, Kind::Device { device, is_block })?
        };
        if done {
            self.total.entries += 1;
            (self.observe)(self.total);
        }
        Ok(())
    }

    fn add_entry(&mut self, found: &Found, kind: Kind<'_>) -> Result<bool, Error> {
        let header = self.header(found, &found.metadata, kind);
        self.archive.entry(&header).map_err(Error::Write)?;
        Ok(true)
    }

    /// False if the file has vanished since it was listed.
    fn add_file(&mut self, found: &Found, path: &Path) -> Result<bool, Error> {
        let id = (found.metadata.dev(), found.metadata.ino());
        if let Some(first) = self.links.get(&id).cloned() {
            return self.add_entry(found, Kind::HardLink(&first));
        }
        let Some((mut file, metadata)) = open(found, path)? else {
            return Ok(false);
        };
        if metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            self.links.insert(id, found.path.clone());
        }
        let size = metadata.len();
        let header = self.header(found, &metadata, Kind::File { size });
        self.archive.entry(&header).map_err(Error::Write)?;
        self.copy(found, &mut file, size)?;
        self.archive.pad(size).map_err(Error::Write)?;
        Ok(true)
    }

    fn copy(&mut self, found: &Found, file: &mut File, size: u64) -> Result<(), Error> {
        let mut left = size;
        let mut buffer = vec![0; usize::try_from(size).map_or(CHUNK, |size| size.clamp(1, CHUNK))];
        loop {
            let read = match file.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(found.unreadable(source)),
            };
            // Longer than announced, or at its end too early.
            if read as u64 > left || (read == 0 && left > 0) {
                let path = found.as_path().to_owned();
                return Err(Error::FileChanged { path });
            }
            if read == 0 {
                return Ok(());
            }
            self.archive.content(&buffer[..read]).map_err(Error::Write)?;
            left -= read as u64;
            self.total.bytes += read as u64;
            (self.observe)(self.total);
        }
    }

    fn header<'h>(&self, found: &'h Found, of: &Metadata, kind: Kind<'h>) -> Header<'h> {
        let (uid, gid) = match self.owners {
            Owners::Root => (0, 0),
            Owners::Kept => (of.uid(), of.gid()),
        };
        Header {
            path: &found.path,
            kind,
            mode: of.mode() & 0o7777,
            uid,
            gid,
            modified: of.mtime(),
            attributes: archive::attributes(&self.root.join(found.as_path()), of),
        }
    }

    fn finish(self) -> Result<Packed, Error> {
        let digest = self.archive.finish().map_err(Error::Write)?;
        Ok(Packed { digest, total: self.total, sockets: self.sockets })
    }
}

/// How much of a file is held in memory.
const CHUNK: usize = 256 * 1024;

/// Opens what was listed as a regular file, without following a link and
/// without waiting if something else has taken its place. `None`: it is gone.
fn open(found: &Found, path: &Path) -> Result<Option<(File, Metadata)>, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let opened = File::options().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(found.unreadable(source)),
    };
    let metadata = file.metadata().map_err(|source| found.unreadable(source))?;
    if !metadata.is_file() {
        let path = found.as_path().to_owned();
        return Err(Error::FileChanged { path });
    }
    Ok(Some((file, metadata)))
}
