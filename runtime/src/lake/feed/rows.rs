//! The changes of one flush that a feed lacks, the rows they become in it, and which of them the table takes.
//!
//! Receives what [`crate::lake::ChangesTable::select`] picked, and the transform's answer to it. Promises a row for every change
//! that was not rejected, and for the table the newest of these of each owner: what the fold of the feed gives. Never
//! touches the lake.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder, UInt32Array, new_null_array,
};
use arrow::compute::{concat, filter_record_batch, take_record_batch};
use arrow::datatypes::{FieldRef, Schema};

use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::pick_column;
use crate::lake::keyed::key::Owner;
use crate::lake::keyed::replace::OwnerRows;
use crate::lake::keyed::select::{Gone, Selection};
use crate::lake::keyed::{KeyedTable, Owners};
use crate::lake::log::schema::{SEQ_TYPE, TableSchema, batch_of, utc};
use crate::lake::{SEQ, SOURCE_TS};
use crate::model::change::Op;
use crate::model::positions::Origin;
use crate::model::schema::widen::{align, widen};
use crate::model::sequence::Sequence;

/// Column with what a change did.
pub const CHANGE: &str = "_change";
/// Column with the Kafka partition of a change.
pub(in crate::lake) const PARTITION: &str = "_partition";
/// Column with the Kafka offset of a change.
pub(in crate::lake) const OFFSET: &str = "_offset";

/// Word of [`CHANGE`] for a row as it stood.
pub(in crate::lake) const SNAPSHOT: &str = "snapshot";
const DELETE: &str = "delete";
const TRUNCATE: &str = "truncate";

/// The changes of a flush that the feed lacks.
#[derive(Debug)]
pub struct FeedSelection {
    pub(in crate::lake) all: Selection,
    /// by key column, the keys of the deletes of `all`
    pub(in crate::lake) gone_key: Vec<ArrayRef>,
    /// source times of the deletes of `all`, as in [`Selection::source_ts_ms`]
    pub(in crate::lake) gone_ts: Vec<i64>,
    pub(in crate::lake) truncates: Vec<(Sequence, Origin)>,
}

/// What a table takes of the changes that its feed lacks: see [`FeedSelection::newest`].
#[derive(Debug)]
pub struct NewestRows {
    /// the winning changes; without their source columns
    pub selection: Selection,
    /// the rows they became
    pub output: RecordBatch,
    /// for each of these its row of the selection
    pub source_rows: Vec<u32>,
}

impl NewestRows {
    /// What the table is to commit.
    pub fn rows(&self) -> OwnerRows<'_> {
        OwnerRows {
            selection: &self.selection,
            output: &self.output,
            source_rows: Some(&self.source_rows),
            rejected: &[],
        }
    }
}

/// The newest change of an owner.
#[derive(Clone, Copy)]
enum Newest {
    Upsert(usize),
    Delete(usize),
}

impl FeedSelection {
    /// Every change, a row each in [`Selection::upserts`] unless it is a delete: what a transform receives.
    pub fn all(&self) -> &Selection {
        &self.all
    }

    /// Of each owner the newest change that was not rejected, where it is newer than what `table` has: what
    /// [`KeyedTable::replace`] is to commit. The rest is the transform's answer to [`Self::all`].
    pub fn newest(
        self,
        table: &KeyedTable,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
    ) -> Result<NewestRows> {
        let Owners::Keyed(index) = &table.owners else {
            return Err(Error::new(ErrorKind::Internal, "a table without a key has no feed"));
        };
        let all = self.all;
        let floor = all.floor().unwrap_or(Sequence::MIN).max(table.floor);
        let mut newest: hashbrown::HashMap<Owner, (Sequence, Newest)> =
            hashbrown::HashMap::with_capacity(all.owners.len() + all.gone.len());
        let mut refused = vec![false; all.owners.len()];
        for row in rejected {
            if let Some(mark) = refused.get_mut(*row as usize) {
                *mark = true;
            }
        }
        let upserts = all.owners.iter().zip(&all.sequences).zip(&refused).enumerate();
        let upserts = upserts.filter(|(_, (_, refused))| !**refused);
        let upserts = upserts.map(|(at, ((owner, seq), _))| (*owner, *seq, Newest::Upsert(at)));
        let deletes = all.gone.iter().enumerate().map(|(at, gone)| (gone.owner, gone.seq, Newest::Delete(at)));
        for (owner, seq, change) in upserts.chain(deletes) {
            let known = newest.get(&owner).map(|(seq, _)| *seq).or_else(|| index.sequence(owner));
            if seq >= floor && known.is_none_or(|known| seq > known) {
                newest.insert(owner, (seq, change));
            }
        }
        let (mut won, mut gone): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
        for (_, change) in newest.into_values() {
            match change {
                Newest::Upsert(at) => won.push(at),
                Newest::Delete(at) => gone.push(at),
            }
        }
        // hash order would differ from run to run
        won.sort_unstable();
        gone.sort_unstable();
        let mut place: Vec<Option<u32>> = vec![None; all.owners.len()];
        for (to, at) in won.iter().enumerate() {
            if let Some(place) = place.get_mut(*at) {
                *place = u32::try_from(to).ok();
            }
        }
        let of = |row: usize| -> Option<u32> {
            let source = source_rows.map_or(Some(row), |rows| rows.get(row).map(|s| *s as usize))?;
            place.get(source).copied().flatten()
        };
        let kept: Vec<Option<u32>> = (0..output.num_rows()).map(of).collect();
        let mask: BooleanArray = kept.iter().map(|row| Some(row.is_some())).collect();
        let output = filter_record_batch(output, &mask)
            .map_err(|e| Error::new(ErrorKind::Internal, "output rows cannot be filtered").caused_by(e))?;
        Ok(NewestRows {
            selection: narrowed(all, &won, &gone),
            output,
            source_rows: kept.into_iter().flatten().collect(),
        })
    }

    /// Upserts from which the transform made no row and which it did not reject.
    fn rowless(&self, output: &RecordBatch, source_rows: Option<&[u32]>, rejected: &[u32]) -> Vec<u32> {
        let mut has = vec![false; self.all.owners.len()];
        let one_to_one = 0..if source_rows.is_none() { output.num_rows() as u32 } else { 0 };
        for row in source_rows.unwrap_or_default().iter().copied().chain(rejected.iter().copied()).chain(one_to_one) {
            if let Some(mark) = has.get_mut(row as usize) {
                *mark = true;
            }
        }
        has.iter().enumerate().filter(|(_, has)| !**has).map(|(row, _)| row as u32).collect()
    }

    /// The rows of a feed with the columns of `schema` and the key `key`, in the order of their sequences. The rest is
    /// the transform's answer to [`Self::all`].
    pub(in crate::lake) fn rows(
        &self,
        schema: &TableSchema,
        key: &[String],
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
    ) -> Result<RecordBatch> {
        let all = &self.all;
        let rowless = self.rowless(output, source_rows, rejected);
        let mut marks = Marks::with_capacity(output.num_rows() + rowless.len() + all.gone.len() + self.truncates.len());
        for row in 0..output.num_rows() {
            let source = source_rows.map_or(Some(row), |rows| rows.get(row).map(|s| *s as usize));
            let at = source.ok_or_else(|| Error::new(ErrorKind::Internal, "an output row has no source row"))?;
            marks.push(all, at, None);
        }
        for row in &rowless {
            marks.push(all, *row as usize, Some(DELETE));
        }
        for (gone, ts) in all.gone.iter().zip(&self.gone_ts) {
            marks.note(DELETE, gone.seq, *ts, gone.origin.as_ref());
        }
        for (seq, origin) in &self.truncates {
            marks.note(TRUNCATE, *seq, 0, Some(origin));
        }
        let output = align(output, &schema.data)?;
        let rowless = UInt32Array::from(rowless);
        let rows = marks.len();
        let order = marks.order();
        let own = marks.finish();
        let columns = schema
            .all
            .fields()
            .iter()
            .map(|field| match own.get(field.name().as_str()) {
                Some(column) => Ok(column.clone()),
                None => self.values(field, key.iter().position(|name| name == field.name()), &output, &rowless),
            })
            .collect::<Result<Vec<_>>>()?;
        let batch = batch_of(schema.all.clone(), columns, rows)?;
        take_record_batch(&batch, &order)
            .map_err(|e| Error::new(ErrorKind::Internal, "rows of a feed cannot be put in order").caused_by(e))
    }

    /// The values of a column of the table, of the rows of `output`, the upserts `rowless`, the deletes and the truncates.
    /// `key_at`: the column's place in the key, where it is of it; nothing else is known of a row that is gone.
    fn values(
        &self,
        field: &FieldRef,
        key_at: Option<usize>,
        output: &RecordBatch,
        rowless: &UInt32Array,
    ) -> Result<ArrayRef> {
        let all = &self.all;
        let null = |rows: usize| new_null_array(field.data_type(), rows);
        let source_key = all.schema().map(|schema| schema.key.as_slice()).unwrap_or_default();
        let rowless = match key_at.and_then(|at| all.upserts.columns().get(*source_key.get(at)?)) {
            Some(column) => widen(&pick_column(column, rowless)?, field.data_type(), field.name())?,
            None => null(rowless.len()),
        };
        let gone = match key_at.and_then(|at| self.gone_key.get(at)) {
            Some(column) => widen(column, field.data_type(), field.name())?,
            None => null(all.gone.len()),
        };
        let output = output
            .column_by_name(field.name())
            .ok_or_else(|| Error::new(ErrorKind::Internal, format!("column `{}` is missing", field.name())))?;
        let parts = [output.clone(), rowless, gone, null(self.truncates.len())];
        concat(&parts.each_ref().map(AsRef::as_ref))
            .map_err(|e| Error::new(ErrorKind::Internal, "rows of a feed cannot be joined").caused_by(e))
    }
}

/// Of `all`, the upserts `won` and the deletes `gone`.
fn narrowed(all: Selection, won: &[usize], gone: &[usize]) -> Selection {
    fn pick<T: Clone>(of: &[T], at: &[usize]) -> Vec<T> {
        at.iter().filter_map(|at| of.get(*at).cloned()).collect()
    }
    let gone: Vec<Gone> = pick(&all.gone, gone);
    Selection {
        upserts: RecordBatch::new_empty(Arc::new(Schema::empty())),
        owners: pick(&all.owners, won),
        sequences: pick(&all.sequences, won),
        ops: pick(&all.ops, won),
        source_ts_ms: pick(&all.source_ts_ms, won),
        origins: pick(&all.origins, won),
        gone,
        ..all
    }
}

/// The feed's own columns of some rows.
struct Marks {
    changes: StringBuilder,
    sequences: Vec<Sequence>,
    source_ts: TimestampMicrosecondBuilder,
    partitions: Int32Builder,
    offsets: Int64Builder,
}

impl Marks {
    fn with_capacity(rows: usize) -> Self {
        Marks {
            changes: StringBuilder::with_capacity(rows, rows * 6),
            sequences: Vec::with_capacity(rows),
            source_ts: TimestampMicrosecondBuilder::with_capacity(rows).with_data_type(utc()),
            partitions: Int32Builder::with_capacity(rows),
            offsets: Int64Builder::with_capacity(rows),
        }
    }

    fn len(&self) -> usize {
        self.sequences.len()
    }

    /// A row from upsert `at`; `instead`: what it did, where that is not what the source says.
    fn push(&mut self, all: &Selection, at: usize, instead: Option<&str>) {
        let (Some(op), Some(seq)) = (all.ops.get(at), all.sequences.get(at)) else { return };
        let word = instead.unwrap_or(match op {
            Op::Read => SNAPSHOT,
            Op::Create => "insert",
            Op::Update => "update",
            Op::Delete => DELETE,
        });
        self.note(word, *seq, all.source_ts_ms.get(at).copied().unwrap_or(0), all.origin(at));
    }

    fn note(&mut self, word: &str, seq: Sequence, ms: i64, origin: Option<&Origin>) {
        self.changes.append_value(word);
        self.sequences.push(seq);
        self.source_ts.append_option(if ms == 0 { None } else { ms.checked_mul(1000) });
        let partition = origin.and_then(|origin| origin.input.partition());
        self.partitions.append_option(partition.map(|id| id.partition));
        self.offsets.append_option(origin.map(|origin| origin.offset));
    }

    /// Row numbers, older changes first.
    fn order(&self) -> UInt32Array {
        let mut order: Vec<u32> = (0..self.sequences.len() as u32).collect();
        order.sort_by_key(|row| self.sequences.get(*row as usize));
        UInt32Array::from(order)
    }

    fn finish(mut self) -> HashMap<&'static str, ArrayRef> {
        let mut seq = Decimal128Builder::with_capacity(self.sequences.len()).with_data_type(SEQ_TYPE);
        for sequence in &self.sequences {
            seq.append_value(i128::try_from(sequence.0).unwrap_or(i128::MAX));
        }
        HashMap::from([
            (CHANGE, Arc::new(self.changes.finish()) as ArrayRef),
            (SEQ, Arc::new(seq.finish())),
            (SOURCE_TS, Arc::new(self.source_ts.finish())),
            (PARTITION, Arc::new(self.partitions.finish())),
            (OFFSET, Arc::new(self.offsets.finish())),
        ])
    }
}
