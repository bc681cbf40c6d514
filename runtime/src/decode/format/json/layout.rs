//! The members of an object, in the order they were last seen.
//!
//! Receives a cursor before an object. Promises one token a member and the layout they follow: the list of the members'
//! names, without repeats. A row that has the same members as the row before costs one comparison of bytes a member and
//! no look-up. Keeps a bounded number of layouts and never allocates for one it knows.

use std::collections::HashSet;

use super::cursor::{Cursor, Malformed, Token, ValueKind};
use super::escape::unescape;
use super::literal::Literal;

/// Most layouts kept of one kind of object.
const LAYOUTS_MAX: usize = 64;
/// Most members of an object; MySQL has at most 4,096 columns.
const MEMBERS_MAX: usize = 5_000;
/// Most bytes of the names of one layout.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// The names of an object's members, in order.
#[derive(Debug)]
pub(crate) struct Layout {
    /// unlike that of any other layout of the same [`Layouts`], now or later
    pub(crate) id: u32,
    pub(crate) names: Vec<String>,
    /// the names as written
    written: Vec<Vec<u8>>,
    /// the same, each with its quotes and the colon
    literals: Vec<Literal>,
}

impl Layout {
    /// The place of a member.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|n| n == name)
    }
}

/// Why an object's members cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    Malformed(Malformed),
    NotAnObject,
    Repeated,
    TooMany,
}

impl Trouble {
    /// The same for people, of the object `what`.
    #[cold]
    pub(crate) fn reason(self, what: &str) -> String {
        match self {
            Trouble::Malformed(malformed) => malformed.reason(),
            Trouble::NotAnObject => format!("{what} is not an object"),
            Trouble::Repeated => format!("{what} has a member twice"),
            Trouble::TooMany => format!("{what} has more members than a table has columns"),
        }
    }
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Trouble::Malformed(malformed)
    }
}

/// The layouts that objects of one kind have had.
#[derive(Debug, Default)]
pub(crate) struct Layouts {
    known: Vec<Layout>,
    last: usize,
    next_id: u32,
    names: Vec<Token>,
    skipped: Vec<Token>,
}

impl Layouts {
    /// A layout by the index that [`Layouts::read`] gave last.
    pub(crate) fn get(&self, index: usize) -> Option<&Layout> {
        self.known.get(index)
    }

    /// Reads an object's members into `out`; answers the index of their layout. `bytes` is what the cursor walks over.
    #[inline]
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        cursor: &mut Cursor<'_>,
        out: &mut Vec<Token>,
    ) -> Result<usize, Trouble> {
        if cursor.peek() != b'{' {
            return Err(Trouble::NotAnObject);
        }
        let start = *cursor;
        out.clear();
        if let Some(layout) = self.known.get(self.last)
            && follow(layout, cursor, out)?
        {
            return Ok(self.last);
        }
        *cursor = start;
        out.clear();
        self.read_any(bytes, cursor, out)
    }

    /// Steps over an object, quickly when it has the last layout.
    #[inline]
    pub(crate) fn skip(&mut self, cursor: &mut Cursor<'_>) -> Result<Token, Malformed> {
        let begin = cursor.peek();
        let (start, at) = (*cursor, cursor.at());
        self.skipped.clear();
        if begin == b'{'
            && let Some(layout) = self.known.get(self.last)
            && follow(layout, cursor, &mut self.skipped)?
        {
            return Ok(Token { kind: ValueKind::Object, start: at as u32, end: cursor.at() as u32 });
        }
        *cursor = start;
        cursor.value()
    }

    #[cold]
    fn read_any(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>, out: &mut Vec<Token>) -> Result<usize, Trouble> {
        self.names.clear();
        cursor.expect(b'{', "an object is missing")?;
        if !cursor.take(b'}') {
            loop {
                if out.len() == MEMBERS_MAX {
                    return Err(Trouble::TooMany);
                }
                self.names.push(cursor.key()?);
                out.push(cursor.value()?);
                if !cursor.more_members()? {
                    break;
                }
            }
        }
        let names = &self.names;
        let same = |layout: &Layout| {
            layout.written.len() == names.len() && layout.written.iter().zip(names).all(|(w, name)| w == name.of(bytes))
        };
        let found = match self.known.iter().position(same) {
            Some(found) => found,
            None => self.learn(bytes)?,
        };
        self.last = found;
        Ok(found)
    }

    fn learn(&mut self, bytes: &[u8]) -> Result<usize, Trouble> {
        let mut layout = Layout { id: self.next_id, names: Vec::new(), written: Vec::new(), literals: Vec::new() };
        let mut size = 0;
        for name in &self.names {
            let raw = name.of(bytes);
            size += raw.len();
            if size > NAMES_BYTES_MAX {
                return Err(Trouble::TooMany);
            }
            layout.literals.push(Literal::new(&[b"\"", raw, b"\":"].concat()));
            layout.written.push(raw.to_vec());
            let mut plain = Vec::new();
            if name.kind == ValueKind::Escaped {
                unescape(raw, &mut plain).ok_or(Trouble::TooMany)?;
            } else {
                plain.extend_from_slice(raw);
            }
            layout.names.push(String::from_utf8(plain).map_err(|_| Trouble::TooMany)?);
        }
        let distinct: HashSet<&String> = layout.names.iter().collect();
        if distinct.len() != layout.names.len() {
            return Err(Trouble::Repeated);
        }
        if self.known.len() == LAYOUTS_MAX {
            self.known.clear();
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.known.push(layout);
        Ok(self.known.len() - 1)
    }
}

/// Reads members as long as they are those of `layout`; false when they are not.
#[inline]
fn follow(layout: &Layout, cursor: &mut Cursor<'_>, out: &mut Vec<Token>) -> Result<bool, Malformed> {
    if !cursor.take(b'{') {
        return Ok(false);
    }
    let Some((last, others)) = layout.literals.split_last() else { return Ok(cursor.take(b'}')) };
    for literal in others {
        if !cursor.take_literal(literal) {
            return Ok(false);
        }
        out.push(cursor.value()?);
        if !cursor.more_members()? {
            return Ok(false);
        }
    }
    if !cursor.take_literal(last) {
        return Ok(false);
    }
    out.push(cursor.value()?);
    Ok(!cursor.more_members()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(layouts: &mut Layouts, text: &str) -> Result<(u32, usize), Trouble> {
        let mut cursor = Cursor::new(text.as_bytes());
        let mut out = Vec::new();
        let at = layouts.read(text.as_bytes(), &mut cursor, &mut out)?;
        cursor.end()?;
        Ok((layouts.get(at).unwrap().id, out.len()))
    }

    #[test]
    fn the_same_members_have_the_same_layout() {
        let mut layouts = Layouts::default();
        let first = read(&mut layouts, r#"{"a":1,"b":[2,{}]}"#).unwrap();
        assert_eq!(read(&mut layouts, r#"{"a":"x","b":null}"#).unwrap(), first);
        assert_eq!(read(&mut layouts, r#"{ "a" : 1 , "b" : 2 }"#).unwrap(), first);
        let other = read(&mut layouts, r#"{"b":1,"a":2}"#).unwrap();
        assert_ne!(other.0, first.0);
        let longer = read(&mut layouts, r#"{"a":1,"b":2,"c":3}"#).unwrap();
        assert_eq!(longer.1, 3);
        let shorter = read(&mut layouts, r#"{"a":1}"#).unwrap();
        assert_eq!(shorter.1, 1);
        assert_eq!(read(&mut layouts, "{}").unwrap().1, 0);
        assert_eq!(read(&mut layouts, "{ }").unwrap().1, 0);
        assert_eq!(read(&mut layouts, r#"{"a":1,"b":2}"#).unwrap(), first);
    }

    #[test]
    fn repeated_members_are_refused() {
        let mut layouts = Layouts::default();
        assert_eq!(read(&mut layouts, r#"{"a":1,"a":2}"#), Err(Trouble::Repeated));
        assert_eq!(read(&mut layouts, r#"{"a":1,"\u0061":2}"#), Err(Trouble::Repeated));
        assert_eq!(read(&mut layouts, "[1]"), Err(Trouble::NotAnObject));
        assert!(matches!(read(&mut layouts, r#"{"a":1"#), Err(Trouble::Malformed(_))));
    }

    #[test]
    fn the_number_of_layouts_is_bounded() {
        let mut layouts = Layouts::default();
        for n in 0..1000 {
            read(&mut layouts, &format!(r#"{{"c{n}":1}}"#)).unwrap();
        }
        assert!(layouts.known.len() <= LAYOUTS_MAX);
    }
}
