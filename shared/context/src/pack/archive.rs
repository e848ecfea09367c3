//! Writing the tar format: POSIX ustar, with PAX records only for what ustar
//! cannot say (long names, names beyond ASCII, big numbers, attributes).
//!
//! Invariant: the bytes depend on the entries alone, never on the clock, the
//! host or the process.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::digest::{ContextDigest, Tally};

const BLOCK: usize = 512;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Largest number of seven, and of eleven, octal digits.
const MAX_ID: u64 = 0o7_777_777;
const MAX_SIZE: u64 = 0o77_777_777_777;

/// What an entry is.
pub(super) enum Kind<'a> {
    File {
        size: u64,
    },
    Folder,
    /// Where it points, as written.
    Symlink(&'a [u8]),
    /// An earlier entry of this archive.
    HardLink(&'a [u8]),
    Pipe,
    Device {
        device: u64,
        is_block: bool,
    },
}

/// What is said about an entry.
pub(super) struct Header<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind<'a>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) modified: i64,
    /// Extended attributes, ordered by name.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(super) struct Archive<W> {
    out: W,
    tally: Tally,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        let tally = Tally::default();
        Self { out, tally }
    }

    /// Announces an entry; a file's content must follow, then [`Archive::pad`].
    pub(super) fn entry(&mut self, header: &Header<'_>) -> io::Result<()> {
        let mut records = Records::default();
        let block = header.block(&mut records)?;
        if !records.0.is_empty() {
            let size = records.0.len() as u64;
            let mut extra = tar::Header::new_ustar();
            extra.set_path("PaxHeaders/entry")?;
            extra.set_entry_type(tar::EntryType::XHeader);
            extra.set_mode(0o644);
            extra.set_uid(0);
            extra.set_gid(0);
            extra.set_mtime(0);
            extra.set_size(size);
            extra.set_cksum();
            self.content(extra.as_bytes())?;
            self.content(&records.0)?;
            self.pad(size)?;
        }
        self.content(block.as_bytes())
    }

    pub(super) fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tally.update(bytes);
        self.out.write_all(bytes)
    }

    /// Fills up the last block of a content of `size` bytes.
    pub(super) fn pad(&mut self, size: u64) -> io::Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if over > 0 {
            self.content(&ZEROS[over..])?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<ContextDigest> {
        self.content(&ZEROS)?;
        self.content(&ZEROS)?;
        self.out.flush()?;
        Ok(self.tally.finish())
    }
}

impl Header<'_> {
    /// The ustar block; what does not fit goes to `records`.
    fn block(&self, records: &mut Records) -> io::Result<tar::Header> {
        let mut block = tar::Header::new_ustar();
        self.write_names(&mut block, records)?;
        block.set_entry_type(match self.kind {
            Kind::File { .. } => tar::EntryType::Regular,
            Kind::Folder => tar::EntryType::Directory,
            Kind::Symlink(_) => tar::EntryType::Symlink,
            Kind::HardLink(_) => tar::EntryType::Link,
            Kind::Pipe => tar::EntryType::Fifo,
            Kind::Device { is_block: true, .. } => tar::EntryType::Block,
            Kind::Device { .. } => tar::EntryType::Char,
        });
        if let Kind::Device { device, .. } = self.kind {
            block.set_device_major(rustix::fs::major(device))?;
            block.set_device_minor(rustix::fs::minor(device))?;
        }
        let size = match self.kind {
            Kind::File { size } => size,
            _ => 0,
        };
        block.set_size(records.number("size", size, MAX_SIZE));
        block.set_mode(self.mode);
        block.set_uid(records.number("uid", self.uid.into(), MAX_ID));
        block.set_gid(records.number("gid", self.gid.into(), MAX_ID));
        let modified = u64::try_from(self.modified).unwrap_or(u64::MAX);
        if modified > MAX_SIZE {
            records.add(b"mtime", self.modified.to_string().as_bytes());
        }
        block.set_mtime(if modified > MAX_SIZE { 0 } else { modified });
        for (name, value) in &self.attributes {
            records.add(&[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        block.set_cksum();
        Ok(block)
    }

    fn write_names(&self, block: &mut tar::Header, records: &mut Records) -> io::Result<()> {
        let mut path = self.path.to_vec();
        if matches!(self.kind, Kind::Folder) {
            path.push(b'/');
        }
        let fits = path.is_ascii() && block.set_path(as_path(&path)).is_ok();
        if !fits {
            records.add(b"path", &path);
            block.set_path("PaxHeaders/name")?;
        }
        if let Kind::Symlink(target) | Kind::HardLink(target) = self.kind {
            let room = block.as_old().linkname.len();
            if target.is_ascii() && target.len() <= room {
                block.as_old_mut().linkname[..target.len()].copy_from_slice(target);
            } else {
                records.add(b"linkpath", target);
            }
        }
        Ok(())
    }
}

/// PAX records: `length key=value\n`, where the length counts itself.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend_from_slice(length.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    /// What to put in the block: the number, or 0 and a record if it is too big.
    fn number(&mut self, key: &str, value: u64, max: u64) -> u64 {
        if value <= max {
            return value;
        }
        self.add(key.as_bytes(), value.to_string().as_bytes());
        0
    }
}

/// The attributes that mean the same in an image: file capabilities and what
/// users set. Labels and access lists belong to the host. Where attributes are
/// not supported there are none.
pub(super) fn attributes(path: &Path, of: &Metadata) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !of.is_file() && !of.is_dir() {
        return Vec::new();
    }
    let mut names = [0; 16 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let mut found: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| *name == b"security.capability" || name.starts_with(b"user."))
        .filter_map(|name| {
            let mut value = vec![0; 64 * 1024];
            let length = rustix::fs::lgetxattr(path, as_path(name), &mut value).ok()?;
            value.truncate(length);
            Some((name.to_vec(), value))
        })
        .collect();
    found.sort_unstable();
    found
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
