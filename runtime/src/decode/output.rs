//! What a decoder has produced and not handed on yet.
//!
//! Receives accepted rows, one open set of columns a table structure, because rows of two structures alternate where
//! partitions interleave. Promises [`Changes`] with all rows of a structure in record order. Never drops a row: what
//! cannot become an array comes back as bad records.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;

use super::bad_record::{BadRecord, shorten};
use super::format::json::cursor::Token;
use super::schema::structure::Structure;
use super::value::codec::{Codec, Misfit};
use super::value::column::Column;
use crate::model::change::{Changes, Floor, Op, Records};
use crate::model::sequence::Sequence;

/// A chunk larger than this is closed, so that no column outgrows 32-bit offsets.
const CHUNK_BYTES_MAX: usize = 1 << 30;
/// Rows that a new chunk has room for at first.
const ROWS_AT_FIRST: usize = 1024;

/// Where a row's record stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowMark {
    pub(crate) op: Op,
    pub(crate) sequence: Sequence,
    pub(crate) source_ts_ms: i64,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// Rows of one structure.
pub(crate) struct Chunk {
    structure: Arc<Structure>,
    topic: Arc<str>,
    columns: Vec<Column>,
    ops: Vec<Op>,
    sequences: Vec<Sequence>,
    source_ts_ms: Vec<i64>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl Chunk {
    fn new(structure: &Arc<Structure>, topic: &Arc<str>, rows: usize) -> Self {
        Chunk {
            structure: Arc::clone(structure),
            topic: Arc::clone(topic),
            columns: structure.types.iter().map(|column_type| Column::new(*column_type, rows)).collect(),
            ops: Vec::with_capacity(rows),
            sequences: Vec::with_capacity(rows),
            source_ts_ms: Vec::with_capacity(rows),
            partitions: Vec::with_capacity(rows),
            offsets: Vec::with_capacity(rows),
        }
    }

    pub(crate) fn rows(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn structure(&self) -> &Structure {
        &self.structure
    }

    /// Appends one value of the row in the making.
    #[inline]
    pub(crate) fn append(
        &mut self,
        column: usize,
        codec: Codec,
        token: Token,
        text: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), Misfit> {
        match self.columns.get_mut(column) {
            Some(column) => column.append(codec, token, text, scratch),
            None => Err(Misfit::Value("has no column")),
        }
    }

    pub(crate) fn append_null(&mut self, column: usize) {
        if let Some(column) = self.columns.get_mut(column) {
            column.append_null();
        }
    }

    /// The row in the making is whole.
    #[inline]
    pub(crate) fn seal(&mut self, mark: RowMark) {
        self.ops.push(mark.op);
        self.sequences.push(mark.sequence);
        self.source_ts_ms.push(mark.source_ts_ms);
        self.partitions.push(mark.partition);
        self.offsets.push(mark.offset);
    }

    /// Takes back everything from row `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.ops.truncate(rows);
        self.sequences.truncate(rows);
        self.source_ts_ms.truncate(rows);
        self.partitions.truncate(rows);
        self.offsets.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum::<usize>() + self.rows() * 37
    }

    fn finish(self) -> Result<Changes, Unmade> {
        let Chunk { structure, topic, columns, ops, sequences, source_ts_ms, partitions, offsets } = self;
        let rows = RecordBatchOptions::new().with_row_count(Some(ops.len()));
        let batch = columns
            .into_iter()
            .map(Column::finish)
            .collect::<Result<Vec<ArrayRef>, _>>()
            .and_then(|arrays| RecordBatch::try_new_with_options(Arc::clone(&structure.row_schema), arrays, &rows));
        match batch {
            Ok(rows) => Ok(Changes {
                schema: Arc::clone(&structure.schema),
                rows,
                ops,
                sequences,
                source_ts_ms,
                records: Some(Records { topic, partitions, offsets }),
            }),
            Err(error) => Err(Unmade { error, rows: partitions.into_iter().zip(offsets).collect() }),
        }
    }
}

/// Rows that did not become arrays, and where their records stand.
struct Unmade {
    error: ArrowError,
    rows: Vec<(i32, i64)>,
}

/// Rows, floors and bad records in record order, until [`Decoded::finish`] takes them.
#[derive(Default)]
pub struct Decoded {
    open: Vec<Chunk>,
    last: usize,
    closed: Vec<Chunk>,
    floors: Vec<Floor>,
    bad: Vec<BadRecord>,
    rows: usize,
    text_bytes: usize,
}

impl Decoded {
    /// Nothing yet.
    pub fn new() -> Self {
        Decoded::default()
    }

    /// Rows decoded and not taken.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of the records behind those rows: about what they hold in memory.
    pub fn bytes(&self) -> usize {
        self.text_bytes
    }

    /// True when [`Decoded::finish`] would give nothing.
    pub fn is_empty(&self) -> bool {
        self.rows == 0 && self.floors.is_empty() && self.bad.is_empty()
    }

    /// Takes everything out: changes (one a table structure, more when very large), floors and bad records.
    pub fn finish(&mut self) -> (Vec<Changes>, Vec<Floor>, Vec<BadRecord>) {
        let mut changes = Vec::new();
        let chunks = std::mem::take(&mut self.closed).into_iter().chain(std::mem::take(&mut self.open));
        for chunk in chunks {
            if chunk.rows() == 0 {
                continue;
            }
            let topic = Arc::clone(&chunk.topic);
            match chunk.finish() {
                Ok(done) => changes.push(done),
                Err(Unmade { error, rows }) => self.bad.extend(rows.into_iter().map(|(partition, offset)| BadRecord {
                    topic: Arc::clone(&topic),
                    partition,
                    offset,
                    reason: shorten(format!("the rows do not make a column: {error}")),
                })),
            }
        }
        self.last = 0;
        self.rows = 0;
        self.text_bytes = 0;
        (changes, std::mem::take(&mut self.floors), std::mem::take(&mut self.bad))
    }

    /// The open chunk of a structure.
    #[inline]
    pub(crate) fn chunk(&mut self, structure: &Arc<Structure>, topic: &Arc<str>) -> &mut Chunk {
        let hit = self.open.get(self.last).is_some_and(|c| Arc::ptr_eq(&c.structure, structure));
        if !hit {
            self.last = match self.open.iter().position(|c| Arc::ptr_eq(&c.structure, structure)) {
                Some(at) => at,
                None => {
                    self.open.push(Chunk::new(structure, topic, ROWS_AT_FIRST));
                    self.open.len() - 1
                }
            };
        }
        let at = self.last;
        &mut self.open[at]
    }

    /// Counts rows that were sealed for one record of `bytes` bytes.
    #[inline]
    pub(crate) fn count(&mut self, rows: usize, bytes: usize) {
        self.rows += rows;
        let before = self.text_bytes;
        self.text_bytes += bytes;
        // measured every 16 MiB of records, far below what could pass the limit unseen
        if before >> 24 != self.text_bytes >> 24 {
            let (closed, open) = std::mem::take(&mut self.open).into_iter().partition(|c| c.bytes() > CHUNK_BYTES_MAX);
            self.open = open;
            let closed: Vec<Chunk> = closed;
            self.closed.extend(closed);
            self.last = 0;
        }
    }

    /// Adds a floor that no record of the topic set.
    pub fn push_floor(&mut self, floor: Floor) {
        self.floors.push(floor);
    }

    pub(crate) fn push_bad(&mut self, bad: BadRecord) {
        self.bad.push(bad);
    }
}
