//! One record taken apart: its row images, its operation and where the source says it stands.
//!
//! Receives the key and the value of a record in any of Debezium's JSON forms. Promises tokens into the record's own
//! bytes, or the reason why the record is none of those forms. Knows nothing of tables and types.

use super::cursor::{Cursor, Malformed, Token, ValueKind};
use super::layout::Layouts;
use super::source_block::{SourceBlock, SourceFields};
use super::wrapper::Wraps;

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Read,
    Create,
    Update,
    Delete,
    Truncate,
    /// nothing that concerns a table
    Nothing,
}

impl Action {
    fn of_letter(letter: &[u8]) -> Option<Action> {
        Some(match letter {
            b"u" => Action::Update,
            b"c" => Action::Create,
            b"d" => Action::Delete,
            b"r" => Action::Read,
            b"t" => Action::Truncate,
            _ => return None,
        })
    }
}

/// A record's value, taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parsed {
    pub(crate) action: Action,
    /// layout of [`EnvelopeReader::image`]; `None`: there is no image after the change
    pub(crate) image: Option<usize>,
    /// the image before the change, not read yet
    pub(crate) before: Option<Token>,
    /// index of the schema beside the payload
    pub(crate) wrap: Option<usize>,
    pub(crate) flattened: bool,
    pub(crate) source: SourceBlock,
}

/// Takes the records of one topic apart. Its buffers hold the tokens of the last record.
#[derive(Debug, Default)]
pub(crate) struct EnvelopeReader {
    pub(crate) images: Layouts,
    pub(crate) keys: Layouts,
    source_layouts: Layouts,
    pub(crate) image: Vec<Token>,
    pub(crate) before: Vec<Token>,
    pub(crate) key: Vec<Token>,
    source: Vec<Token>,
    pub(crate) wraps: Wraps,
    key_wraps: Wraps,
    source_fields: SourceFields,
    flattened: bool,
}

/// The members of an envelope that matter; each `None` where it is absent.
#[derive(Default)]
struct Members {
    before: Option<Token>,
    /// layout of the image; `Some(None)`: null
    after: Option<Option<usize>>,
    /// layout of the source block
    source: Option<usize>,
    op: Option<Token>,
}

impl EnvelopeReader {
    /// Takes a value apart. `None`: a tombstone with a schema.
    #[inline]
    pub(crate) fn value(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, String> {
        let unwrapped = self.wraps.unwrap(bytes)?;
        let mut cursor = Cursor::starting_at(bytes, unwrapped.at);
        if cursor.peek() != b'{' {
            let value = cursor.value().map_err(Malformed::reason)?;
            unwrapped.finish(&mut cursor)?;
            return match value.kind {
                ValueKind::Null if unwrapped.wrap.is_some() => Ok(None),
                _ => Err("the record is not an object".to_owned()),
            };
        }
        let start = cursor;
        let mut parsed = None;
        if !self.flattened {
            parsed = self.envelope(bytes, &mut cursor)?;
        }
        if parsed.is_none() {
            cursor = start;
            parsed = self.flat(bytes, &mut cursor)?;
            self.flattened = parsed.is_some();
        }
        if parsed.is_none() {
            cursor = start;
            parsed = self.envelope(bytes, &mut cursor)?;
        }
        unwrapped.finish(&mut cursor)?;
        let mut parsed = parsed.ok_or("the record has no `source` block and no `op`: it is not a change of a row")?;
        parsed.wrap = unwrapped.wrap;
        Ok(Some(parsed))
    }

    /// `None`: the object is not an envelope.
    #[inline]
    fn envelope(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<Parsed>, String> {
        let Members { before, after, source, op } = self.members(bytes, cursor)?;
        let (op, source) = match (op, source) {
            (Some(op), Some(source)) => (op, source),
            (None, Some(_)) if after.is_some() => return Err("the record has no `op`".to_owned()),
            (Some(_), None) if after.is_some() => return Err("the record has no `source` block".to_owned()),
            _ => return Ok(None),
        };
        let Some(layout) = self.source_layouts.get(source) else { return Ok(None) };
        if self.source_fields.layout != Some(layout.id) {
            self.source_fields = SourceFields::of_source(layout);
        }
        let action = match (op.kind, op.of(bytes)) {
            (ValueKind::Text, b"m") => Some(Action::Nothing),
            (ValueKind::Text, letter) => Action::of_letter(letter),
            _ => None,
        };
        let action = action.ok_or("the record has an unknown `op`")?;
        let before = match before {
            Some(token) if token.kind == ValueKind::Object => Some(token),
            Some(token) if token.kind != ValueKind::Null => return Err("`before` is not an object".to_owned()),
            _ => None,
        };
        let source = self.source_fields.source(bytes, &self.source, action == Action::Read)?;
        Ok(Some(Parsed { action, image: after.flatten(), before, wrap: None, flattened: false, source }))
    }

    /// Steps over an object; of an envelope, the image after the change and the source block are read.
    #[inline]
    fn members(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Members, String> {
        let mut found = Members::default();
        cursor.expect(b'{', "an object is missing").map_err(Malformed::reason)?;
        if cursor.take(b'}') {
            return Ok(found);
        }
        let mut seen = 0u8;
        loop {
            let name = cursor.key().map_err(Malformed::reason)?;
            let bit = match name.of(bytes) {
                b"before" => {
                    found.before = Some(self.images.skip(cursor).map_err(Malformed::reason)?);
                    1
                }
                b"after" => {
                    found.after = Some(self.after(bytes, cursor)?);
                    2
                }
                b"source" => {
                    if cursor.peek() == b'{' {
                        let read = self.source_layouts.read(bytes, cursor, &mut self.source);
                        found.source = Some(read.map_err(|t| t.reason("`source`"))?);
                    } else {
                        cursor.value().map_err(Malformed::reason)?;
                    }
                    4
                }
                b"op" => {
                    found.op = Some(cursor.value().map_err(Malformed::reason)?);
                    8
                }
                _ => {
                    cursor.value().map_err(Malformed::reason)?;
                    0
                }
            };
            if seen & bit != 0 {
                return Err("the envelope has a member twice".to_owned());
            }
            seen |= bit;
            if !cursor.more_members().map_err(Malformed::reason)? {
                return Ok(found);
            }
        }
    }

    /// Reads the image after the change into [`EnvelopeReader::image`]; answers its layout.
    #[inline]
    fn after(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<usize>, String> {
        if cursor.peek() == b'{' {
            let read = self.images.read(bytes, cursor, &mut self.image);
            return Ok(Some(read.map_err(|t| t.reason("`after`"))?));
        }
        match cursor.value().map_err(Malformed::reason)?.kind {
            ValueKind::Null => Ok(None),
            _ => Err("`after` is not an object".to_owned()),
        }
    }

    /// `None`: the object has none of the fields that ExtractNewRecordState adds.
    fn flat(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<Parsed>, String> {
        let read = self.images.read(bytes, cursor, &mut self.image);
        let at = read.map_err(|t| t.reason("the record"))?;
        let Some(layout) = self.images.get(at) else { return Ok(None) };
        if self.source_fields.layout != Some(layout.id) || !self.flattened {
            self.source_fields = SourceFields::of_flattened(layout);
        }
        let fields = self.source_fields;
        if fields.op.is_none() && fields.deleted.is_none() && fields.file.is_none() {
            self.source_fields = SourceFields::default();
            return Ok(None);
        }
        let member = |at: Option<usize>| at.and_then(|at| self.image.get(at)).filter(|t| t.kind != ValueKind::Null);
        let deleted = member(fields.deleted).is_some_and(|t| t.kind == ValueKind::True || t.of(bytes) == b"true");
        let action = match member(fields.op).map(|t| t.of(bytes)) {
            Some(b"t") => Action::Truncate,
            Some(_) | None if deleted => Action::Delete,
            Some(letter) => Action::of_letter(letter).ok_or("the record has an unknown `__op`")?,
            None => Action::Update,
        };
        let source = fields.source(bytes, &self.image, action == Action::Read)?;
        Ok(Some(Parsed { action, image: Some(at), before: None, wrap: None, flattened: true, source }))
    }

    /// Reads the image before the change into [`EnvelopeReader::before`].
    pub(crate) fn read_before(&mut self, bytes: &[u8], token: Token) -> Result<usize, String> {
        let mut cursor = Cursor::starting_at(bytes, token.start as usize);
        self.images.read(bytes, &mut cursor, &mut self.before).map_err(|t| t.reason("`before`"))
    }

    /// Reads a key into [`EnvelopeReader::key`]; answers its layout.
    #[inline]
    pub(crate) fn read_key(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let of_key = |reason: String| reason.replacen("the record is", "the record's key is", 1);
        let unwrapped = self.key_wraps.unwrap(bytes).map_err(of_key)?;
        let mut cursor = Cursor::starting_at(bytes, unwrapped.at);
        if cursor.peek() == b'n' {
            cursor.value().map_err(Malformed::reason).map_err(of_key)?;
            unwrapped.finish(&mut cursor).map_err(of_key)?;
            return Ok(None);
        }
        let at = self.keys.read(bytes, &mut cursor, &mut self.key).map_err(|t| of_key(t.reason("the record's key")))?;
        unwrapped.finish(&mut cursor).map_err(of_key)?;
        Ok(Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::wrapper::{SCHEMA_BYTES_MAX, WRAPS_MAX};
    use super::*;

    fn wrapped(schema: &str, payload: &str) -> String {
        format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
    }

    const PAYLOAD: &str =
        r#"{"before":null,"after":{"id":1},"source":{"file":"b.1","pos":4,"row":0,"snapshot":"false"},"op":"c"}"#;

    #[test]
    fn a_schema_is_read_once() {
        let mut reader = EnvelopeReader::default();
        let schema = r#"{"type":"struct","fields":[{"type":"int32","field":"id"}]}"#;
        for _ in 0..3 {
            let parsed = reader.value(wrapped(schema, PAYLOAD).as_bytes()).unwrap().unwrap();
            assert_eq!((parsed.wrap, parsed.source.pos), (Some(0), 4));
        }
        assert_eq!(reader.wraps.known.len(), 1);
        let other = schema.replace("int32", "int64");
        reader.value(wrapped(&other, PAYLOAD).as_bytes()).unwrap();
        let again = reader.value(wrapped(schema, PAYLOAD).as_bytes()).unwrap().unwrap();
        assert_eq!(again.wrap, Some(0));
        assert_eq!(reader.wraps.known.len(), 2);
        assert_eq!(reader.value(PAYLOAD.as_bytes()).unwrap().unwrap().wrap, None);
    }

    #[test]
    fn what_follows_the_payload_is_an_error() {
        let mut reader = EnvelopeReader::default();
        let good = wrapped("{}", PAYLOAD);
        assert!(reader.value(good.as_bytes()).is_ok());
        for end in ["", "}}", ",\"x\":1}", "}x"] {
            let bad = format!("{}{end}", &good[..good.len() - 1]);
            assert!(reader.value(bad.as_bytes()).is_err(), "{end}");
        }
        let bad = [good.as_bytes(), b"\xff"].concat();
        assert!(reader.value(&bad).is_err());
    }

    #[test]
    fn the_number_and_size_of_schemas_is_bounded() {
        let mut reader = EnvelopeReader::default();
        for n in 0..100 {
            reader.value(wrapped(&format!("{{\"n\":{n}}}"), PAYLOAD).as_bytes()).unwrap();
        }
        assert!(reader.wraps.known.len() <= WRAPS_MAX);
        let large = format!("{{\"n\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX));
        assert!(reader.value(wrapped(&large, PAYLOAD).as_bytes()).is_err());
    }
}
