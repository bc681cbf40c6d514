//! One record taken apart: its row images, its operation and where the source says it stands.
//!
//! Receives the key and the value of a record in any of Debezium's JSON forms. Promises tokens into the record's own
//! bytes, or the reason why the record is none of those forms. A schema beside the payload is recognised by its bytes
//! and read once. Knows nothing of tables and types.

use std::sync::Arc;

use super::connect::{self, Field};
use super::epoch::Snapshot;
use super::json::{Cursor, Kind, Malformed, Token};
use super::layout::{Layout, Layouts, Trouble};
use super::scalar;

/// Most embedded schemas kept of one topic.
const WRAPS_MAX: usize = 16;
/// Largest embedded schema; one of 4,096 columns has about 1.5 MiB.
const SCHEMA_BYTES_MAX: usize = 4 << 20;

/// A schema that stands before payloads.
#[derive(Debug)]
pub(super) struct Wrap {
    /// unlike that of any other, now or later
    pub(super) id: u32,
    schema: Vec<u8>,
    /// everything before the payload; empty where the payload came first
    prefix: Vec<u8>,
    /// `None` where there is nothing to learn from it
    pub(super) fields: Option<Arc<Vec<Field>>>,
}

#[derive(Debug, Default)]
pub(super) struct Wraps {
    known: Vec<Wrap>,
    last: usize,
    next_id: u32,
}

/// Where the payload begins, and the schema beside it.
struct Unwrapped {
    at: usize,
    wrap: Option<usize>,
    /// the schema came first, so the wrapping object still has to end
    open: bool,
}

impl Wraps {
    pub(super) fn get(&self, index: usize) -> Option<&Wrap> {
        self.known.get(index)
    }

    /// Checks the bytes as UTF-8 and finds the payload.
    fn unwrap(&mut self, bytes: &[u8]) -> Result<Unwrapped, String> {
        if let Some(wrap) = self.known.get(self.last)
            && let Some(rest) = bytes.strip_prefix(wrap.prefix.as_slice())
            && !wrap.prefix.is_empty()
        {
            utf8(rest)?;
            return Ok(Unwrapped { at: wrap.prefix.len(), wrap: Some(self.last), open: true });
        }
        utf8(bytes)?;
        let bare = Unwrapped { at: 0, wrap: None, open: false };
        let mut cursor = Cursor::new(bytes);
        if !cursor.take(b'{') || cursor.peek() != b'"' {
            return Ok(bare);
        }
        let first = cursor.key().map_err(malformed)?;
        let schema_first = match first.of(bytes) {
            b"schema" => true,
            b"payload" => false,
            _ => return Ok(bare),
        };
        let a = cursor.value().map_err(malformed)?;
        if !cursor.more_members().map_err(malformed)? {
            return Ok(bare);
        }
        let second = cursor.key().map_err(malformed)?;
        let (schema, payload) = match (schema_first, second.of(bytes)) {
            (true, b"payload") => {
                cursor.peek();
                let start = cursor.at();
                let payload = cursor.value().map_err(malformed)?;
                (a, Token { start: start as u32, ..payload })
            }
            (false, b"schema") => {
                // a token of text has no quotes, so the payload's start is looked up anew
                let mut again = Cursor::new(bytes);
                again.take(b'{');
                again.key().map_err(malformed)?;
                again.peek();
                (cursor.value().map_err(malformed)?, Token { start: again.at() as u32, ..a })
            }
            _ => return Ok(bare),
        };
        if cursor.more_members().map_err(malformed)? || !matches!(schema.kind, Kind::Object | Kind::Null) {
            return Ok(bare);
        }
        cursor.end().map_err(malformed)?;
        if schema.of(bytes).len() > SCHEMA_BYTES_MAX {
            return Err("the schema beside the payload is larger than 4 MiB".to_owned());
        }
        let at = payload.start as usize;
        let wrap = self.learn(schema.of(bytes), if schema_first { bytes.get(..at) } else { None });
        Ok(Unwrapped { at, wrap: Some(wrap), open: schema_first })
    }

    fn learn(&mut self, schema: &[u8], prefix: Option<&[u8]>) -> usize {
        let prefix = prefix.unwrap_or_default();
        if let Some(at) = self.known.iter().position(|w| w.schema == schema && w.prefix == prefix) {
            self.last = at;
            return at;
        }
        if self.known.len() == WRAPS_MAX {
            self.known.clear();
        }
        self.next_id = self.next_id.wrapping_add(1);
        self.known.push(Wrap {
            id: self.next_id,
            schema: schema.to_vec(),
            prefix: prefix.to_vec(),
            fields: connect::fields(schema).map(Arc::new),
        });
        self.last = self.known.len() - 1;
        self.last
    }
}

fn utf8(bytes: &[u8]) -> Result<(), String> {
    simdutf8::basic::from_utf8(bytes).map(|_| ()).map_err(|_| "the record is not UTF-8".to_owned())
}

#[cold]
pub(super) fn malformed(m: Malformed) -> String {
    format!("the record is not JSON: {} at byte {}", m.what, m.at)
}

#[cold]
fn trouble(t: Trouble, what: &str) -> String {
    match t {
        Trouble::Malformed(m) => malformed(m),
        Trouble::NotAnObject => format!("{what} is not an object"),
        Trouble::Repeated => format!("{what} has a member twice"),
        Trouble::TooMany => format!("{what} has more members than a table has columns"),
    }
}

/// Where the members stand that tell the origin of a record.
#[derive(Debug, Default, Clone, Copy)]
struct Roles {
    layout: Option<u32>,
    ts_ms: Option<usize>,
    snapshot: Option<usize>,
    database: Option<usize>,
    table: Option<usize>,
    server: Option<usize>,
    file: Option<usize>,
    pos: Option<usize>,
    row: Option<usize>,
    op: Option<usize>,
    deleted: Option<usize>,
}

impl Roles {
    fn of_source(layout: &Layout) -> Roles {
        Roles {
            layout: Some(layout.id),
            ts_ms: layout.find("ts_ms"),
            snapshot: layout.find("snapshot"),
            database: layout.find("db"),
            table: layout.find("table"),
            server: layout.find("server_id"),
            file: layout.find("file"),
            pos: layout.find("pos"),
            row: layout.find("row"),
            op: None,
            deleted: None,
        }
    }

    fn of_flattened(layout: &Layout) -> Roles {
        let either =
            |name: &str| layout.find(&format!("__source_{name}")).or_else(|| layout.find(&format!("__{name}")));
        Roles {
            layout: Some(layout.id),
            ts_ms: either("ts_ms"),
            snapshot: either("snapshot"),
            database: either("db"),
            table: either("table"),
            server: either("server_id"),
            file: either("file"),
            pos: either("pos"),
            row: either("row"),
            op: layout.find("__op"),
            deleted: layout.find("__deleted"),
        }
    }
}

/// What a record does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Read,
    Create,
    Update,
    Delete,
    Truncate,
    /// nothing that concerns a table
    Nothing,
}

/// A record's value, taken apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed {
    pub(super) action: Action,
    /// layout of [`Reader::image`]; `None`: there is no image after the change
    pub(super) image: Option<usize>,
    /// the image before the change, not read yet
    pub(super) before: Option<Token>,
    /// index of the schema beside the payload
    pub(super) wrap: Option<usize>,
    pub(super) flattened: bool,
    pub(super) database: Option<Token>,
    pub(super) table: Option<Token>,
    pub(super) file: Token,
    pub(super) pos: u64,
    pub(super) row: u64,
    pub(super) server: u64,
    pub(super) ts_ms: i64,
    pub(super) snapshot: Snapshot,
}

/// Takes the records of one topic apart. Its buffers hold the tokens of the last record.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) images: Layouts,
    pub(super) keys: Layouts,
    sources: Layouts,
    pub(super) image: Vec<Token>,
    pub(super) before: Vec<Token>,
    pub(super) key: Vec<Token>,
    source: Vec<Token>,
    pub(super) wraps: Wraps,
    key_wraps: Wraps,
    roles: Roles,
    flattened: bool,
}

const NO_POSITION: &str = "has no binlog position (`source.file`, `source.pos`, `source.row`)";
const NO_FLAT_POSITION: &str = "has no binlog position; set `add.fields` of ExtractNewRecordState to \
     `op,table,source.ts_ms,source.file,source.pos,source.row`";

impl Reader {
    /// Takes a value apart. `None`: a tombstone with a schema.
    #[inline]
    pub(super) fn value(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, String> {
        let unwrapped = self.wraps.unwrap(bytes)?;
        let mut cursor = Cursor::starting_at(bytes, unwrapped.at);
        if cursor.peek() != b'{' {
            let value = cursor.value().map_err(malformed)?;
            self.finish(&mut cursor, &unwrapped)?;
            return match value.kind {
                Kind::Null if unwrapped.wrap.is_some() => Ok(None),
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
        self.finish(&mut cursor, &unwrapped)?;
        let mut parsed = parsed.ok_or("the record has no `source` block and no `op`: it is not a change of a row")?;
        parsed.wrap = unwrapped.wrap;
        Ok(Some(parsed))
    }

    fn finish(&self, cursor: &mut Cursor<'_>, unwrapped: &Unwrapped) -> Result<(), String> {
        if unwrapped.wrap.is_none() {
            return cursor.end().map_err(malformed);
        }
        if unwrapped.open {
            cursor.expect(b'}', "something follows the payload").map_err(malformed)?;
            cursor.end().map_err(malformed)?;
        }
        Ok(())
    }

    /// `None`: the object is not an envelope.
    #[inline]
    fn envelope(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<Parsed>, String> {
        let (mut before, mut image, mut source, mut op) = (None, None, None, None);
        cursor.expect(b'{', "an object is missing").map_err(malformed)?;
        let mut seen = 0u8;
        if !cursor.take(b'}') {
            loop {
                let name = cursor.key().map_err(malformed)?;
                let bit = match name.of(bytes) {
                    b"before" => {
                        before = Some(self.images.skip(cursor).map_err(malformed)?);
                        1
                    }
                    b"after" => {
                        if cursor.peek() == b'{' {
                            let read = self.images.read(bytes, cursor, &mut self.image);
                            image = Some(Some(read.map_err(|t| trouble(t, "`after`"))?));
                        } else {
                            let value = cursor.value().map_err(malformed)?;
                            image = Some(None);
                            if value.kind != Kind::Null {
                                return Err("`after` is not an object".to_owned());
                            }
                        }
                        2
                    }
                    b"source" => {
                        if cursor.peek() == b'{' {
                            let read = self.sources.read(bytes, cursor, &mut self.source);
                            source = Some(read.map_err(|t| trouble(t, "`source`"))?);
                        } else {
                            cursor.value().map_err(malformed)?;
                        }
                        4
                    }
                    b"op" => {
                        op = Some(cursor.value().map_err(malformed)?);
                        8
                    }
                    _ => {
                        cursor.value().map_err(malformed)?;
                        0
                    }
                };
                if seen & bit != 0 {
                    return Err("the envelope has a member twice".to_owned());
                }
                seen |= bit;
                if !cursor.more_members().map_err(malformed)? {
                    break;
                }
            }
        }
        let Some(op) = op else {
            return if source.is_some() && image.is_some() {
                Err("the record has no `op`".to_owned())
            } else {
                Ok(None)
            };
        };
        let Some(source) = source else {
            return if image.is_some() { Err("the record has no `source` block".to_owned()) } else { Ok(None) };
        };
        let Some(layout) = self.sources.get(source) else { return Ok(None) };
        if self.roles.layout != Some(layout.id) {
            self.roles = Roles::of_source(layout);
        }
        let action = match (op.kind, op.of(bytes)) {
            (Kind::Text, b"u") => Action::Update,
            (Kind::Text, b"c") => Action::Create,
            (Kind::Text, b"d") => Action::Delete,
            (Kind::Text, b"r") => Action::Read,
            (Kind::Text, b"t") => Action::Truncate,
            (Kind::Text, b"m") => Action::Nothing,
            _ => return Err("the record has an unknown `op`".to_owned()),
        };
        let before = match before {
            Some(token) if token.kind == Kind::Object => Some(token),
            Some(token) if token.kind != Kind::Null => return Err("`before` is not an object".to_owned()),
            _ => None,
        };
        let found = self.origin(bytes, &self.source, action, false)?;
        Ok(Some(Parsed { image: image.flatten(), before, ..found }))
    }

    /// `None`: the object has none of the fields that ExtractNewRecordState adds.
    fn flat(&mut self, bytes: &[u8], cursor: &mut Cursor<'_>) -> Result<Option<Parsed>, String> {
        let read = self.images.read(bytes, cursor, &mut self.image);
        let at = read.map_err(|t| trouble(t, "the record"))?;
        let Some(layout) = self.images.get(at) else { return Ok(None) };
        if self.roles.layout != Some(layout.id) || !self.flattened {
            self.roles = Roles::of_flattened(layout);
        }
        if self.roles.op.is_none() && self.roles.deleted.is_none() && self.roles.file.is_none() {
            self.roles = Roles::default();
            return Ok(None);
        }
        let member = |at: Option<usize>| at.and_then(|at| self.image.get(at)).filter(|t| t.kind != Kind::Null);
        let deleted = member(self.roles.deleted).is_some_and(|t| t.kind == Kind::True || t.of(bytes) == b"true");
        let action = match member(self.roles.op).map(|t| t.of(bytes)) {
            Some(b"t") => Action::Truncate,
            Some(b"d") => Action::Delete,
            Some(_) if deleted => Action::Delete,
            Some(b"u") => Action::Update,
            Some(b"c") => Action::Create,
            Some(b"r") => Action::Read,
            Some(_) => return Err("the record has an unknown `__op`".to_owned()),
            None if deleted => Action::Delete,
            None => Action::Update,
        };
        let found = self.origin(bytes, &self.image, action, true)?;
        Ok(Some(Parsed { image: Some(at), ..found }))
    }

    #[inline]
    fn origin(&self, bytes: &[u8], tokens: &[Token], action: Action, flattened: bool) -> Result<Parsed, String> {
        let missing = || format!("the record {}", if flattened { NO_FLAT_POSITION } else { NO_POSITION });
        let member = |at: Option<usize>| at.and_then(|at| tokens.get(at)).copied().filter(|t| t.kind != Kind::Null);
        let number =
            |at: Option<usize>| member(at).filter(|t| t.kind == Kind::Number).and_then(|t| scalar::int64(t.of(bytes)));
        let unsigned = |at: Option<usize>| number(at).and_then(|n| u64::try_from(n).ok());
        let file = member(self.roles.file).filter(|t| t.kind == Kind::Text).ok_or_else(missing)?;
        let snapshot = match member(self.roles.snapshot) {
            Some(token) if token.is_text() => match token.of(bytes) {
                b"false" => Snapshot::No,
                b"incremental" => Snapshot::Incremental,
                b"last" | b"last_in_data_collection" => Snapshot::Last,
                _ => Snapshot::Read,
            },
            Some(token) if token.kind == Kind::True => Snapshot::Read,
            Some(_) => Snapshot::No,
            None if action == Action::Read => Snapshot::Read,
            None => Snapshot::No,
        };
        Ok(Parsed {
            action,
            image: None,
            before: None,
            wrap: None,
            flattened,
            database: member(self.roles.database).filter(|t| t.kind == Kind::Text),
            table: member(self.roles.table).filter(|t| t.kind == Kind::Text),
            file,
            pos: unsigned(self.roles.pos).ok_or_else(missing)?,
            row: unsigned(self.roles.row).ok_or_else(missing)?,
            server: unsigned(self.roles.server).unwrap_or(0),
            ts_ms: number(self.roles.ts_ms).unwrap_or(0),
            snapshot,
        })
    }

    /// Reads the image before the change into [`Reader::before`].
    pub(super) fn read_before(&mut self, bytes: &[u8], token: Token) -> Result<usize, String> {
        let mut cursor = Cursor::starting_at(bytes, token.start as usize);
        self.images.read(bytes, &mut cursor, &mut self.before).map_err(|t| trouble(t, "`before`"))
    }

    /// Reads a key into [`Reader::key`]; answers its layout.
    #[inline]
    pub(super) fn read_key(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let of_key = |reason: String| reason.replacen("the record is", "the record's key is", 1);
        let unwrapped = self.key_wraps.unwrap(bytes).map_err(of_key)?;
        let mut cursor = Cursor::starting_at(bytes, unwrapped.at);
        if cursor.peek() == b'n' {
            cursor.value().map_err(malformed).map_err(of_key)?;
            self.finish(&mut cursor, &unwrapped).map_err(of_key)?;
            return Ok(None);
        }
        let at =
            self.keys.read(bytes, &mut cursor, &mut self.key).map_err(|t| of_key(trouble(t, "the record's key")))?;
        self.finish(&mut cursor, &unwrapped).map_err(of_key)?;
        Ok(Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(schema: &str, payload: &str) -> String {
        format!(r#"{{"schema":{schema},"payload":{payload}}}"#)
    }

    const PAYLOAD: &str =
        r#"{"before":null,"after":{"id":1},"source":{"file":"b.1","pos":4,"row":0,"snapshot":"false"},"op":"c"}"#;

    #[test]
    fn a_schema_is_read_once() {
        let mut reader = Reader::default();
        let schema = r#"{"type":"struct","fields":[{"type":"int32","field":"id"}]}"#;
        for _ in 0..3 {
            let parsed = reader.value(wrapped(schema, PAYLOAD).as_bytes()).unwrap().unwrap();
            assert_eq!((parsed.wrap, parsed.pos), (Some(0), 4));
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
        let mut reader = Reader::default();
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
        let mut reader = Reader::default();
        for n in 0..100 {
            reader.value(wrapped(&format!("{{\"n\":{n}}}"), PAYLOAD).as_bytes()).unwrap();
        }
        assert!(reader.wraps.known.len() <= WRAPS_MAX);
        let large = format!("{{\"n\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX));
        assert!(reader.value(wrapped(&large, PAYLOAD).as_bytes()).is_err());
    }
}
