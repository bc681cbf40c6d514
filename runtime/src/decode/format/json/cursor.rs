//! A cursor over the bytes of one JSON text.
//!
//! Receives bytes that are already known to be UTF-8. Promises that whatever it steps over is valid JSON, at most
//! [`DEPTH_MAX`] levels deep, and answers with places in the bytes instead of values. Never recurses or allocates.

use super::escape::hex4;
use super::literal::Literal;

/// Deepest nesting of objects and arrays.
pub(crate) const DEPTH_MAX: u32 = 128;

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Null,
    True,
    False,
    Number,
    /// without escapes
    Text,
    /// with at least one backslash
    Escaped,
    Object,
    Array,
}

/// Where a value stands; of text, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: ValueKind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Token {
    /// The value's bytes in the text it was found in.
    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn is_text(self) -> bool {
        matches!(self.kind, ValueKind::Text | ValueKind::Escaped)
    }
}

/// Where and how the bytes stop being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) what: &'static str,
    pub(crate) at: usize,
}

impl Malformed {
    /// The same for people.
    #[cold]
    pub(crate) fn reason(self) -> String {
        format!("the record is not JSON: {} at byte {}", self.what, self.at)
    }
}

/// Walks over one JSON text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, at: 0 }
    }

    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Cursor { bytes, at }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    #[cold]
    fn fail(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    /// The next byte that is not white space; 0 at the end.
    #[inline]
    pub(crate) fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                Some(&byte) => return byte,
                None => return 0,
            }
        }
    }

    /// Steps over `byte` when it is next.
    #[inline]
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == byte;
        self.at += usize::from(there);
        there
    }

    /// Steps over exactly these bytes when they are next.
    #[inline]
    pub(crate) fn take_all(&mut self, bytes: &[u8]) -> bool {
        let there = self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(bytes));
        if there {
            self.at += bytes.len();
        }
        there
    }

    /// Steps over exactly the literal when it is next.
    #[inline]
    pub(crate) fn take_literal(&mut self, literal: &Literal) -> bool {
        let there = self.bytes.get(self.at..).is_some_and(|rest| literal.begins(rest));
        self.at += if there { literal.len() } else { 0 };
        there
    }

    pub(crate) fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.fail(what)) }
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Result<(), Malformed> {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fail("something follows the value")) }
    }

    /// Steps over a member's name and the colon after it.
    #[inline]
    pub(crate) fn key(&mut self) -> Result<Token, Malformed> {
        if !self.take(b'"') {
            return Err(self.fail("a member's name is missing"));
        }
        let name = self.text()?;
        self.expect(b':', "a colon is missing")?;
        Ok(name)
    }

    /// After a member's value: true when another member follows, false when the object ends.
    #[inline]
    pub(crate) fn more_members(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b'}' => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.fail("a comma or a closing brace is missing")),
        }
    }

    /// After an element: true when another follows, false when the array ends.
    pub(crate) fn more_elements(&mut self) -> Result<bool, Malformed> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b']' => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.fail("a comma or a closing bracket is missing")),
        }
    }

    /// Steps over one value of any kind.
    #[inline]
    pub(crate) fn value(&mut self) -> Result<Token, Malformed> {
        let first = self.peek();
        let start = self.at;
        match first {
            b'"' => {
                self.at += 1;
                self.text()
            }
            b'{' | b'[' => {
                self.container()?;
                let kind = if first == b'{' { ValueKind::Object } else { ValueKind::Array };
                Ok(self.token(kind, start))
            }
            _ => self.scalar(),
        }
    }

    #[inline]
    fn token(&self, kind: ValueKind, start: usize) -> Token {
        Token { kind, start: start as u32, end: self.at as u32 }
    }

    #[inline]
    fn scalar(&mut self) -> Result<Token, Malformed> {
        let start = self.at;
        let (word, kind): (&[u8], ValueKind) = match self.bytes.get(self.at) {
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b'n') => (b"null", ValueKind::Null),
            Some(b't') => (b"true", ValueKind::True),
            Some(b'f') => (b"false", ValueKind::False),
            None => return Err(self.fail("the text ends too early")),
            Some(_) => return Err(self.fail("a value is missing")),
        };
        if self.take_all(word) { Ok(self.token(kind, start)) } else { Err(self.fail("an unknown word")) }
    }

    #[inline]
    fn digits(&mut self) -> bool {
        let start = self.at;
        // eight bytes at a time: a digit is what differs from `0` by less than ten
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let digits = u64::from_le_bytes(*chunk) ^ (ONES * b'0' as u64);
            let others = (digits | digits.wrapping_add(ONES * 0x76)) & HIGHS;
            if others != 0 {
                self.at += others.trailing_zeros() as usize / 8;
                return self.at > start;
            }
            self.at += 8;
        }
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at > start
    }

    #[inline]
    fn number(&mut self) -> Result<Token, Malformed> {
        let start = self.at;
        if self.bytes.get(self.at) == Some(&b'-') {
            self.at += 1;
        }
        let zero = self.bytes.get(self.at) == Some(&b'0');
        let first = self.at;
        if !self.digits() || (zero && self.at > first + 1) {
            return Err(self.fail("a number is malformed"));
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            if !self.digits() {
                return Err(self.fail("a number is malformed"));
            }
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.fail("a number is malformed"));
            }
        }
        Ok(self.token(ValueKind::Number, start))
    }

    /// Steps over text whose opening quote is behind the cursor.
    #[inline(always)]
    fn text(&mut self) -> Result<Token, Malformed> {
        let start = self.at;
        let mut kind = ValueKind::Text;
        loop {
            // eight bytes at a time: the lowest flagged byte is the first quote, backslash or control character
            while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
                let word = u64::from_le_bytes(*chunk);
                let quote = word ^ (ONES * b'"' as u64);
                let slash = word ^ (ONES * b'\\' as u64);
                let hit = (quote.wrapping_sub(ONES) & !quote
                    | slash.wrapping_sub(ONES) & !slash
                    | word.wrapping_sub(ONES * 0x20) & !word)
                    & HIGHS;
                if hit != 0 {
                    self.at += hit.trailing_zeros() as usize / 8;
                    break;
                }
                self.at += 8;
            }
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let end = self.at as u32;
                    self.at += 1;
                    return Ok(Token { kind, start: start as u32, end });
                }
                Some(b'\\') => {
                    kind = ValueKind::Escaped;
                    self.at += 1;
                    match self.bytes.get(self.at) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 1,
                        Some(b'u') => {
                            if hex4(self.bytes, self.at + 1).is_none() {
                                return Err(self.fail("an escape is malformed"));
                            }
                            self.at += 5;
                        }
                        _ => return Err(self.fail("an escape is malformed")),
                    }
                }
                Some(0..=0x1f) => return Err(self.fail("a control character stands in a text")),
                Some(_) => self.at += 1,
                None => return Err(self.fail("a text does not end")),
            }
        }
    }

    /// Steps over an object or array; a bit a level remembers which it is.
    fn container(&mut self) -> Result<(), Malformed> {
        let mut objects = 0u128;
        let mut depth = 0u32;
        loop {
            let first = self.peek();
            match first {
                b'{' | b'[' => {
                    if depth == DEPTH_MAX {
                        return Err(self.fail("nested deeper than 128 levels"));
                    }
                    depth += 1;
                    let object = first == b'{';
                    objects = objects << 1 | u128::from(object);
                    self.at += 1;
                    let empty = self.peek() == if object { b'}' } else { b']' };
                    if empty {
                        self.at += 1;
                        depth -= 1;
                        objects >>= 1;
                    } else {
                        if object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                b'"' => {
                    self.at += 1;
                    self.text()?;
                }
                _ => {
                    self.scalar()?;
                }
            }
            loop {
                if depth == 0 {
                    return Ok(());
                }
                let object = objects & 1 == 1;
                let more = if object { self.more_members()? } else { self.more_elements()? };
                if more {
                    if object {
                        self.key()?;
                    }
                    break;
                }
                depth -= 1;
                objects >>= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Token, Malformed> {
        let mut cursor = Cursor::new(text.as_bytes());
        let token = cursor.value()?;
        cursor.end()?;
        Ok(token)
    }

    #[test]
    fn accepts_what_the_grammar_allows() {
        for text in [
            "0",
            "-0",
            "1.5e+10",
            "-12E-3",
            "null",
            "true",
            "false",
            "\"\"",
            "\"a\\u00e9\\n\"",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "{\"a\":{\"b\":[{},[],null]},\"c\":\"long text that crosses several words\"}",
        ] {
            assert!(whole(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn refuses_what_it_does_not() {
        for text in [
            "",
            "NaN",
            "Infinity",
            "-",
            "01",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "tru",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"tab\there\"",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1]",
            "[1}",
            "1 2",
            "{",
        ] {
            assert!(whole(text).is_err(), "{text}");
        }
    }

    #[test]
    fn agrees_with_serde_on_mutated_texts() {
        use rand::{Rng, SeedableRng};
        let seed = 7;
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let base = "{\"a\":[1,-2.5e3,true,null],\"b\":{\"c\":\"x\\n\\u0041y\",\"d\":\"\"},\"e\":\"plain text of some length\"}";
        for round in 0..20_000 {
            let mut bytes = base.as_bytes().to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = b"{}[]\",:\\u01e.-tn \n"[random.random_range(0..18)];
            }
            let ours = whole(std::str::from_utf8(&bytes).unwrap()).is_ok();
            let theirs = serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok();
            assert_eq!(ours, theirs, "seed {seed} round {round}: {}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn ends_at_128_levels() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(whole(&deep(128)).is_ok());
        assert_eq!(whole(&deep(129)).unwrap_err().what, "nested deeper than 128 levels");
        assert!(whole(&deep(20_000)).is_err());
        assert!(whole(&"{\"a\":".repeat(20_000)).is_err());
    }
}
