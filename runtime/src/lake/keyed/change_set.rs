//! What a commit did to the owners of a table, for whoever derives from it.
//!
//! Receives what the commit held in memory. Promises the rows that owners got, and which owners have none after it; applied
//! in any order and any number of times, newest commit last, they give the table. Copies no row unless it is asked to.

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use roaring::RoaringBitmap;

use super::key::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::model::sequence::Sequence;

/// The owners that a commit gave other rows.
#[derive(Debug, Clone)]
pub struct ChangeSet {
    /// rows that were written
    pub(in crate::lake) written: RecordBatch,
    /// those of them that had lost to another commit before they were there
    pub(in crate::lake) outdated: RoaringBitmap,
    pub(in crate::lake) gone: Vec<Owner>,
    pub(in crate::lake) floor: Option<Sequence>,
}

impl ChangeSet {
    /// The rows that owners got, in the table's columns, its own ones included. An owner with a row here has no other.
    ///
    /// # Errors
    /// None that can be helped.
    pub fn rows(&self) -> Result<RecordBatch> {
        if self.outdated.is_empty() {
            return Ok(self.written.clone());
        }
        let keep: BooleanArray =
            (0..self.written.num_rows()).map(|row| Some(!self.outdated.contains(row as u32))).collect();
        filter_record_batch(&self.written, &keep)
            .map_err(|e| Error::new(ErrorKind::Internal, "the rows of a commit cannot be picked").caused_by(e))
    }

    /// The owners that a delete or an empty output left without rows; see [`crate::lake::KeyedTable::owners_of`].
    pub fn gone(&self) -> &[Owner] {
        &self.gone
    }

    /// Where a truncate was part of it: every owner whose rows are older has none any more.
    pub fn floor(&self) -> Option<Sequence> {
        self.floor
    }
}
