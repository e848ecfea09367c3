//! A part of a name that is looked for, in whatever case.
//!
//! Owns the comparison, and a buffer for it, since it is made with every name that an
//! organization has.

use std::cell::RefCell;

use memchr::memmem::Finder;

/// What is looked for.
#[derive(Debug)]
pub struct Needle<'a> {
    /// In lowercase.
    text: &'a str,
    finder: Finder<'a>,
    buffer: RefCell<Vec<u8>>,
}

impl<'a> Needle<'a> {
    /// Looks for `text`, which is in lowercase.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, finder: Finder::new(text), buffer: RefCell::default() }
    }

    /// Whether everything contains it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a name contains it.
    #[must_use]
    pub fn is_in(&self, name: &str) -> bool {
        if !name.is_ascii() {
            return name.to_lowercase().contains(self.text);
        }
        let mut buffer = self.buffer.borrow_mut();
        buffer.clear();
        buffer.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        self.finder.find(&buffer).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_in_lowercase_whatever_their_letters() {
        let is_in = |needle: &str, name: &str| Needle::new(needle).is_in(name);
        assert!(is_in("b/c", "aB/Cd") && is_in("", "a") && is_in("é", "cafÉ"));
        assert!(!is_in("abc", "ab") && !is_in("x", "") && !is_in("é", "cafe"));
        // `K` is the sign of kelvin, which is `k` in lowercase.
        assert!(is_in("k", "\u{212a}"));
    }
}
