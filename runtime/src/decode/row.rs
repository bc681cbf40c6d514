//! One row written into an open chunk, or nothing of it.
//!
//! Receives the tokens of a row image and of a key with the plan that says how to read them. Promises that a row is in
//! the chunk whole or not at all, and that its key is that of its record. Never decides what becomes of a row that does
//! not fit.

use super::dialect::mysql::types::type_word;
use super::format::json::cursor::{Token, ValueKind};
use super::output::{Chunk, RowMark};
use super::plan::Plan;
use super::schema::structure::Structure;
use super::step::Stop;
use super::value::codec::{Codec, Misfit};
use super::value::column::Column;
use crate::model::change::Op;

/// The bytes that tokens point into, and a buffer to work in.
pub(crate) struct Texts<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) key: &'a [u8],
    pub(crate) scratch: &'a mut Vec<u8>,
}

/// Why a row cannot be written.
pub(crate) enum Unwritten {
    /// may be explained by a structure or a setting that is not known yet
    Misfit(usize, Codec, Misfit),
    Bad(&'static str),
}

impl Texts<'_> {
    fn again(&mut self) -> Texts<'_> {
        Texts { value: self.value, key: self.key, scratch: self.scratch }
    }
}

/// Appends the one row of a change to a table with a key. `image`: a delete may have none.
#[inline]
pub(crate) fn append_keyed(
    chunk: &mut Chunk,
    mark: RowMark,
    held: &impl Fn(String) -> Stop,
    plan: &Plan,
    key: &[Token],
    image: Option<&[Token]>,
    texts: Texts<'_>,
) -> Result<(), Stop> {
    if mark.op == Op::Delete {
        return write(chunk, mark, held, |chunk| delete(chunk, plan, key, image, texts));
    }
    write(chunk, mark, held, |chunk| upsert(chunk, plan, Some(key), image.unwrap_or_default(), texts))
}

/// Appends the rows of a change to a table without a key, all or none; answers how many. `before`: of an update, whose
/// row is another one before the change.
#[inline]
pub(crate) fn append_keyless(
    chunk: &mut Chunk,
    mark: RowMark,
    held: &impl Fn(String) -> Stop,
    plan: &Plan,
    before: Option<&[Token]>,
    image: &[Token],
    mut texts: Texts<'_>,
) -> Result<usize, Stop> {
    let Some(before) = before else {
        write(chunk, mark, held, |chunk| upsert(chunk, plan, None, image, texts))?;
        return Ok(1);
    };
    let rows = chunk.rows();
    let gone = RowMark { op: Op::Delete, ..mark };
    write(chunk, gone, held, |chunk| upsert(chunk, plan, None, before, texts.again()))?;
    if let Err(stop) = write(chunk, mark, held, |chunk| upsert(chunk, plan, None, image, texts)) {
        chunk.truncate(rows);
        return Err(stop);
    }
    Ok(2)
}

/// Writes one row, or nothing of it.
#[inline]
fn write(
    chunk: &mut Chunk,
    mark: RowMark,
    held: &impl Fn(String) -> Stop,
    row: impl FnOnce(&mut Chunk) -> Result<(), Unwritten>,
) -> Result<(), Stop> {
    let rows = chunk.rows();
    match row(chunk) {
        Ok(()) => {
            chunk.seal(mark);
            Ok(())
        }
        Err(unwritten) => {
            chunk.truncate(rows);
            Err(match unwritten {
                Unwritten::Bad(reason) => Stop::Bad(reason.to_owned()),
                Unwritten::Misfit(column, codec, misfit) => held(describe(chunk.structure(), column, codec, misfit)),
            })
        }
    }
}

#[cold]
fn describe(structure: &Structure, column: usize, codec: Codec, misfit: Misfit) -> String {
    let name: String = structure.names.get(column).map(|n| n.chars().take(64).collect()).unwrap_or_default();
    let word = structure.types.get(column).map_or("", |t| type_word(*t));
    match misfit {
        Misfit::Value(why) => match codec {
            Codec::DateTime(Some(_)) | Codec::Time(Some(_), _) => {
                format!(
                    "column `{name}` ({word}): a value {why}; if the connector's mode is another, set `time_precision`"
                )
            }
            Codec::Decimal { form: Some(_), .. } | Codec::BigDecimal { form: Some(_), .. } => {
                format!(
                    "column `{name}` ({word}): a value {why}; if the connector's mode is another, set `decimal_handling`"
                )
            }
            _ => format!("column `{name}` ({word}): a value {why}"),
        },
        Misfit::Unsettled(setting) => {
            format!("column `{name}` ({word}): no value has told yet how the connector writes it; set `{setting}`")
        }
    }
}

/// Appends the row image; the key's values must be those of the image.
#[inline]
fn upsert(
    chunk: &mut Chunk,
    plan: &Plan,
    key: Option<&[Token]>,
    image: &[Token],
    texts: Texts<'_>,
) -> Result<(), Unwritten> {
    let Texts { value, key: key_bytes, scratch } = texts;
    for step in &plan.keys {
        let Some(ours) = step.image.and_then(|at| image.get(at)) else {
            return Err(Unwritten::Bad("the row image lacks a column of the primary key"));
        };
        if ours.kind == ValueKind::Null {
            return Err(Unwritten::Bad("a column of the primary key is null"));
        }
        if let Some(theirs) = step.key.and_then(|at| key.and_then(|key| key.get(at))) {
            agree(plan, step.column, step.codec, (*ours, value), (*theirs, key_bytes))?;
        }
    }
    for (step, token) in plan.steps.iter().zip(image) {
        if let Some((column, codec)) = *step {
            chunk.append(column, codec, *token, value, scratch).map_err(|m| Unwritten::Misfit(column, codec, m))?;
        }
    }
    Ok(())
}

/// Appends the key's columns; the others are null.
fn delete(
    chunk: &mut Chunk,
    plan: &Plan,
    key: &[Token],
    image: Option<&[Token]>,
    texts: Texts<'_>,
) -> Result<(), Unwritten> {
    let Texts { value, key: key_bytes, scratch } = texts;
    for column in 0..plan.structure.types.len() {
        let Some(step) = plan.keys.iter().find(|k| k.column == column) else {
            chunk.append_null(column);
            continue;
        };
        let theirs = step.key.and_then(|at| key.get(at));
        let ours = step.image.and_then(|at| image.and_then(|image| image.get(at)));
        if let (Some(ours), Some(theirs)) = (ours, theirs) {
            agree(plan, column, step.codec, (*ours, value), (*theirs, key_bytes))?;
        }
        let (token, text) = match (theirs, ours) {
            (Some(theirs), _) => (*theirs, key_bytes),
            (None, Some(ours)) => (*ours, value),
            (None, None) => return Err(Unwritten::Bad("the record's key lacks a column of the primary key")),
        };
        if token.kind == ValueKind::Null {
            return Err(Unwritten::Bad("a column of the primary key is null"));
        }
        chunk.append(column, step.codec, token, text, scratch).map_err(|m| Unwritten::Misfit(column, step.codec, m))?;
    }
    Ok(())
}

/// Two ways to write a value of the key must mean the same.
#[inline]
fn agree(
    plan: &Plan,
    column: usize,
    codec: Codec,
    ours: (Token, &[u8]),
    theirs: (Token, &[u8]),
) -> Result<(), Unwritten> {
    if ours.0.kind == theirs.0.kind && ours.0.of(ours.1) == theirs.0.of(theirs.1) {
        return Ok(());
    }
    let column_type = plan.structure.types.get(column).copied();
    let read = |(token, text): (Token, &[u8])| {
        let mut one = Column::new(column_type?, 1);
        one.append(codec, token, text, &mut Vec::new()).ok()?;
        one.finish().ok()
    };
    match (read(ours), read(theirs)) {
        (Some(ours), Some(theirs)) if ours.to_data() == theirs.to_data() => Ok(()),
        _ => Err(Unwritten::Bad("the record holds a value of another row than its key")),
    }
}
