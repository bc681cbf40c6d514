//! Op and source time of a record, for Bronze's columns.
//!
//! Receives any bytes. Promises the two values where the record shows them, and nulls otherwise; never an error. Debezium's
//! envelopes end with both, so most records are read from their end: the row images, which are most of the bytes, are not
//! looked at.

use memchr::memrchr;

use super::cursor::{Cursor, Malformed, ValueKind};
use crate::model::change::Op;

/// Bytes before the members that follow `source`, in which its beginning is looked for.
const SOURCE_BYTES_MAX: usize = 4096;

/// Op and source time (milliseconds since 1970) of a record's value, where it shows them.
pub fn op_and_time(value: &[u8]) -> (Option<Op>, Option<i64>) {
    if let Some((op, ms)) = from_end(value) {
        return (Some(op), Some(ms));
    }
    let mut found = (None, None);
    if u32::try_from(value.len()).is_ok() && simdutf8::basic::from_utf8(value).is_ok() {
        // Of what is not JSON to its end nothing is taken.
        if members(&mut Cursor::new(value), value, Within::Record, &mut found).is_err() {
            return (None, None);
        }
    }
    found
}

/// Reads the last members of an envelope backwards to its `op`, then the source block before them. `None`: the record does
/// not end as Debezium writes it, which says nothing of what it shows. Quotes within JSON's text are escaped, so neither the
/// members nor the source block's name can be part of a value; whether all before them is JSON is not asked.
fn from_end(value: &[u8]) -> Option<(Op, i64)> {
    let mut rest = value.strip_suffix(b"}")?;
    if value.starts_with(br#"{"schema":"#) {
        rest = rest.strip_suffix(b"}")?;
    }
    let op = loop {
        let before = if let Some(before) = rest.strip_suffix(b"\"") {
            let (letter, before) = before.split_last()?;
            rest = before.strip_suffix(br#""op":""#)?;
            break op(std::slice::from_ref(letter))?;
        } else if let Some(before) = rest.strip_suffix(br#""transaction":null"#) {
            before
        } else {
            let digits = rest.iter().rev().take_while(|b| b.is_ascii_digit()).count();
            let before = rest.get(..rest.len() - digits).filter(|_| digits > 0)?;
            [br#""ts_ms":"#, br#""ts_us":"#, br#""ts_ns":"#].iter().find_map(|name| before.strip_suffix(*name))?
        };
        rest = before.strip_suffix(b",")?;
    };
    let first = rest.len().saturating_sub(SOURCE_BYTES_MAX);
    let mut brace = rest.len();
    loop {
        brace = first + memrchr(b'{', rest.get(first..brace)?)?;
        if rest.get(..brace)?.ends_with(br#""source":"#) {
            break;
        }
    }
    let mut cursor = Cursor::starting_at(rest, brace + 1);
    loop {
        let name = cursor.key().ok()?;
        let token = cursor.value().ok()?;
        if name.of(rest) == b"ts_ms" && token.kind == ValueKind::Number {
            return Some((op, std::str::from_utf8(token.of(rest)).ok()?.parse().ok()?));
        }
        if !cursor.more_members().ok()? {
            return None;
        }
    }
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
                        if token.kind == ValueKind::Number =>
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
        assert_eq!(op_and_time(bare), (Some(Op::Update), Some(7)));
        let wrapped = br#"{"schema":{"op":"c"},"payload":{"op":"d","source":{"ts_ms":8}}}"#;
        assert_eq!(op_and_time(wrapped), (Some(Op::Delete), Some(8)));
        for end in [
            r#""transaction":null,"op":"u","ts_ms":9,"ts_us":9000,"ts_ns":9000000}"#,
            r#""op":"u","ts_ms":9,"transaction":null}"#,
        ] {
            let bare = format!(
                r#"{{"before":null,"after":{{"note":"\"source\":{{","n":1}},"source":{{"db":"a","ts_ms":7,"x":null}},{end}"#
            );
            let wrapped = format!(r#"{{"schema":{{"op":"c"}},"payload":{bare}}}"#);
            for text in [&bare, &wrapped] {
                assert_eq!(from_end(text.as_bytes()), Some((Op::Update, 7)), "{text}");
                assert_eq!(op_and_time(text.as_bytes()), (Some(Op::Update), Some(7)));
                for cut in 0..text.len() {
                    assert_eq!(op_and_time(&text.as_bytes()[..cut]), (None, None), "{}", &text[..cut]);
                }
            }
        }
        let flat = br#"{"id":1,"__op":"r","__source_ts_ms":5}"#;
        assert_eq!(op_and_time(flat), (Some(Op::Read), Some(5)));
        let nested = br#"{"x":{"source":{"ts_ms":1},"op":"c"}}"#;
        assert_eq!(op_and_time(nested), (None, None));
        for bad in [&b"{\"op\":\"c\""[..], b"", b"[]", b"1", b"\xff", b"{\"op\":\"zz\"}", b"{}"] {
            assert_eq!(op_and_time(bad), (None, None));
        }
    }
}
