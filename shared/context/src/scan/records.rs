//! What extended headers say about the entry that follows, and what names an
//! entry may have.

use super::Error;

/// Values that take the place of those in the next header.
#[derive(Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
}

impl Overrides {
    pub(super) fn any(&self) -> bool {
        self.path.is_some() || self.link.is_some() || self.size.is_some()
    }

    /// Reads PAX records, `length key=value\n` each. An empty value takes an
    /// earlier record back.
    pub(super) fn read(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        while !records.is_empty() {
            let (record, rest) = split_record(records).ok_or("a pax record is damaged")?;
            records = rest;
            let at = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(at.ok_or("a pax record has no `=`")?);
            let value = &value[1..];
            let text = (!value.is_empty()).then(|| value.to_vec());
            match key {
                // The second: what GNU tar calls a sparse file's true name.
                b"path" | b"GNU.sparse.name" => self.path = text,
                b"linkpath" => self.link = text,
                b"size" => {
                    let digits = std::str::from_utf8(value).ok();
                    let size = digits.and_then(|digits| digits.parse().ok());
                    self.size = Some(size.ok_or("a pax size is no number")?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The first record without its length and line end, and what follows it.
fn split_record(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = records.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &records[length..]))
}

/// Refuses paths that lead out of the folder they are unpacked in.
pub(super) fn check_path(path: &[u8]) -> Result<(), Error> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    if path.starts_with(b"/") {
        return Err(Error::Absolute { path: shown() });
    }
    if path.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(Error::Escapes { path: shown() });
    }
    Ok(())
}

pub(super) fn is_root_dockerignore(path: &[u8]) -> bool {
    let mut parts =
        path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.next() == Some(b".dockerignore") && parts.next().is_none()
}
