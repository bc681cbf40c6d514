//! Decoded changes of one source table, as columns.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::schema::TableSchemaRef;
use crate::sequence::Sequence;

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// snapshot read (`r`)
    Read,
    /// insert (`c`)
    Create,
    /// update (`u`)
    Update,
    /// delete (`d`)
    Delete,
}

impl Op {
    /// Debezium's letter.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Read => "r",
            Op::Create => "c",
            Op::Update => "u",
            Op::Delete => "d",
        }
    }
}

/// Decoded changes of one source table that share one schema and one topic. All vectors have one entry a row.
///
/// Keyed tables: a row is the image after the change; of a delete, only the key columns count (the others may be
/// null). Tables without a key: a row is the inserted or the deleted row image; an update is two rows of the same
/// offset and sequence, a `Delete` of the image before and an `Update` of the image after.
#[derive(Debug, Clone)]
pub struct Changes {
    /// the schema every row has
    pub schema: TableSchemaRef,
    /// topic the rows came from
    pub topic: Arc<str>,
    /// the fields of `schema`, all nullable
    pub rows: RecordBatch,
    /// what each change did
    pub ops: Vec<Op>,
    /// where it stands in the source's order
    pub sequences: Vec<Sequence>,
    /// the source's time in milliseconds since 1970; 0 where unknown
    pub source_ts_ms: Vec<i64>,
    /// Kafka partition
    pub partitions: Vec<i32>,
    /// Kafka offset
    pub offsets: Vec<i64>,
}

/// Every row older than `sequence` is gone: a TRUNCATE, or the end of a full re-snapshot.
#[derive(Debug, Clone)]
pub struct Floor {
    /// changes before this are void
    pub sequence: Sequence,
    /// where the record stands that said so
    pub topic: Arc<str>,
    /// Kafka partition
    pub partition: i32,
    /// Kafka offset
    pub offset: i64,
}
