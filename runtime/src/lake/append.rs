//! Bronze: every record of a topic as it came.
//!
//! Receives records as rows of [`bronze_schema`] with their Kafka ranges, and encodes them as they come. Promises each
//! offset exactly once, in the commit that moves the positions; and gives them back as blocks in offset order from any
//! position on, for a table that is behind. Never looks into a value.
mod read_back;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryBuilder, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use deltalake::kernel::Add;
use serde_json::{Map, Value, json};

use super::file::{Codec, DataFile, Encoded, PartitionValues, pick, reread, split};
use super::log::commit::{Attempts, Committer, Put, add_action};
use super::log::schema::{TableSchema, utc};
use super::{Location, Outcome, Settings, log};
use crate::error::{Error, ErrorKind, Result};
use crate::model::change::Op;
use crate::model::positions::{PartitionId, Positions, Range, Ranges};
use crate::model::record::Block;
use crate::model::schema::widen::align;

const MS_PER_DAY: i64 = 86_400_000;

/// The columns of every Bronze table. A key or value that is not UTF-8 stands in its `_bytes` column instead.
pub fn bronze_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_timestamp", utc(), true),
        Field::new("_key", DataType::Utf8, true),
        Field::new("_key_bytes", DataType::Binary, true),
        Field::new("_value", DataType::Utf8, true),
        Field::new("_value_bytes", DataType::Binary, true),
        Field::new("_headers", DataType::Utf8, true),
        Field::new("_op", DataType::Utf8, true),
        Field::new("_source_ts", utc(), true),
        Field::new("_ingest_ts", utc(), false),
        Field::new("_ingest_date", DataType::Date32, false),
    ]))
}

/// The values of a block of this size or more, with its keys and headers, are taken as they lie in it where they come first
/// and all are text.
const SHARED_BYTES_MIN: usize = 256 << 10;

/// Builds Bronze rows from records.
#[derive(Debug, Default)]
pub struct BronzeRows {
    topics: StringBuilder,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: StringBuilder,
    key_bytes: BinaryBuilder,
    /// the values, where they are those of one block; `values` is empty then
    shared: Option<StringArray>,
    values: StringBuilder,
    value_bytes: BinaryBuilder,
    headers: StringBuilder,
    ops: StringBuilder,
    source_ts: TimestampMicrosecondBuilder,
    bytes: usize,
}

impl BronzeRows {
    /// An empty builder.
    pub fn new() -> Self {
        BronzeRows::default()
    }

    /// Adds rows `from..` of `block`. `meta(row)` gives op and source time (ms) of a row, where they are known.
    pub fn push(&mut self, block: &Arc<Block>, from: usize, mut meta: impl FnMut(usize) -> (Option<Op>, Option<i64>)) {
        if let Some(shared) = self.shared.take() {
            shared.iter().for_each(|value| self.values.append_option(value));
        }
        if self.is_empty() && from == 0 && block.bytes() >= SHARED_BYTES_MIN {
            self.shared = share(block);
        }
        for row in from..block.len() {
            let Some(record) = block.get(row) else { return };
            let (op, source_ms) = meta(row);
            self.topics.append_value(&block.partition().topic);
            self.partitions.push(block.partition().partition);
            self.offsets.push(record.offset);
            self.timestamps.push(record.timestamp_ms.saturating_mul(1000));
            text_or_bytes(record.key, &mut self.keys, &mut self.key_bytes);
            if self.shared.is_none() {
                text_or_bytes(record.value, &mut self.values, &mut self.value_bytes);
            } else {
                self.value_bytes.append_null();
            }
            let headers = (!record.headers.is_empty()).then(|| String::from_utf8_lossy(record.headers));
            self.headers.append_option(headers);
            self.ops.append_option(op.map(Op::letter));
            self.source_ts.append_option(source_ms.and_then(|ms| ms.checked_mul(1000)));
            self.bytes +=
                record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + record.headers.len() + 64;
        }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Bytes held, about. A batch must stay below 2 GiB of text: finish well before.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty builder with room for rows like those of `batch`, of [`bronze_schema`], and some more; not for their values,
    /// which where there are many are not copied.
    pub fn like(batch: &RecordBatch) -> Self {
        let count = batch.num_rows() + batch.num_rows() / 8;
        let text = |name: &str| {
            let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            let bytes = column.map_or(0, |c| c.value_data().len());
            StringBuilder::with_capacity(count, bytes + bytes / 8)
        };
        BronzeRows {
            topics: text("_topic"),
            partitions: Vec::with_capacity(count),
            offsets: Vec::with_capacity(count),
            timestamps: Vec::with_capacity(count),
            keys: text("_key"),
            ..BronzeRows::default()
        }
    }

    /// The rows as one batch of [`bronze_schema`], ingested at `ingest_ts_ms`; empties the builder.
    pub fn finish(&mut self, ingest_ts_ms: i64) -> Result<RecordBatch> {
        let mut rows = std::mem::take(self);
        let count = rows.offsets.len();
        let micros = ingest_ts_ms.saturating_mul(1000);
        let day = i32::try_from(ingest_ts_ms.div_euclid(MS_PER_DAY)).unwrap_or(0);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.topics.finish()),
            Arc::new(Int32Array::from(rows.partitions)),
            Arc::new(Int64Array::from(rows.offsets)),
            Arc::new(TimestampMicrosecondArray::from(rows.timestamps).with_timezone("UTC")),
            Arc::new(rows.keys.finish()),
            Arc::new(rows.key_bytes.finish()),
            Arc::new(rows.shared.unwrap_or_else(|| rows.values.finish())),
            Arc::new(rows.value_bytes.finish()),
            Arc::new(rows.headers.finish()),
            Arc::new(rows.ops.finish()),
            Arc::new(rows.source_ts.finish().with_timezone("UTC")),
            Arc::new(TimestampMicrosecondArray::from(vec![micros; count]).with_timezone("UTC")),
            Arc::new(Date32Array::from(vec![day; count])),
        ];
        RecordBatch::try_new(bronze_schema(), columns)
            .map_err(|e| Error::new(ErrorKind::Internal, "Bronze rows cannot be joined").caused_by(e))
    }
}

/// The values of a block without a copy; `None` where one of them is not text.
fn share(block: &Arc<Block>) -> Option<StringArray> {
    let mut ends = vec![0i32];
    ends.reserve(block.len());
    let mut end = 0;
    for len in block.value_lens() {
        end += len.unwrap_or(0);
        ends.push(i32::try_from(end).ok()?);
    }
    let present = NullBuffer::new(block.value_lens().map(|len| len.is_some()).collect());
    let present = Some(present).filter(|present| present.null_count() > 0);
    StringArray::try_new(OffsetBuffer::new(ends.into()), Buffer::from(block.values()), present).ok()
}

fn text_or_bytes(part: Option<&[u8]>, text: &mut StringBuilder, bytes: &mut BinaryBuilder) {
    match part.map(|part| (simdutf8::basic::from_utf8(part), part)) {
        None => {
            text.append_null();
            bytes.append_null();
        }
        Some((Ok(valid), _)) => {
            text.append_value(valid);
            bytes.append_null();
        }
        Some((Err(_), raw)) => {
            text.append_null();
            bytes.append_value(raw);
        }
    }
}

/// Rows of one commit in the making: encoded as they come, so that what waits is about as large as its files will be.
#[derive(Default)]
pub struct BronzeDraft {
    files: Vec<(PartitionValues, DataFile)>,
    rows: usize,
}

/// The data files of one commit, not in the lake yet.
#[derive(Debug)]
pub struct BronzeFiles {
    files: Vec<(PartitionValues, Encoded)>,
    covers: Ranges,
    rows: usize,
}

impl BronzeDraft {
    /// Ends the files. Every row must lie in `covers`.
    pub fn finish(self, covers: &Ranges) -> Result<BronzeFiles> {
        let files = self.files.into_iter().map(|(day, file)| Ok((day, file.finish()?))).collect::<Result<Vec<_>>>()?;
        Ok(BronzeFiles { files, covers: covers.clone(), rows: self.rows })
    }
}

impl BronzeFiles {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
}

/// A table of records as they came, append only, partitioned by day of ingestion.
#[derive(Debug)]
pub struct BronzeTable {
    pub(super) committer: Committer,
}

impl BronzeTable {
    /// Opens the table at `location`, or makes it. `name` is `<layer>/<name>`.
    pub async fn open_or_create(location: Location, name: &str, settings: Settings) -> Result<Self> {
        let make = || {
            let schema = TableSchema::new(bronze_schema(), vec!["_ingest_date".to_string()])?;
            let protocol = schema.protocol(false);
            let configuration = json!({"lode.generation": "0", "lode.table": name});
            Ok((schema, protocol, configuration))
        };
        let opened = log::open_or_create(location, name, settings, make).await?;
        for field in bronze_schema().fields() {
            if opened.committer.schema.all.field_with_name(field.name()).is_err() {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("the table `{name}` has no column `{}`", field.name()),
                )
                .hint("it is no Bronze table of lode: move it away, or give the table another name"));
            }
        }
        Ok(BronzeTable { committer: opened.committer })
    }

    /// Next offset of each Kafka partition that the table holds.
    pub fn positions(&self) -> &Positions {
        &self.committer.positions
    }

    /// Version of the Delta table as last seen.
    pub fn version(&self) -> u64 {
        self.committer.version
    }

    /// The address of the table.
    pub fn location(&self) -> &Location {
        &self.committer.location
    }

    /// Encodes rows of [`bronze_schema`] for the commit that `draft` is to become.
    pub fn add(&self, draft: &mut BronzeDraft, batch: &RecordBatch) -> Result<()> {
        let schema = &self.committer.schema;
        draft.rows += batch.num_rows();
        let batch = align(batch, &schema.all)?;
        for (values, picked) in split(&batch, schema, self.committer.settings.partitions_max)? {
            let rows = pick(&batch, picked.as_ref())?;
            match draft.files.iter_mut().find(|(day, _)| *day == values) {
                Some((_, file)) => file.push(&rows)?,
                None => {
                    let mut file = DataFile::new(schema, Codec::Fast)?;
                    file.push(&rows)?;
                    draft.files.push((values, file));
                }
            }
        }
        Ok(())
    }

    /// Appends the rows of `files` and moves the positions to the ends of `ranges`. Rows outside of `ranges`, or below
    /// the stored positions, are left out; a range may begin below its position.
    ///
    /// Errors: whatever the lake answers; nothing is then known to be committed, and calling again is right.
    pub async fn append(&mut self, files: &BronzeFiles, ranges: &Ranges, info: Map<String, Value>) -> Result<Outcome> {
        let due = match self.committer.due(ranges, &self.committer.positions) {
            Ok(due) => due,
            Err(ended) => return Ok(ended),
        };
        let adds = self.write(files, &due).await?;
        crate::failpoint::pass("bronze.after_data_file");
        let mut attempts = Attempts::of("WRITE", info);
        loop {
            let mut actions = self.committer.txn_actions(&due);
            for add in &adds {
                actions.push(add_action(add)?);
            }
            match attempts.put(&self.committer, &actions).await? {
                Put::Written => {
                    crate::failpoint::pass("bronze.after_commit");
                    self.committer.positions.advance(&due);
                    self.committer.advance();
                    self.committer.grown += adds.len();
                    return Ok(Outcome::Committed(self.committer.version));
                }
                Put::Taken(other) => {
                    self.committer.follow(*other)?;
                    if let Some(ended) = self.committer.ended_by_others(&due) {
                        return Ok(ended);
                    }
                }
            }
        }
    }

    async fn write(&self, files: &BronzeFiles, due: &Ranges) -> Result<Vec<Add>> {
        let fewer = if files.covers.are_within(due) { None } else { Some(self.cut(files, due)?) };
        let files = fewer.as_ref().unwrap_or(files);
        let mut adds = Vec::with_capacity(files.files.len());
        for (values, file) in &files.files {
            adds.push(file.write(&self.committer.store, values.clone(), true).await?);
        }
        Ok(adds)
    }

    /// The rows of `files` that lie in `due`, encoded anew.
    fn cut(&self, files: &BronzeFiles, due: &Ranges) -> Result<BronzeFiles> {
        let mut draft = BronzeDraft::default();
        for (values, file) in &files.files {
            for batch in reread(file, &bronze_schema(), values)? {
                let batch = only(&batch?, due)?;
                if batch.num_rows() > 0 {
                    self.add(&mut draft, &batch)?;
                }
            }
        }
        draft.finish(due)
    }
}

/// The rows of `batch` that lie in `due`.
fn only(batch: &RecordBatch, due: &Ranges) -> Result<RecordBatch> {
    let lost = |name: &str| Error::new(ErrorKind::Internal, format!("Bronze rows have no column `{name}`"));
    let topics = batch.column_by_name("_topic").and_then(|c| c.as_string_opt::<i32>()).ok_or_else(|| lost("_topic"))?;
    let partitions = batch
        .column_by_name("_partition")
        .and_then(|c| c.as_primitive_opt::<Int32Type>())
        .ok_or_else(|| lost("_partition"))?;
    let offsets = batch
        .column_by_name("_offset")
        .and_then(|c| c.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| lost("_offset"))?;
    let mut known: Option<(&str, i32, Option<Range>)> = None;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let (topic, partition) = (topics.value(row), partitions.value(row));
            let range = match known {
                Some((t, p, range)) if t == topic && p == partition => range,
                _ => {
                    let range = due.get(PartitionId { topic: topic.into(), partition });
                    known = Some((topic, partition, range));
                    range
                }
            };
            Some(range.is_some_and(|range| range.contains(offsets.value(row))))
        })
        .collect();
    filter_record_batch(batch, &keep)
        .map_err(|e| Error::new(ErrorKind::Internal, "Bronze rows cannot be filtered").caused_by(e))
}
