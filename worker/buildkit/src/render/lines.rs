//! The bytes of one output of a process as lines of text.
//!
//! Owns: where a line ends, what a carriage return overwrites, what escape
//! sequences and other control characters become, and how long an unfinished
//! line may wait. Invariant: how the bytes are cut into chunks changes nothing;
//! memory is bounded whatever comes.

use std::time::{Duration, Instant};

/// Longest line in bytes of UTF-8; longer ones are split.
pub const MAX_LINE: usize = 16 << 10;

/// An unfinished line is shown once nothing came for this long …
const IDLE: Duration = Duration::from_secs(1);
/// … or once it has been unfinished for this long, …
const MAX_AGE: Duration = Duration::from_secs(5);
/// … but no sooner after the last one: a progress bar is no flood.
const MIN_GAP: Duration = Duration::from_secs(1);

const REPLACEMENT: &str = "\u{fffd}";

/// Turns bytes into lines that are safe to show.
///
/// Escape sequences are left out, other control characters (tabs excepted) and
/// bytes that are no UTF-8 become U+FFFD. Of a line that is overwritten by
/// carriage returns only the last state remains.
#[derive(Default)]
pub struct LineAssembler {
    /// The beginning of a character whose rest has not come; at most 3 bytes.
    incomplete: Vec<u8>,
    parser: vte::Parser,
    /// The parser has seen a part of the line.
    is_parsing: bool,
    line: Partial,
    timing: Option<Timing>,
    last_flush: Option<Instant>,
}

/// The line that has not ended.
#[derive(Default)]
struct Partial {
    text: String,
    /// A carriage return came: the next character begins the line anew.
    returned: bool,
    /// A part of the line was handed out: its end alone is no line.
    continued: bool,
    /// Parts handed out because the line is too long.
    split: Vec<String>,
}

/// Of the unfinished line.
#[derive(Clone, Copy, Debug)]
struct Timing {
    began: Instant,
    last_byte: Instant,
}

impl LineAssembler {
    /// Takes the next bytes, that came at `now`, and hands the lines that they
    /// end to `line`.
    pub fn push(&mut self, bytes: &[u8], now: Instant, mut line: impl FnMut(&str)) {
        let mut rest = bytes;
        let joined;
        if !self.incomplete.is_empty() {
            joined = [std::mem::take(&mut self.incomplete).as_slice(), bytes].concat();
            rest = &joined;
        }
        // Checked as a whole first, which is faster by far.
        if let Ok(text) = std::str::from_utf8(rest) {
            self.text(text, &mut line);
        } else {
            self.broken_text(rest, &mut line);
        }
        self.timing = (!self.line.text.is_empty()).then(|| Timing {
            began: self.timing.map_or(now, |timing| timing.began),
            last_byte: now,
        });
    }

    /// Hands out the unfinished line if it has waited long enough at `now`.
    pub fn tick(&mut self, now: Instant, mut line: impl FnMut(&str)) {
        if self.next_tick().is_some_and(|due| due <= now) {
            line(&self.line.text);
            self.line.text.clear();
            self.line.returned = false;
            self.line.continued = true;
            self.timing = None;
            self.last_flush = Some(now);
        }
    }

    /// When [`LineAssembler::tick`] will hand out the unfinished line.
    pub fn next_tick(&self) -> Option<Instant> {
        let timing = self.timing?;
        let due = (timing.last_byte + IDLE).min(timing.began + MAX_AGE);
        Some(self.last_flush.map_or(due, |last| due.max(last + MIN_GAP)))
    }

    /// Hands out the unfinished line: nothing more will come.
    pub fn finish(&mut self, mut line: impl FnMut(&str)) {
        if !std::mem::take(&mut self.incomplete).is_empty() {
            self.text(REPLACEMENT, &mut line);
        }
        if !self.line.text.is_empty() {
            self.line.end(&mut line);
        }
        self.parser = vte::Parser::default();
        self.is_parsing = false;
        self.timing = None;
    }

    fn broken_text(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        // The parser gets whole characters only: version 0.15 loses text where
        // a character is cut.
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text(chunk.valid(), &mut line);
            let invalid = chunk.invalid();
            if is_incomplete(invalid) && chunks.peek().is_none() {
                self.incomplete = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.text(REPLACEMENT, &mut line);
            }
        }
    }

    fn text(&mut self, text: &str, mut line: impl FnMut(&str)) {
        for part in text.split_inclusive('\n') {
            let whole = part.strip_suffix('\n').filter(|_| self.is_between_lines());
            // Most lines are nothing but text. What is no text takes the long way.
            if let Some(text) = whole.filter(|text| text.len() <= MAX_LINE && is_plain(text)) {
                line(text);
                continue;
            }
            self.is_parsing = true;
            self.parser.advance(&mut self.line, part.as_bytes());
            for text in self.line.split.drain(..) {
                line(&text);
            }
            if part.ends_with('\n') {
                // A line break ends a sequence too: one that never ends would
                // swallow all that follows.
                self.parser = vte::Parser::default();
                self.is_parsing = false;
                self.line.end(&mut line);
                self.timing = None;
            }
        }
    }

    /// Whether nothing of a line has come, nor of a sequence.
    fn is_between_lines(&self) -> bool {
        !self.is_parsing && !self.line.continued
    }
}

/// Whether `text` is shown as it is.
fn is_plain(text: &str) -> bool {
    let is_plain_ascii = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    text.as_bytes().iter().all(is_plain_ascii)
        || !text.contains(|c: char| c.is_control() && c != '\t')
}

/// Whether `invalid` may be the beginning of a character.
fn is_incomplete(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

impl std::fmt::Debug for LineAssembler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LineAssembler").field("unfinished", &self.line.text).finish_non_exhaustive()
    }
}

impl Partial {
    fn end(&mut self, mut line: impl FnMut(&str)) {
        if !(self.continued && self.text.is_empty()) {
            line(&self.text);
        }
        self.text.clear();
        self.returned = false;
        self.continued = false;
    }

    fn put(&mut self, character: char) {
        if self.returned {
            self.text.clear();
            self.returned = false;
        }
        if self.text.len() + character.len_utf8() > MAX_LINE {
            self.split.push(std::mem::take(&mut self.text));
            self.continued = true;
        }
        self.text.push(character);
    }
}

/// What the parser found.
impl vte::Perform for Partial {
    fn print(&mut self, character: char) {
        self.put(if character.is_control() { char::REPLACEMENT_CHARACTER } else { character });
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => {} // `push` ends the line
            b'\r' => self.returned = true,
            b'\t' => self.put('\t'),
            // Backspace, as spinners use it.
            0x08 => drop(self.text.pop()),
            _ => self.put(char::REPLACEMENT_CHARACTER),
        }
    }

    /// Of all sequences only those that restart a line mean something here.
    fn csi_dispatch(
        &mut self,
        parameters: &vte::Params,
        intermediates: &[u8],
        _ignore: bool,
        action: char,
    ) {
        let first = parameters.iter().next().and_then(|values| values.first()).copied();
        match (intermediates, action, first.unwrap_or_default()) {
            // Erase the whole line, or from its beginning.
            ([], 'K', 2) => self.text.clear(),
            ([], 'K', 0) if self.returned => self.text.clear(),
            // Go to the first column.
            ([], 'G', 0 | 1) => self.returned = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
