//! The object that wraps a payload with its schema when `schemas.enable` is true.
//!
//! Receives the bytes of a value or a key. Promises where the payload begins, and the schema beside it: recognised by its
//! bytes and read once.

use std::sync::Arc;

use super::cursor::{Cursor, Malformed, Token, ValueKind};
use crate::decode::format::embedded_schema::{self, Field};

/// Most embedded schemas kept of one topic.
pub(crate) const WRAPS_MAX: usize = 16;
/// Largest embedded schema; one of 4,096 columns has about 1.5 MiB.
pub(crate) const SCHEMA_BYTES_MAX: usize = 4 << 20;

/// A schema that stands before payloads.
#[derive(Debug)]
pub(crate) struct Wrap {
    /// unlike that of any other, now or later
    pub(crate) id: u32,
    schema: Vec<u8>,
    /// everything before the payload; empty where the payload came first
    prefix: Vec<u8>,
    /// `None` where there is nothing to learn from it
    pub(crate) fields: Option<Arc<Vec<Field>>>,
}

/// The schemas that have stood beside the payloads of one topic.
#[derive(Debug, Default)]
pub(crate) struct Wraps {
    pub(crate) known: Vec<Wrap>,
    last: usize,
    next_id: u32,
}

/// Where the payload begins, and the schema beside it.
pub(crate) struct Unwrapped {
    pub(crate) at: usize,
    pub(crate) wrap: Option<usize>,
    /// the schema came first, so the wrapping object still has to end
    open: bool,
}

impl Unwrapped {
    /// Checks that nothing but the end of the wrapping object follows the payload that `cursor` has stepped over.
    pub(crate) fn finish(&self, cursor: &mut Cursor<'_>) -> Result<(), String> {
        if self.open {
            cursor.expect(b'}', "something follows the payload").map_err(Malformed::reason)?;
        }
        // where the payload came first, the whole object was stepped over to find it
        if self.wrap.is_none() || self.open { cursor.end().map_err(Malformed::reason) } else { Ok(()) }
    }
}

impl Wraps {
    pub(crate) fn get(&self, index: usize) -> Option<&Wrap> {
        self.known.get(index)
    }

    /// Checks the bytes as UTF-8 and finds the payload.
    pub(crate) fn unwrap(&mut self, bytes: &[u8]) -> Result<Unwrapped, String> {
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
        let first = cursor.key().map_err(Malformed::reason)?;
        let schema_first = match first.of(bytes) {
            b"schema" => true,
            b"payload" => false,
            _ => return Ok(bare),
        };
        let a = cursor.value().map_err(Malformed::reason)?;
        if !cursor.more_members().map_err(Malformed::reason)? {
            return Ok(bare);
        }
        let second = cursor.key().map_err(Malformed::reason)?;
        let (schema, payload) = match (schema_first, second.of(bytes)) {
            (true, b"payload") => {
                cursor.peek();
                let start = cursor.at();
                let payload = cursor.value().map_err(Malformed::reason)?;
                (a, Token { start: start as u32, ..payload })
            }
            (false, b"schema") => {
                // a token of text has no quotes, so the payload's start is looked up anew
                let mut again = Cursor::new(bytes);
                again.take(b'{');
                again.key().map_err(Malformed::reason)?;
                again.peek();
                (cursor.value().map_err(Malformed::reason)?, Token { start: again.at() as u32, ..a })
            }
            _ => return Ok(bare),
        };
        if cursor.more_members().map_err(Malformed::reason)?
            || !matches!(schema.kind, ValueKind::Object | ValueKind::Null)
        {
            return Ok(bare);
        }
        cursor.end().map_err(Malformed::reason)?;
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
            fields: embedded_schema::fields(schema).map(Arc::new),
        });
        self.last = self.known.len() - 1;
        self.last
    }
}

fn utf8(bytes: &[u8]) -> Result<(), String> {
    simdutf8::basic::from_utf8(bytes).map(|_| ()).map_err(|_| "the record is not UTF-8".to_owned())
}
