//! The walk over a context folder, filtered by the ignore rules.
//!
//! Invariant: what is yielded is in the byte order of the names, every folder
//! before what it holds, and a folder that is itself ignored is yielded only
//! right before the first thing below it that is not.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::vec;

use super::Error;
use crate::ignore::{IgnoreRules, Inherited};

/// An entry that belongs to the context.
pub(super) struct Found {
    /// Relative to the context, separated by `/`.
    pub(super) path: Vec<u8>,
    /// Of the entry itself, links not followed.
    pub(super) metadata: Metadata,
}

impl Found {
    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.path))
    }

    pub(super) fn unreadable(&self, source: io::Error) -> Error {
        let path = self.as_path().to_owned();
        Error::Read { path, source }
    }
}

/// A folder that the walk is in.
struct Open {
    path: Vec<u8>,
    inherited: Inherited,
    names: vec::IntoIter<(Vec<u8>, bool)>,
    /// Ignored and so far not yielded.
    is_held_back: bool,
}

pub(super) struct Walk<'a> {
    root: &'a Path,
    rules: &'a IgnoreRules,
    open: Vec<Open>,
    ready: VecDeque<Found>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Path, rules: &'a IgnoreRules) -> Result<Self, Error> {
        let names = list(root).map_err(|source| Error::Root { path: root.to_owned(), source })?;
        let top =
            Open { path: Vec::new(), inherited: Inherited::default(), names, is_held_back: false };
        Ok(Self { root, rules, open: vec![top], ready: VecDeque::new() })
    }

    /// The next entry, or `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Found>, Error> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            let Some(folder) = self.open.last_mut() else {
                return Ok(None);
            };
            match folder.names.next() {
                Some((name, is_folder)) => self.visit(&name, is_folder)?,
                None => {
                    self.open.pop();
                }
            }
        }
    }

    fn visit(&mut self, name: &[u8], is_folder: bool) -> Result<(), Error> {
        let Some(folder) = self.open.last() else {
            return Ok(());
        };
        let path = if folder.path.is_empty() {
            name.to_vec()
        } else {
            [folder.path.as_slice(), name].join(&b'/')
        };
        let judgement = self.rules.judge(&path, &folder.inherited);
        if judgement.is_ignored {
            if is_folder && self.rules.may_bring_back_below(&path) {
                self.enter(path, judgement.inherited, true)?;
            }
            return Ok(());
        }
        let Some(metadata) = self.look_at(&path)? else {
            return Ok(());
        };
        self.release_parents()?;
        let is_folder = metadata.is_dir();
        self.ready.push_back(Found { path: path.clone(), metadata });
        if is_folder {
            self.enter(path, judgement.inherited, false)?;
        }
        Ok(())
    }

    /// Something below them is kept, so the folders above it are, too.
    fn release_parents(&mut self) -> Result<(), Error> {
        for level in 0..self.open.len() {
            if !self.open[level].is_held_back {
                continue;
            }
            self.open[level].is_held_back = false;
            let path = self.open[level].path.clone();
            if let Some(metadata) = self.look_at(&path)? {
                self.ready.push_back(Found { path, metadata });
            }
        }
        Ok(())
    }

    /// `None` if it has vanished since its folder was listed.
    fn look_at(&self, path: &[u8]) -> Result<Option<Metadata>, Error> {
        match fs::symlink_metadata(self.absolute(path)) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(unreadable(path, source)),
        }
    }

    fn enter(&mut self, path: Vec<u8>, inherited: Inherited, ignored: bool) -> Result<(), Error> {
        let names = match list(&self.absolute(&path)) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Docker does not mind a closed folder that is ignored anyway.
            Err(error) if ignored && error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(());
            }
            Err(source) => return Err(unreadable(&path, source)),
        };
        self.open.push(Open { path, inherited, names, is_held_back: ignored });
        Ok(())
    }

    fn absolute(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

fn unreadable(path: &[u8], source: io::Error) -> Error {
    let path = PathBuf::from(OsStr::from_bytes(path));
    Error::Read { path, source }
}

/// Names in a folder in byte order, each with whether it is a folder itself.
fn list(folder: &Path) -> io::Result<vec::IntoIter<(Vec<u8>, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.push((entry.file_name().into_vec(), is_folder));
    }
    names.sort_unstable();
    Ok(names.into_iter())
}
