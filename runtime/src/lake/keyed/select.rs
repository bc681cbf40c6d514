//! Phase one of a flush: which changes win.
//!
//! Receives decoded changes and floors, the table's positions and its index. Promises at most one change an owner:
//! the newest one, at an offset the table does not have yet, not below a floor, strictly newer than what the table
//! knows of the owner. Never touches the lake.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::interleave;
use arrow::datatypes::{Field, Schema};

use super::key::{Hasher, Owner};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::pick_column;
use crate::lake::log::schema::batch_of;
use crate::model::change::{Changes, Floor, Op, Records};
use crate::model::positions::{Origin, PartitionId, Positions};
use crate::model::schema::widen::{column_of, wider};
use crate::model::schema::{TableSchema, TableSchemaRef};
use crate::model::sequence::Sequence;

/// An owner that loses its rows.
#[derive(Debug, Clone)]
pub(in crate::lake) struct Gone {
    pub(in crate::lake) owner: Owner,
    pub(in crate::lake) seq: Sequence,
    pub(in crate::lake) origin: Option<Origin>,
}

/// The winning changes of one batch, as [`crate::lake::KeyedTable::select`] found them.
#[derive(Debug)]
pub struct Selection {
    pub(in crate::lake) upserts: RecordBatch,
    pub(in crate::lake) schema: Option<TableSchemaRef>,
    pub(in crate::lake) owners: Vec<Owner>,
    pub(in crate::lake) sequences: Vec<Sequence>,
    pub(in crate::lake) ops: Vec<Op>,
    pub(in crate::lake) source_ts_ms: Vec<i64>,
    pub(in crate::lake) origins: Vec<Option<Origin>>,
    pub(in crate::lake) gone: Vec<Gone>,
    pub(in crate::lake) floor: Option<(Sequence, Origin)>,
    pub(in crate::lake) positions: Positions,
    /// tables without a key: every change that this batch applies
    pub(in crate::lake) applied: Vec<(Op, Gone)>,
}

impl Selection {
    /// The winning rows in the columns of the newest source schema among the changes: what a transform receives.
    pub fn upserts(&self) -> &RecordBatch {
        &self.upserts
    }

    /// `rows` of `owners`, one to one, and owners that lose theirs.
    pub(in crate::lake) fn of_owners(
        owners: Vec<Owner>,
        rows: RecordBatch,
        gone: Vec<Owner>,
        positions: Positions,
    ) -> Self {
        let count = owners.len();
        let gone = gone.into_iter().map(|owner| Gone { owner, seq: Sequence::MIN, origin: None });
        Selection {
            upserts: rows,
            schema: None,
            owners,
            sequences: vec![Sequence::MIN; count],
            ops: vec![Op::Update; count],
            source_ts_ms: vec![0; count],
            origins: vec![None; count],
            gone: gone.collect(),
            floor: None,
            positions,
            applied: Vec::new(),
        }
    }

    /// The newest source schema among the changes; `None` when there were none.
    pub fn schema(&self) -> Option<&TableSchemaRef> {
        self.schema.as_ref()
    }

    /// Sequence of each row of [`Self::upserts`].
    pub fn sequences(&self) -> &[Sequence] {
        &self.sequences
    }

    /// What each row of [`Self::upserts`] did.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Source time of each row of [`Self::upserts`], milliseconds since 1970, 0 where unknown.
    pub fn source_ts_ms(&self) -> &[i64] {
        &self.source_ts_ms
    }

    /// Where a row of [`Self::upserts`] came from; `None` past the end, and of a row of no input.
    pub fn origin(&self, row: usize) -> Option<&Origin> {
        self.origins.get(row)?.as_ref()
    }

    /// How many owners lose their rows by a delete.
    pub fn deletes(&self) -> usize {
        self.gone.len()
    }

    /// Rows older than this go away.
    pub fn floor(&self) -> Option<Sequence> {
        self.floor.as_ref().map(|(seq, _)| *seq)
    }

    /// True when nothing changes but the positions.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty() && self.gone.is_empty() && self.floor.is_none() && self.applied.is_empty()
    }
}

/// A row of a batch of changes.
pub(in crate::lake) type At = (usize, usize);

/// What [`winners`] and the multiset give to [`gather`].
#[derive(Default)]
pub(in crate::lake) struct Chosen {
    pub(in crate::lake) upserts: Vec<(Owner, At)>,
    pub(in crate::lake) gone: Vec<(Owner, At)>,
    pub(in crate::lake) applied: Vec<(Owner, At)>,
}

/// The floor in force: the table's, or a newer one among `floors` that the table does not have yet.
pub(in crate::lake) fn newest_floor(
    floors: &[Floor],
    positions: &Positions,
    table: Sequence,
) -> Option<(Sequence, Origin)> {
    floors
        .iter()
        .filter(|floor| !positions.hold(&floor.origin) && floor.sequence > table)
        .max_by_key(|floor| floor.sequence)
        .map(|floor| (floor.sequence, floor.origin.clone()))
}

/// Calls `with` for every row that the table does not have yet and that no floor voids.
pub(in crate::lake) fn fresh(
    changes: &[Changes],
    positions: &Positions,
    floor: Sequence,
    mut owners: impl FnMut(&Changes) -> Result<Vec<Owner>>,
    mut with: impl FnMut(At, Owner, Op, Sequence),
) -> Result<()> {
    for (batch, change) in changes.iter().enumerate() {
        check_lengths(change)?;
        let owners = owners(change)?;
        let mut held = Held::of(change, positions);
        for (row, ((owner, op), seq)) in owners.iter().zip(&change.ops).zip(&change.sequences).enumerate() {
            if *seq >= floor && !held.has(row) {
                with((batch, row), *owner, *op, *seq);
            }
        }
    }
    Ok(())
}

fn check_lengths(change: &Changes) -> Result<()> {
    let rows = change.rows.num_rows();
    let places = change.records.as_ref().map_or((rows, rows), |of| (of.partitions.len(), of.offsets.len()));
    let lengths = [change.ops.len(), change.sequences.len(), change.source_ts_ms.len(), places.0, places.1];
    match lengths.iter().all(|len| *len == rows) {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Internal, "a batch of changes has columns of different lengths")),
    }
}

/// Which rows of a batch the table has by its positions.
struct Held<'a> {
    records: Option<&'a Records>,
    positions: &'a Positions,
    /// the partition of the row asked for last, and its position
    last: Option<(i32, i64)>,
}

impl<'a> Held<'a> {
    fn of(change: &'a Changes, positions: &'a Positions) -> Self {
        Held { records: change.records.as_ref(), positions, last: None }
    }

    fn has(&mut self, row: usize) -> bool {
        let Some(records) = self.records else { return false };
        let (Some(number), Some(offset)) = (records.partitions.get(row), records.offsets.get(row)) else {
            return false;
        };
        let next = match self.last {
            Some((known, next)) if known == *number => next,
            _ => {
                let id = PartitionId { topic: Arc::clone(&records.topic), partition: *number };
                let next = self.positions.get(id).unwrap_or(i64::MIN);
                self.last = Some((*number, next));
                next
            }
        };
        *offset < next
    }
}

/// The newest change of each owner, where it is newer than `known` of the owner.
pub(in crate::lake) fn winners(
    changes: &[Changes],
    positions: &Positions,
    floor: Sequence,
    hasher: Hasher,
    known: impl Fn(Owner) -> Option<Sequence>,
) -> Result<Chosen> {
    let rows = changes.iter().map(|c| c.rows.num_rows()).sum();
    let mut best: hashbrown::HashMap<Owner, (Sequence, Op, At)> = hashbrown::HashMap::with_capacity(rows);
    let owners = |change: &Changes| hasher.owners(&key_columns(change)?);
    fresh(changes, positions, floor, owners, |at, owner, op, seq| match best.entry(owner) {
        hashbrown::hash_map::Entry::Vacant(slot) => {
            if known(owner).is_none_or(|known| seq > known) {
                slot.insert((seq, op, at));
            }
        }
        hashbrown::hash_map::Entry::Occupied(mut slot) => {
            if seq > slot.get().0 {
                slot.insert((seq, op, at));
            }
        }
    })?;
    let mut chosen = Chosen::default();
    for (owner, (_, op, at)) in best {
        if op == Op::Delete {
            chosen.gone.push((owner, at));
        } else {
            chosen.upserts.push((owner, at));
        }
    }
    // hash order would differ from run to run
    chosen.upserts.sort_unstable_by_key(|(_, at)| *at);
    chosen.gone.sort_unstable_by_key(|(_, at)| *at);
    Ok(chosen)
}

pub(in crate::lake) fn key_columns(change: &Changes) -> Result<Vec<ArrayRef>> {
    change
        .schema
        .key
        .iter()
        .map(|at| {
            change
                .rows
                .columns()
                .get(*at)
                .cloned()
                .ok_or_else(|| Error::new(ErrorKind::Internal, "a key column of the changes is missing"))
        })
        .collect()
}

/// Collects the chosen rows into a selection.
pub(in crate::lake) fn gather(
    changes: &[Changes],
    chosen: Chosen,
    floor: Option<(Sequence, Origin)>,
    positions: Positions,
) -> Result<Selection> {
    let lost = || Error::new(ErrorKind::Internal, "a chosen change is missing");
    let mut selection = Selection {
        upserts: RecordBatch::new_empty(Arc::new(Schema::empty())),
        schema: newest_schema(changes),
        owners: Vec::with_capacity(chosen.upserts.len()),
        sequences: Vec::with_capacity(chosen.upserts.len()),
        ops: Vec::with_capacity(chosen.upserts.len()),
        source_ts_ms: Vec::with_capacity(chosen.upserts.len()),
        origins: Vec::with_capacity(chosen.upserts.len()),
        gone: Vec::with_capacity(chosen.gone.len()),
        floor,
        positions,
        applied: Vec::with_capacity(chosen.applied.len()),
    };
    let tell = |owner: Owner, (batch, row): At| -> Option<(Op, i64, Gone)> {
        let change = changes.get(batch)?;
        let origin = change.records.as_ref().and_then(|records| records.origin(row));
        let seq = *change.sequences.get(row)?;
        Some((*change.ops.get(row)?, *change.source_ts_ms.get(row)?, Gone { owner, seq, origin }))
    };
    for (owner, at) in &chosen.upserts {
        let (op, ts, of) = tell(*owner, *at).ok_or_else(lost)?;
        selection.owners.push(*owner);
        selection.sequences.push(of.seq);
        selection.ops.push(op);
        selection.source_ts_ms.push(ts);
        selection.origins.push(of.origin);
    }
    for (owner, at) in &chosen.gone {
        selection.gone.push(tell(*owner, *at).ok_or_else(lost)?.2);
    }
    for (owner, at) in &chosen.applied {
        let (op, _, of) = tell(*owner, *at).ok_or_else(lost)?;
        selection.applied.push((op, of));
    }
    if let Some(schema) = selection.schema.clone() {
        selection.upserts = rows_of(changes, &schema, &chosen.upserts)?;
    }
    Ok(selection)
}

/// The schema of the newest change.
fn newest_schema(changes: &[Changes]) -> Option<TableSchemaRef> {
    changes
        .iter()
        .filter_map(|change| Some((change.sequences.iter().max()?, &change.schema)))
        .max_by_key(|(seq, _)| **seq)
        .map(|(_, schema)| schema.clone())
}

/// `field`, nullable, in the widest type that any of `changes` has for it: the newest structure may be a narrower one.
fn widest_of(changes: &[Changes], field: &Field) -> Field {
    let types = changes.iter().filter_map(|change| Some(change.rows.column_by_name(field.name())?.data_type()));
    let widest = types.fold(field.data_type(), |known, own| wider(known, own).unwrap_or(known));
    field.clone().with_data_type(widest.clone()).with_nullable(true)
}

/// Rows of several batches in the columns of `schema`, each in the widest type that they have for it.
pub(in crate::lake) fn rows_of(changes: &[Changes], schema: &TableSchema, rows: &[(Owner, At)]) -> Result<RecordBatch> {
    let mut used: Vec<usize> = rows.iter().map(|(_, (batch, _))| *batch).collect();
    used.dedup();
    let fields: Vec<_> = schema.fields.fields().iter().map(|f| Arc::new(widest_of(changes, f))).collect();
    let mut columns = Vec::with_capacity(fields.len());
    let single = match used.as_slice() {
        [one] => changes.get(*one),
        _ => None,
    };
    let picks = single.map(|_| UInt32Array::from_iter_values(rows.iter().map(|(_, (_, row))| *row as u32)));
    let pairs: Vec<At> = rows.iter().map(|(_, at)| *at).collect();
    for (at, field) in fields.iter().enumerate() {
        let default = schema.defaults.get(at).and_then(Option::as_ref);
        let of = |change: &Changes| column_of(&change.rows, field, default);
        let column = match (single, &picks) {
            (Some(change), Some(picks)) => pick_column(&of(change)?, picks)?,
            _ => {
                let arrays = changes.iter().map(of).collect::<Result<Vec<_>>>()?;
                let arrays: Vec<&dyn arrow::array::Array> = arrays.iter().map(AsRef::as_ref).collect();
                interleave(&arrays, &pairs)
                    .map_err(|e| Error::new(ErrorKind::Internal, "changes cannot be joined").caused_by(e))?
            }
        };
        columns.push(column);
    }
    batch_of(Arc::new(Schema::new(fields)), columns, rows.len())
}
