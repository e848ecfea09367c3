//! A tar reader that is fed instead of reading: it keeps its place between
//! pieces of any length, and looks at headers only.
//!
//! The lengths of entries follow the rules of Go's `archive/tar`, because that
//! is what unpacks the archive in BuildKit: links, folders, pipes and devices
//! have no content whatever their header says, and a PAX `size` wins.

use super::records::{Overrides, check_path, is_root_dockerignore};
use super::{Error, MAX_KEPT};

const BLOCK: usize = 512;

/// Place in the archive.
#[derive(Default)]
enum State {
    /// In or before a header block.
    #[default]
    Header,
    /// In the extra header blocks of an old GNU sparse file.
    SparseMap { size: u64 },
    /// In an entry's content, `left` bytes before its end.
    Content { left: u64, padding: u64, keep: Option<Keep> },
    /// Behind it.
    Padding { left: u64 },
    /// A block of zeros was seen; what follows means nothing.
    End,
}

/// A content that is looked at when it is complete.
enum Keep {
    Pax(Vec<u8>),
    LongName(Vec<u8>),
    LongLink(Vec<u8>),
    Dockerignore(Vec<u8>),
}

impl Keep {
    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Pax(bytes)
            | Self::LongName(bytes)
            | Self::LongLink(bytes)
            | Self::Dockerignore(bytes) => bytes,
        }
    }

    const fn what(&self) -> &'static str {
        match self {
            Self::Pax(_) => "pax header",
            Self::LongName(_) | Self::LongLink(_) => "long name",
            Self::Dockerignore(_) => ".dockerignore",
        }
    }
}

/// What the whole archive held.
pub(super) struct Summary {
    pub(super) entries: u64,
    pub(super) dockerignore: Option<Vec<u8>>,
    /// Zero bytes that would have to follow for a proper end.
    pub(super) missing: usize,
}

#[derive(Default)]
pub(super) struct Entries {
    state: State,
    block: Vec<u8>,
    offset: u64,
    overrides: Overrides,
    current: String,
    entries: u64,
    dockerignore: Option<Vec<u8>>,
}

impl Entries {
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let taken = self.step(bytes)?;
            self.offset += taken as u64;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Takes some of the bytes, at least one, and says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        match &mut self.state {
            State::End => Ok(bytes.len()),
            State::Padding { left } => {
                let taken = at_most(bytes, *left);
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(taken)
            }
            State::Content { left, keep, .. } => {
                let taken = at_most(bytes, *left);
                *left -= taken as u64;
                if let Some(keep) = keep {
                    keep.bytes().extend_from_slice(&bytes[..taken]);
                }
                if *left == 0 {
                    self.content_is_complete()?;
                }
                Ok(taken)
            }
            State::Header | State::SparseMap { .. } => {
                let taken = bytes.len().min(BLOCK - self.block.len());
                self.block.extend_from_slice(&bytes[..taken]);
                if self.block.len() == BLOCK {
                    let block = std::mem::take(&mut self.block);
                    self.block_is_complete(&block)?;
                }
                Ok(taken)
            }
        }
    }

    fn block_is_complete(&mut self, block: &[u8]) -> Result<(), Error> {
        if let State::SparseMap { size } = self.state {
            if block[504] == 0 {
                self.enter_content(size, None);
            }
            return Ok(());
        }
        if block.iter().all(|byte| *byte == 0) {
            self.state = State::End;
            return Ok(());
        }
        if !checksum_holds(block) {
            return Err(self.malformed("a header's checksum is wrong"));
        }
        self.header(tar::Header::from_byte_slice(block), block)
    }

    fn header(&mut self, header: &tar::Header, block: &[u8]) -> Result<(), Error> {
        let kind = header.entry_type();
        let written = header.entry_size();
        let written = written.map_err(|_| self.malformed("a header's size is no number"))?;
        let keep = match kind {
            tar::EntryType::XHeader => Some(Keep::Pax(Vec::new())),
            tar::EntryType::GNULongName => Some(Keep::LongName(Vec::new())),
            tar::EntryType::GNULongLink => Some(Keep::LongLink(Vec::new())),
            _ => None,
        };
        if keep.is_some() || kind == tar::EntryType::XGlobalHeader {
            return self.begin(written, keep);
        }
        let overrides = std::mem::take(&mut self.overrides);
        let path = overrides.path.unwrap_or_else(|| header.path_bytes().into_owned());
        check_path(&path)?;
        if kind == tar::EntryType::Link {
            let target = header.link_name_bytes().map(|target| target.into_owned());
            check_path(&overrides.link.or(target).unwrap_or_default())?;
        }
        self.entries += 1;
        self.current = String::from_utf8_lossy(&path).into_owned();
        let size = overrides.size.unwrap_or(written);
        let is_regular = matches!(
            kind.as_byte(),
            b'0' | b'\0' | b'7' // contiguous, which Go treats as regular
        );
        if is_root_dockerignore(&path) {
            self.dockerignore = None;
            let keep = is_regular.then(|| Keep::Dockerignore(Vec::new()));
            return self.begin(if has_content(kind) { size } else { 0 }, keep);
        }
        if kind == tar::EntryType::GNUSparse && block[482] != 0 {
            self.state = State::SparseMap { size };
            return Ok(());
        }
        self.begin(if has_content(kind) { size } else { 0 }, None)
    }

    fn begin(&mut self, size: u64, keep: Option<Keep>) -> Result<(), Error> {
        if let Some(keep) = keep.as_ref().filter(|_| size > MAX_KEPT) {
            return Err(Error::TooLarge { what: keep.what() });
        }
        self.enter_content(size, keep);
        if size == 0 {
            self.content_is_complete()?;
        }
        Ok(())
    }

    fn enter_content(&mut self, size: u64, keep: Option<Keep>) {
        let padding = size.wrapping_neg() % BLOCK as u64;
        self.state = State::Content { left: size, padding, keep };
    }

    fn content_is_complete(&mut self) -> Result<(), Error> {
        let state = std::mem::take(&mut self.state);
        let State::Content { padding, keep, .. } = state else {
            return Ok(());
        };
        if padding > 0 {
            self.state = State::Padding { left: padding };
        }
        match keep {
            Some(Keep::Pax(records)) => {
                let read = self.overrides.read(&records);
                read.map_err(|reason| self.malformed(reason))?;
            }
            Some(Keep::LongName(name)) => self.overrides.path = Some(until_nul(name)),
            Some(Keep::LongLink(name)) => self.overrides.link = Some(until_nul(name)),
            Some(Keep::Dockerignore(content)) => self.dockerignore = Some(content),
            None => {}
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Summary, Error> {
        let is_cut_header = self.block.iter().any(|byte| *byte != 0);
        if is_cut_header || self.overrides.any() || matches!(self.state, State::SparseMap { .. }) {
            return Err(Error::Truncated { entry: None });
        }
        let padding = match self.state {
            State::Content { .. } => {
                let entry = Some(self.current);
                return Err(Error::Truncated { entry });
            }
            State::End => None,
            State::Padding { left } => Some(usize::try_from(left).unwrap_or(0)),
            State::Header | State::SparseMap { .. } => Some(0),
        };
        Ok(Summary {
            entries: self.entries,
            dockerignore: self.dockerignore,
            missing: padding.map_or(0, |padding| padding + 2 * BLOCK - self.block.len()),
        })
    }

    fn malformed(&self, reason: &'static str) -> Error {
        Error::Malformed { offset: self.offset, reason }
    }
}

fn at_most(bytes: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()))
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|byte| *byte == 0);
    name.truncate(end.unwrap_or(name.len()));
    name
}

fn has_content(kind: tar::EntryType) -> bool {
    !matches!(kind.as_byte(), b'1'..=b'6')
}

/// The sum of all bytes with the checksum field taken as spaces; some old
/// writers summed signed bytes.
fn checksum_holds(block: &[u8]) -> bool {
    let field = &block[148..156];
    let digits: Vec<u8> = field.iter().copied().filter(u8::is_ascii_digit).collect();
    let digits = std::str::from_utf8(&digits).unwrap_or_default();
    let Ok(written) = i64::from_str_radix(digits, 8) else {
        return false;
    };
    let outside = || block[..148].iter().chain(&block[156..]);
    let spaces = 8 * i64::from(b' ');
    let unsigned: i64 = outside().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = outside().map(|byte| i64::from(byte.cast_signed())).sum();
    written == unsigned + spaces || written == signed + spaces
}
