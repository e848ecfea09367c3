//! One pattern: Go's `filepath.Match` syntax plus `**`, with the meaning that
//! Docker's `patternmatcher` gives it.
//!
//! Invariant: matching takes time proportional to pattern times path, whatever
//! the pattern is; there is no backtracking.

use std::iter::Peekable;
use std::vec;

/// A character, or a byte that is no part of one.
type Unit = u32;

const SLASH: Unit = b'/' as Unit;
const RAW_BYTE: Unit = 0x11_0000;

/// A path in the form that patterns are matched against.
pub(super) struct Subject<'a> {
    bytes: &'a [u8],
    units: Vec<Unit>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, units: units(bytes) }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Glob {
    /// No special character: the path is exactly this.
    Exact(Vec<u8>),
    Tokens(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Unit(Unit),
    /// `?`: one unit other than `/`.
    One,
    /// `*`: any run without `/`.
    Run,
    /// `**` in the middle: nothing, or any run that ends with `/`.
    Folders,
    /// `**` at the end, or before a plain ending: anything.
    Anything,
    /// `[…]`: one unit of these ranges, or none of them. It may match `/`.
    Class {
        is_negated: bool,
        ranges: Vec<(Unit, Unit)>,
    },
}

impl Glob {
    /// Compiles a cleaned pattern; the error says what is wrong with it.
    pub(super) fn parse(pattern: &[u8]) -> Result<Self, &'static str> {
        if !pattern.iter().any(|byte| b"*?[\\".contains(byte)) {
            return Ok(Self::Exact(pattern.to_vec()));
        }
        Parser { rest: units(pattern).into_iter().peekable(), tokens: Vec::new() }
            .run()
            .map(Self::Tokens)
    }

    pub(super) fn matches(&self, path: &Subject<'_>) -> bool {
        match self {
            Self::Exact(bytes) => path.bytes == bytes,
            Self::Tokens(tokens) => reached(tokens, &path.units)[tokens.len()],
        }
    }

    /// Whether some path that begins with `start` may match.
    pub(super) fn may_begin(&self, start: &Subject<'_>) -> bool {
        match self {
            Self::Exact(bytes) => bytes.starts_with(start.bytes),
            Self::Tokens(tokens) => reached(tokens, &start.units).contains(&true),
        }
    }
}

struct Parser {
    rest: Peekable<vec::IntoIter<Unit>>,
    tokens: Vec<Token>,
}

impl Parser {
    fn run(mut self) -> Result<Vec<Token>, &'static str> {
        while let Some(unit) = self.rest.next() {
            let token = match char::from_u32(unit) {
                Some('*') if self.rest.next_if_eq(&Unit::from(b'*')).is_some() => self.stars(),
                Some('*') => Token::Run,
                Some('?') => Token::One,
                Some('[') => self.class()?,
                Some('\\') => Token::Unit(self.rest.next().ok_or("it ends with a lone `\\`")?),
                _ => Token::Unit(unit),
            };
            self.tokens.push(token);
        }
        Ok(self.tokens)
    }

    /// After `**`. A leading `**` that is followed by plain text alone and no
    /// `/` matches any path with that ending: `**.go` matches `a/b.go`.
    fn stars(&mut self) -> Token {
        let had_slash = self.rest.next_if_eq(&SLASH).is_some();
        let is_special = |unit: &Unit| b"*?[]\\".iter().any(|byte| Unit::from(*byte) == *unit);
        let is_first = self.tokens.is_empty();
        let is_ending = is_first && !had_slash && !self.rest.clone().any(|unit| is_special(&unit));
        if self.rest.peek().is_none() || is_ending { Token::Anything } else { Token::Folders }
    }

    fn class(&mut self) -> Result<Token, &'static str> {
        let is_negated = self.rest.next_if_eq(&Unit::from(b'^')).is_some();
        let mut ranges = Vec::new();
        while ranges.is_empty() || self.rest.next_if_eq(&Unit::from(b']')).is_none() {
            let low = self.class_member()?;
            let high = match self.rest.next_if_eq(&Unit::from(b'-')) {
                Some(_) => self.class_member()?,
                None => low,
            };
            if low > high {
                return Err("a range in `[…]` runs backwards");
            }
            ranges.push((low, high));
        }
        Ok(Token::Class { is_negated, ranges })
    }

    fn class_member(&mut self) -> Result<Unit, &'static str> {
        const UNCLOSED: &str = "`[` has no `]`";
        let unit = self.rest.next().ok_or(UNCLOSED)?;
        match char::from_u32(unit) {
            None => Err("`[…]` holds a byte that is no UTF-8"),
            Some('-') => Err("a `-` in `[…]` needs a `\\` before it"),
            Some(']') => Err("`[…]` is empty"),
            Some('\\') => self.rest.next().ok_or(UNCLOSED),
            Some(_) => Ok(unit),
        }
    }
}

/// Simulates all ways through the tokens side by side: whether the tokens
/// before each place can consume exactly what was read.
fn reached(tokens: &[Token], path: &[Unit]) -> Vec<bool> {
    let mut at = vec![false; tokens.len() + 1];
    enter(tokens, &mut at, 0);
    for unit in path {
        let mut next = vec![false; tokens.len() + 1];
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| at[*index]) {
            match token {
                Token::Unit(own) if own == unit => enter(tokens, &mut next, index + 1),
                Token::One if *unit != SLASH => enter(tokens, &mut next, index + 1),
                Token::Run if *unit != SLASH => enter(tokens, &mut next, index),
                Token::Anything => enter(tokens, &mut next, index),
                Token::Folders => {
                    next[index] = true;
                    if *unit == SLASH {
                        enter(tokens, &mut next, index + 1);
                    }
                }
                Token::Class { is_negated, ranges } => {
                    let is_in = ranges.iter().any(|(low, high)| (low..=high).contains(&unit));
                    if is_in != *is_negated {
                        enter(tokens, &mut next, index + 1);
                    }
                }
                Token::Unit(_) | Token::One | Token::Run => {}
            }
        }
        at = next;
    }
    at
}

/// Marks a place, and those behind it that need no unit to be reached.
fn enter(tokens: &[Token], at: &mut [bool], index: usize) {
    at[index] = true;
    if let Some(Token::Run | Token::Anything | Token::Folders) = tokens.get(index) {
        enter(tokens, at, index + 1);
    }
}

fn units(bytes: &[u8]) -> Vec<Unit> {
    let mut units = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        units.extend(chunk.valid().chars().map(Unit::from));
        units.extend(chunk.invalid().iter().map(|byte| RAW_BYTE + Unit::from(*byte)));
    }
    units
}
