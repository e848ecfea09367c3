//! Builds tar archives with exactly the entries a test wants.

use tar::{Builder, EntryType, Header};

/// A tar archive in the making. Entries belong to root and are of 2001.
pub struct Tree {
    archive: Builder<Vec<u8>>,
}

impl Tree {
    pub fn new() -> Self {
        Self { archive: Builder::new(Vec::new()) }
    }

    pub fn file(self, path: &str, mode: u32, content: &str) -> Self {
        self.owned_file(path, mode, (0, 0), content)
    }

    pub fn owned_file(
        mut self,
        path: &str,
        mode: u32,
        (user, group): (u64, u64),
        content: &str,
    ) -> Self {
        let mut header = header(EntryType::Regular, mode);
        header.set_uid(user);
        header.set_gid(group);
        header.set_size(content.len().try_into().unwrap());
        self.archive.append_data(&mut header, path, content.as_bytes()).unwrap();
        self
    }

    pub fn folder(mut self, path: &str, mode: u32) -> Self {
        let mut header = header(EntryType::Directory, mode);
        self.archive.append_data(&mut header, path, std::io::empty()).unwrap();
        self
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, 0o777, path, target)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, 0o644, path, target)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.archive.into_inner().unwrap()
    }

    fn link(mut self, kind: EntryType, mode: u32, path: &str, target: &str) -> Self {
        let mut header = header(kind, mode);
        self.archive.append_link(&mut header, path, target).unwrap();
        self
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}
