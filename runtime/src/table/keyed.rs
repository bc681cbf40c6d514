//! Keyed tables.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use super::{Compaction, Location, Outcome, Rewritten, Selection, Settings, TableSpec, Vacuumed};
use crate::change::{Changes, Floor};
use crate::error::Result;
use crate::record::{Positions, Ranges};

/// A table that holds, for every owner, the rows of the owner's latest change.
#[derive(Debug)]
pub struct KeyedTable {
    positions: Positions,
    fields: SchemaRef,
}

impl KeyedTable {
    /// Opens the table at `location`, or makes it by `spec`, and loads its index. An existing table keeps its own
    /// columns; see [`Self::evolve`].
    pub async fn open_or_create(location: Location, spec: TableSpec, settings: Settings) -> Result<Self> {
        let _ = (location, spec, settings);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Next offset of each Kafka partition that feeds the table.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Version of the Delta table that the index stands at.
    pub fn version(&self) -> u64 {
        0
    }

    /// The decoder's text, as last stored.
    pub fn epochs(&self) -> Option<&str> {
        None
    }

    /// Which rebuild of the table this is.
    pub fn generation(&self) -> u64 {
        0
    }

    /// The table's columns without `_seq`, `_source_ts` and `_owner`: what `output` of [`Self::flush`] must hold.
    pub fn schema(&self) -> &SchemaRef {
        &self.fields
    }

    /// The metadata id of the Delta table.
    pub fn id(&self) -> &str {
        ""
    }

    /// Phase one: the newest change of each owner, where it is strictly newer than what the table has and not below
    /// a floor. Rows at offsets below [`Self::positions`] are left out.
    pub fn select(&self, changes: &[Changes], floors: &[Floor]) -> Result<Selection> {
        let _ = (changes, floors);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Phase two: makes `output` the rows of the selected owners, and the end of `ranges` the positions, in one
    /// commit. `source_rows` names for each output row its row of [`Selection::upserts`]; `None`: one to one. An
    /// upsert that is not named leaves its owner without rows; one in `rejected` leaves the owner as it was.
    /// On an error nothing is known to be committed; calling again with the same arguments is right.
    #[allow(clippy::too_many_arguments)]
    pub async fn flush(
        &mut self,
        selection: &Selection,
        output: &RecordBatch,
        source_rows: Option<&[u32]>,
        rejected: &[u32],
        ranges: &Ranges,
        info: Map<String, Value>,
    ) -> Result<Outcome> {
        let _ = (selection, output, source_rows, rejected, ranges, info);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Text to store as `lode.epochs` with the next flush.
    pub fn set_epochs(&mut self, epochs: impl Into<String>) {
        let _ = epochs.into();
    }

    /// Brings the table to the columns `fields`: adds those it lacks and widens those that are wider there.
    /// `fills` holds an array of one value for an added column: what rows older than the column have.
    pub async fn evolve(&mut self, fields: SchemaRef, fills: &HashMap<String, ArrayRef>) -> Result<Outcome> {
        let _ = (fields, fills);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Files worth rewriting now; `None` when there are none. Cheap.
    pub fn plan_compaction(&self) -> Option<Compaction> {
        None
    }

    /// Commits what [`Compaction::rewrite`] wrote; false when it was overtaken and dropped.
    pub async fn commit_compaction(&mut self, rewritten: Rewritten) -> Result<bool> {
        let _ = rewritten;
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Writes a checkpoint when one is due; true when it wrote one.
    pub async fn checkpoint(&mut self) -> Result<bool> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Deletes the files that no retained version uses.
    pub async fn vacuum(&mut self) -> Result<Vacuumed> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Merges the owners files when there are many, leaving out what is older than the window.
    pub async fn merge_owners(&mut self) -> Result<bool> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// One round of compaction, checkpoint, owners merge and vacuum, in turn.
    pub async fn maintain(&mut self) -> Result<()> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// The address of the table.
    pub fn location(&self) -> Option<&Arc<Location>> {
        None
    }
}
