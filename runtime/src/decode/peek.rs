//! Op and source time of a record, for Bronze's columns.
//!
//! Receives any bytes. Promises the two values where the record shows them, and nulls otherwise; never an error.

use super::json::{Cursor, Kind, Malformed};
use crate::change::Op;

/// Op and source time (milliseconds since 1970) of a record's value, where it shows them.
pub fn peek(value: &[u8]) -> (Option<Op>, Option<i64>) {
    let mut found = (None, None);
    if u32::try_from(value.len()).is_ok() && simdutf8::basic::from_utf8(value).is_ok() {
        // A record that is not JSON to its end shows nothing.
        if members(&mut Cursor::new(value), value, Within::Record, &mut found).is_err() {
            return (None, None);
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq)]
enum Within {
    Record,
    Payload,
    Source,
}

fn members(
    cursor: &mut Cursor<'_>,
    bytes: &[u8],
    within: Within,
    found: &mut (Option<Op>, Option<i64>),
) -> Result<(), Malformed> {
    if !cursor.take(b'{') || cursor.take(b'}') {
        return Ok(());
    }
    loop {
        let name = cursor.key()?.of(bytes);
        let inner = match (within, name) {
            (Within::Record, b"payload") => Some(Within::Payload),
            (Within::Record | Within::Payload, b"source") => Some(Within::Source),
            _ => None,
        };
        match inner {
            Some(inner) if cursor.peek() == b'{' => members(cursor, bytes, inner, found)?,
            _ => {
                let token = cursor.value()?;
                match (within, name) {
                    (Within::Record | Within::Payload, b"op" | b"__op") => found.0 = op(token.of(bytes)),
                    (Within::Source, b"ts_ms") | (Within::Record | Within::Payload, b"__source_ts_ms")
                        if token.kind == Kind::Number =>
                    {
                        found.1 = std::str::from_utf8(token.of(bytes)).ok().and_then(|n| n.parse().ok());
                    }
                    _ => {}
                }
            }
        }
        if !cursor.more_members()? {
            return Ok(());
        }
    }
}

fn op(letter: &[u8]) -> Option<Op> {
    match letter {
        b"r" => Some(Op::Read),
        b"c" => Some(Op::Create),
        b"u" => Some(Op::Update),
        b"d" => Some(Op::Delete),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_every_form_shows() {
        let bare = br#"{"before":{"op":"x"},"source":{"ts_ms":7,"db":"a"},"op":"u","ts_ms":9}"#;
        assert_eq!(peek(bare), (Some(Op::Update), Some(7)));
        let wrapped = br#"{"schema":{"op":"c"},"payload":{"op":"d","source":{"ts_ms":8}}}"#;
        assert_eq!(peek(wrapped), (Some(Op::Delete), Some(8)));
        let flat = br#"{"id":1,"__op":"r","__source_ts_ms":5}"#;
        assert_eq!(peek(flat), (Some(Op::Read), Some(5)));
        for bad in [&b"{\"op\":\"c\""[..], b"", b"[]", b"1", b"\xff", b"{\"op\":\"zz\"}", b"{}"] {
            assert_eq!(peek(bad), (None, None));
        }
    }
}
