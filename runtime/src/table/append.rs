//! Bronze.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::stream::BoxStream;
use serde_json::{Map, Value};

use super::{Location, Outcome, Settings};
use crate::change::Op;
use crate::error::Result;
use crate::record::{Block, PartitionId, Positions, Ranges};

/// The columns of every Bronze table.
pub fn bronze_schema() -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", utc.clone(), true),
        Field::new("_key", DataType::Utf8, true),
        Field::new("_key_bytes", DataType::Binary, true),
        Field::new("_value", DataType::Utf8, true),
        Field::new("_value_bytes", DataType::Binary, true),
        Field::new("_headers", DataType::Utf8, true),
        Field::new("_op", DataType::Utf8, true),
        Field::new("_source_ts", utc.clone(), true),
        Field::new("_ingest_ts", utc, false),
        Field::new("_ingest_date", DataType::Date32, false),
    ]))
}

/// Builds Bronze rows from records.
#[derive(Debug)]
pub struct BronzeRows {}

impl BronzeRows {
    /// An empty builder.
    pub fn new() -> Self {
        BronzeRows {}
    }

    /// Adds rows `from..` of `block`. `meta(row)` gives op and source time (ms) where they are known.
    pub fn push(&mut self, block: &Block, from: usize, meta: impl Fn(usize) -> (Option<Op>, Option<i64>)) {
        let _ = (block, from, meta(0));
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        0
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        true
    }

    /// Approximate bytes held.
    pub fn bytes(&self) -> usize {
        0
    }

    /// The rows as one batch of [`bronze_schema`], all with `ingest_ts_ms` as the time of ingestion; empties the builder.
    pub fn finish(&mut self, ingest_ts_ms: i64) -> Result<RecordBatch> {
        let _ = ingest_ts_ms;
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }
}

impl Default for BronzeRows {
    fn default() -> Self {
        BronzeRows::new()
    }
}

/// A table of records as they came, append only, partitioned by day of ingestion.
#[derive(Debug)]
pub struct BronzeTable {
    positions: Positions,
}

impl BronzeTable {
    /// Opens the table at `location`, or makes it.
    pub async fn open_or_create(location: Location, name: &str, settings: Settings) -> Result<Self> {
        let _ = (location, name, settings);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Next offset of each Kafka partition that the table holds.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Appends rows of [`bronze_schema`]. Rows below the stored positions are left out.
    pub async fn append(&mut self, batches: Vec<RecordBatch>, ranges: &Ranges, info: Map<String, Value>) -> Result<Outcome> {
        let _ = (batches, ranges, info);
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Every record from `from` on (a partition that is absent: from its start) up to the committed positions, as blocks in offset order within each
    /// Kafka partition. Reads the log anew; holds at most one file's row group and one block in memory a Kafka partition.
    pub async fn read(&self, from: &Positions) -> Result<BoxStream<'static, Result<Block>>> {
        let _ = from;
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }

    /// Kafka partitions known.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionId> {
        self.positions.keys()
    }
}
