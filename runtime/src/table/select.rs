//! Phase one of a flush: which changes win.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::change::Op;
use crate::record::Positions;
use crate::schema::TableSchemaRef;
use crate::sequence::Sequence;

/// Where a change came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// topic
    pub topic: Arc<str>,
    /// Kafka partition
    pub partition: i32,
    /// Kafka offset
    pub offset: i64,
}

/// The winning changes of one batch, as [`super::KeyedTable::select`] found them.
#[derive(Debug)]
pub struct Selection {
    pub(super) upserts: RecordBatch,
    pub(super) schema: Option<TableSchemaRef>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) ops: Vec<Op>,
    pub(super) source_ts_ms: Vec<i64>,
    pub(super) origins: Vec<Origin>,
    pub(super) deletes: usize,
    pub(super) floor: Option<Sequence>,
    pub(super) positions: Positions,
}

impl Selection {
    /// The winning rows in the columns of the newest source schema among the changes: what a transform receives.
    pub fn upserts(&self) -> &RecordBatch {
        &self.upserts
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

    /// Where a row of [`Self::upserts`] came from; `None` past the end.
    pub fn origin(&self, row: usize) -> Option<&Origin> {
        self.origins.get(row)
    }

    /// How many owners lose their rows by a delete.
    pub fn deletes(&self) -> usize {
        self.deletes
    }

    /// Rows older than this go away.
    pub fn floor(&self) -> Option<Sequence> {
        self.floor
    }

    /// True when nothing changes but the positions.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty() && self.deletes == 0 && self.floor.is_none()
    }
}
