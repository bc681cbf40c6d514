//! Decoded changes of one source table, as columns.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema};

use super::positions::{Origin, PartitionId};
use super::schema::{Rename, TableSchema, TableSchemaRef};
use super::sequence::Sequence;
use crate::error::{Error, ErrorKind, Result};

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

/// Changes of one source table that share one schema and one topic. All vectors have one entry a row.
///
/// Keyed tables: a row is the image after the change; of a delete, only the key columns count (the others may be
/// null). Tables without a key: a row is the inserted or the deleted row image; an update is two rows of the same
/// offset and sequence, a `Delete` of the image before and an `Update` of the image after.
#[derive(Debug, Clone)]
pub struct Changes {
    /// the schema every row has
    pub schema: TableSchemaRef,
    /// the fields of `schema`, all nullable
    pub rows: RecordBatch,
    /// what each change did
    pub ops: Vec<Op>,
    /// where it stands in the source's order
    pub sequences: Vec<Sequence>,
    /// the source's time in milliseconds since 1970; 0 where unknown
    pub source_ts_ms: Vec<i64>,
    /// the records that the rows came from; `None`: rows of no input, of which no position says that they are taken in
    pub records: Option<Records>,
}

/// Places of rows in one Kafka topic. Both vectors have one entry a row.
#[derive(Debug, Clone)]
pub struct Records {
    /// the topic
    pub topic: Arc<str>,
    /// Kafka partition
    pub partitions: Vec<i32>,
    /// Kafka offset
    pub offsets: Vec<i64>,
}

impl Records {
    /// Where a row came from; `None` past the end.
    pub fn origin(&self, row: usize) -> Option<Origin> {
        let partition = PartitionId { topic: Arc::clone(&self.topic), partition: *self.partitions.get(row)? };
        Some(Origin { input: partition.into(), offset: *self.offsets.get(row)? })
    }
}

impl Changes {
    /// The same changes under the names that `renames`, in their order, gave to the columns since. Copies no value.
    ///
    /// # Errors
    /// `Internal`, when a renaming takes a key column's name away.
    pub fn carried(mut self, renames: &[Arc<Rename>]) -> Result<Self> {
        for rename in renames {
            if rename.mark > self.schema.renamed {
                self = self.carried_by(rename)?;
            }
        }
        Ok(self)
    }

    fn carried_by(self, rename: &Rename) -> Result<Self> {
        let lost = || Error::new(ErrorKind::Internal, "changes cannot be carried under new column names");
        let old = &self.schema;
        let fields = rename.carry(old.fields.fields());
        let kept = |at: usize| fields.iter().take(at).flatten().count();
        let key = old.key.iter().map(|&at| fields.get(at)?.as_ref().map(|_| kept(at))).collect::<Option<Vec<_>>>();
        let keep = || fields.iter().map(Option::is_some);
        let schema = TableSchema {
            database: old.database.clone(),
            table: old.table.clone(),
            key: key.ok_or_else(lost)?,
            defaults: old.defaults.iter().zip(keep()).filter(|(_, keep)| *keep).map(|(d, _)| d.clone()).collect(),
            renamed: rename.mark,
            fields: Arc::new(Schema::new(fields.iter().flatten().cloned().collect::<Vec<_>>())),
        };
        let open: Vec<Field> = fields.iter().flatten().map(|f| f.as_ref().clone().with_nullable(true)).collect();
        let columns = self.rows.columns().iter().zip(keep()).filter(|(_, keep)| *keep).map(|(c, _)| Arc::clone(c));
        let rows = RecordBatch::try_new_with_options(
            Arc::new(Schema::new(open)),
            columns.collect(),
            &RecordBatchOptions::new().with_row_count(Some(self.rows.num_rows())),
        )
        .map_err(|e| lost().caused_by(e))?;
        Ok(Changes { schema: Arc::new(schema), rows, ..self })
    }
}

/// Every row older than `sequence` is gone: a TRUNCATE, or the end of a full re-snapshot.
#[derive(Debug, Clone)]
pub struct Floor {
    /// changes before this are void
    pub sequence: Sequence,
    /// where the record stands that said so
    pub origin: Origin,
}
