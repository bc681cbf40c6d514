//! Bronze: every record of a topic as it came.
//!
//! Receives records as rows of [`bronze_schema`] with their Kafka ranges. Promises each offset exactly once, in the
//! commit that moves the positions; and gives them back as blocks in offset order from any position on, for a table that is
//! behind. Never looks into a value.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, Date32Array, Int32Array, Int64Array, RecordBatch,
    StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use deltalake::kernel::Add;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use serde_json::{Map, Value, json};

use super::commit::{Commit, Committer, Put, REPLAYS_MAX, Standing, add_action, configuration};
use super::files::{DataFile, join, pick, scan, split};
use super::schema::{TableSchema, align, check_protocol, utc};
use super::stats::integer_bound;
use super::{Location, Outcome, Settings, log, vector};
use crate::change::Op;
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Block, PartitionId, Positions, Ranges, Record};

/// Blocks handed out by [`BronzeTable::read`] end at about this many bytes or rows.
const BLOCK_BYTES: usize = 8 << 20;
const BLOCK_ROWS: usize = 50_000;
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

/// Builds Bronze rows from records.
#[derive(Debug, Default)]
pub struct BronzeRows {
    topics: StringBuilder,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    keys: StringBuilder,
    key_bytes: BinaryBuilder,
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
    pub fn push(&mut self, block: &Block, from: usize, mut meta: impl FnMut(usize) -> (Option<Op>, Option<i64>)) {
        for row in from..block.len() {
            let Some(record) = block.get(row) else { return };
            let (op, source_ms) = meta(row);
            self.topics.append_value(&block.partition().topic);
            self.partitions.push(block.partition().partition);
            self.offsets.push(record.offset);
            self.timestamps.push(record.timestamp_ms.saturating_mul(1000));
            text_or_bytes(record.key, &mut self.keys, &mut self.key_bytes);
            text_or_bytes(record.value, &mut self.values, &mut self.value_bytes);
            let headers = (!record.headers.is_empty()).then(|| String::from_utf8_lossy(record.headers));
            self.headers.append_option(headers);
            self.ops.append_option(op.map(Op::letter));
            self.source_ts.append_option(source_ms.and_then(|ms| ms.checked_mul(1000)));
            self.bytes += record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len) + record.headers.len() + 64;
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
            Arc::new(rows.values.finish()),
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

/// A table of records as they came, append only, partitioned by day of ingestion.
#[derive(Debug)]
pub struct BronzeTable {
    committer: Committer,
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
                return Err(Error::new(ErrorKind::Config, format!("the table `{name}` has no column `{}`", field.name()))
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

    /// Appends rows of [`bronze_schema`] and moves the positions to the ends of `ranges`. Rows below the stored
    /// positions are left out; a range may begin below its position.
    ///
    /// Errors: whatever the lake answers; nothing is then known to be committed, and calling again is right.
    pub async fn append(
        &mut self,
        batches: Vec<RecordBatch>,
        ranges: &Ranges,
        info: Map<String, Value>,
    ) -> Result<Outcome> {
        let held = &self.committer.positions;
        let mut due = ranges.clone();
        for (partition, range) in &mut due {
            range.from = held.get(partition).map_or(range.from, |at| range.from.max(*at));
        }
        due.retain(|_, range| range.from < range.to);
        if due.is_empty() && !ranges.is_empty() {
            return Ok(Outcome::AlreadyCommitted { version: self.committer.version });
        }
        match self.committer.standing(&due) {
            Standing::Ready => {}
            Standing::Past => return Ok(Outcome::AlreadyCommitted { version: self.committer.version }),
            Standing::Elsewhere => return Ok(Outcome::Fenced),
        }
        let adds = self.write(batches, &due).await?;
        crate::failpoint::pass("bronze.after_data_file");
        for _ in 0..REPLAYS_MAX {
            let mut actions = self.committer.txn_actions(&due);
            for add in &adds {
                actions.push(add_action(add)?);
            }
            let batch = uuid::Uuid::new_v4().to_string();
            match self.committer.put("WRITE", &batch, info.clone(), &actions).await? {
                Put::Written => {
                    crate::failpoint::pass("bronze.after_commit");
                    for (partition, range) in due {
                        self.committer.positions.insert(partition, range.to);
                    }
                    self.committer.advance();
                    return Ok(Outcome::Committed { version: self.committer.version });
                }
                Put::Taken(other) => {
                    self.follow(*other)?;
                    match self.committer.standing(&due) {
                        Standing::Ready => {}
                        Standing::Past => {
                            return Ok(Outcome::AlreadyCommitted { version: self.committer.version });
                        }
                        Standing::Elsewhere => return Ok(Outcome::Fenced),
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers commit to the table faster than lode can follow"))
    }

    /// Takes over a commit of others: an append needs no more of it than positions and schema.
    fn follow(&mut self, commit: Commit) -> Result<()> {
        if let Some(protocol) = &commit.protocol {
            check_protocol(protocol)?;
        }
        if let Some(metadata) = commit.metadata {
            let settled = configuration(&metadata);
            let generation = settled.get("lode.generation").and_then(|g| g.parse().ok()).unwrap_or(0);
            if generation != self.committer.generation || settled.contains_key("delta.setTransactionRetentionDuration") {
                return Err(Error::new(ErrorKind::Fenced, "somebody changed the table's generation or its retention of ids")
                    .hint("restart this instance"));
            }
            self.committer.schema = TableSchema::of_metadata(&metadata)?;
            self.committer.metadata = metadata;
        }
        self.committer.note_txns(&commit.txns);
        self.committer.advance();
        Ok(())
    }

    async fn write(&self, batches: Vec<RecordBatch>, due: &Ranges) -> Result<Vec<Add>> {
        let schema = &self.committer.schema;
        let mut adds = Vec::new();
        let rows = batches
            .iter()
            .map(|batch| align(&only(batch, due)?, &schema.all))
            .filter(|batch| batch.as_ref().map_or(true, |b| b.num_rows() > 0))
            .collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Ok(adds);
        }
        let all = join(&schema.all, &rows)?;
        for (values, picked) in split(&all, schema, self.committer.settings.partitions_max)? {
            let mut file = DataFile::new(schema)?;
            file.push(&pick(&all, picked.as_ref())?)?;
            adds.push(file.write(&self.committer.store, values, true).await?);
        }
        Ok(adds)
    }

    /// Every record at or past `from` (a Kafka partition that is absent: from its start) below the table's positions,
    /// as blocks in offset order within each Kafka partition. Reads the log anew. Files are read one after another
    /// by the lowest offset they may hold, so memory holds the blocks of one Kafka partition's overlapping files.
    pub async fn read(&self, from: &Positions) -> Result<BoxStream<'static, Result<Block>>> {
        let opened = log::open(&self.committer.location, &self.committer.settings).await?;
        let Some(opened) = opened else { return Ok(stream::empty().boxed()) };
        let to = opened.committer.positions;
        let sources = opened.files.into_iter().filter_map(|add| Source::of(add, from, &to)).collect::<Vec<_>>();
        let mut wanted: BTreeMap<PartitionId, Window> = BTreeMap::new();
        for (partition, end) in &to {
            let start = from.get(partition).copied().unwrap_or(0);
            if start < *end {
                wanted.insert(partition.clone(), Window { start, end: *end });
            }
        }
        let store = self.committer.store.clone();
        let schema = self.committer.schema.all.clone();
        let queue: VecDeque<_> = wanted.into_iter().collect();
        let merges = stream::iter(queue).then(move |(partition, window)| {
            let (store, schema) = (store.clone(), schema.clone());
            let mut mine: Vec<Source> = sources.iter().filter(|s| s.may_hold(&partition, window)).cloned().collect();
            mine.sort_by_key(|s| Reverse(s.low(&partition)));
            async move { Ok::<_, Error>(Merge::new(store, schema, partition, window, mine).stream()) }
        });
        Ok(merges.try_flatten().boxed())
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
    let offsets =
        batch.column_by_name("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(|| lost("_offset"))?;
    let mut known: Option<(&str, i32, Option<crate::record::Range>)> = None;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let (topic, partition) = (topics.value(row), partitions.value(row));
            let range = match known {
                Some((t, p, range)) if t == topic && p == partition => range,
                _ => {
                    let range = due.get(&PartitionId { topic: topic.into(), partition }).copied();
                    known = Some((topic, partition, range));
                    range
                }
            };
            Some(range.is_some_and(|r| (r.from..r.to).contains(&offsets.value(row))))
        })
        .collect();
    if keep.true_count() == batch.num_rows() {
        return Ok(batch.clone());
    }
    filter_record_batch(batch, &keep).map_err(|e| Error::new(ErrorKind::Internal, "Bronze rows cannot be filtered").caused_by(e))
}

/// Offsets of one Kafka partition to read.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: i64,
    end: i64,
}

/// A file that may hold records to read, by its statistics.
#[derive(Debug, Clone)]
struct Source {
    add: Add,
    partitions: Option<(i64, i64)>,
    offsets: Option<(i64, i64)>,
}

impl Source {
    fn of(add: Add, from: &Positions, to: &Positions) -> Option<Self> {
        let stats: Option<Value> = add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let both = |column: &str| {
            let stats = stats.as_ref()?;
            Some((integer_bound(stats, "minValues", column)?, integer_bound(stats, "maxValues", column)?))
        };
        let source = Source { partitions: both("_partition"), offsets: both("_offset"), add };
        let useful = to.iter().any(|(partition, end)| {
            source.may_hold(partition, Window { start: from.get(partition).copied().unwrap_or(0), end: *end })
        });
        useful.then_some(source)
    }

    fn may_hold(&self, partition: &PartitionId, window: Window) -> bool {
        let within = |bounds: Option<(i64, i64)>, low: i64, high: i64| bounds.is_none_or(|(l, h)| l <= high && h >= low);
        let number = i64::from(partition.partition);
        window.start < window.end
            && within(self.partitions, number, number)
            && within(self.offsets, window.start, window.end - 1)
    }

    /// The lowest offset that may be in the file.
    fn low(&self, _: &PartitionId) -> i64 {
        self.offsets.map_or(i64::MIN, |(low, _)| low)
    }
}

/// The records of one Kafka partition out of files whose offsets may overlap.
struct Merge {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    partition: PartitionId,
    window: Window,
    /// files not opened yet, the lowest offset last
    files: Vec<Source>,
    heads: BinaryHeap<Reverse<Head>>,
    open: BTreeMap<usize, Cursor>,
    opened: usize,
    /// the offset after the last one handed out; a record that two files hold is handed out once
    next: i64,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    offset: i64,
    cursor: usize,
}

struct Cursor {
    batches: BoxStream<'static, Result<RecordBatch>>,
    batch: RecordBatch,
    row: usize,
}

impl Merge {
    fn new(
        store: Arc<dyn ObjectStore>,
        schema: SchemaRef,
        partition: PartitionId,
        window: Window,
        files: Vec<Source>,
    ) -> Self {
        let next = window.start;
        Merge { store, schema, partition, window, files, heads: BinaryHeap::new(), open: BTreeMap::new(), opened: 0, next }
    }

    fn stream(self) -> BoxStream<'static, Result<Block>> {
        stream::try_unfold(self, |mut merge| async move {
            let block = merge.block().await?;
            Ok(block.map(|block| (block, merge)))
        })
        .boxed()
    }

    async fn block(&mut self) -> Result<Option<Block>> {
        let mut block = Block::new(self.partition.clone());
        loop {
            // a file not opened yet may hold what comes next
            while let Some(file) = self.files.last()
                && self.heads.peek().is_none_or(|Reverse(head)| file.low(&self.partition) <= head.offset)
            {
                let Some(file) = self.files.pop() else { break };
                self.open_file(file).await?;
            }
            let Some(Reverse(head)) = self.heads.pop() else { break };
            let Some(cursor) = self.open.get_mut(&head.cursor) else { continue };
            if head.offset >= self.next {
                let fits = push_row(&mut block, &cursor.batch, cursor.row)?;
                if !fits {
                    self.heads.push(Reverse(head));
                    break;
                }
                self.next = head.offset + 1;
            }
            cursor.row += 1;
            self.settle(head.cursor).await?;
            if block.bytes() >= BLOCK_BYTES || block.len() >= BLOCK_ROWS {
                break;
            }
        }
        Ok(if block.is_empty() { None } else { Some(block) })
    }

    async fn open_file(&mut self, file: Source) -> Result<()> {
        let hidden = match &file.add.deletion_vector {
            Some(described) => vector::read(&self.store, described).await?,
            None => roaring::RoaringBitmap::new(),
        };
        let (partition, window) = (self.partition.clone(), self.window);
        let mut at = 0u32;
        let batches = scan(&self.store, &file.add, self.schema.clone()).await?.map(move |batch| {
            let batch = batch?;
            let first = at;
            at = at.saturating_add(batch.num_rows() as u32);
            mine(&batch, &partition, window, |row| hidden.contains(first + row))
        });
        let id = self.opened;
        self.opened += 1;
        let empty = RecordBatch::new_empty(self.schema.clone());
        self.open.insert(id, Cursor { batches: batches.boxed(), batch: empty, row: 0 });
        self.settle(id).await
    }

    /// Puts the cursor's next row on the heap, or drops a cursor that is at its end.
    async fn settle(&mut self, id: usize) -> Result<()> {
        let Some(cursor) = self.open.get_mut(&id) else { return Ok(()) };
        while cursor.row >= cursor.batch.num_rows() {
            match cursor.batches.try_next().await? {
                Some(batch) => (cursor.batch, cursor.row) = (batch, 0),
                None => {
                    self.open.remove(&id);
                    return Ok(());
                }
            }
        }
        let offset = offsets(&cursor.batch)?.value(cursor.row);
        self.heads.push(Reverse(Head { offset, cursor: id }));
        Ok(())
    }
}

fn offsets(batch: &RecordBatch) -> Result<&Int64Array> {
    batch
        .column_by_name("_offset")
        .and_then(|c| c.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the Bronze table's column `_offset` is not bigint"))
}

/// The rows of one Kafka partition in a window, by offset.
fn mine(
    batch: &RecordBatch,
    partition: &PartitionId,
    window: Window,
    hidden: impl Fn(u32) -> bool,
) -> Result<RecordBatch> {
    let wrong = || Error::new(ErrorKind::Corrupt, "the Bronze table's columns have other types than lode gave them");
    let failed = |e: arrow::error::ArrowError| Error::new(ErrorKind::Internal, "Bronze rows cannot be filtered").caused_by(e);
    let topics = batch.column_by_name("_topic").and_then(|c| c.as_string_opt::<i32>()).ok_or_else(wrong)?;
    let numbers = batch.column_by_name("_partition").and_then(|c| c.as_primitive_opt::<Int32Type>()).ok_or_else(wrong)?;
    let offsets = offsets(batch)?;
    let place: BooleanArray = (0..batch.num_rows())
        .map(|row| Some(topics.value(row) == &*partition.topic && numbers.value(row) == partition.partition))
        .collect();
    let time: BooleanArray = (0..batch.num_rows())
        .map(|row| Some((window.start..window.end).contains(&offsets.value(row)) && !hidden(row as u32)))
        .collect();
    let rows = filter_record_batch(batch, &and(&place, &time).map_err(failed)?).map_err(failed)?;
    let sorted = self::offsets(&rows)?.values().windows(2).all(|w| matches!(w, [a, b] if a <= b));
    if sorted {
        return Ok(rows);
    }
    let order = arrow::compute::sort_to_indices(self::offsets(&rows)?, None, None).map_err(failed)?;
    arrow::compute::take_record_batch(&rows, &order).map_err(failed)
}

fn push_row(block: &mut Block, batch: &RecordBatch, row: usize) -> Result<bool> {
    let wrong = || Error::new(ErrorKind::Corrupt, "the Bronze table's columns have other types than lode gave them");
    let text = |name: &str| -> Result<Option<&[u8]>> {
        let column = batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(wrong)?;
        Ok(column.is_valid(row).then(|| column.value(row).as_bytes()))
    };
    let bytes = |name: &str| -> Result<Option<&[u8]>> {
        let column = batch.column_by_name(name).and_then(|c| c.as_binary_opt::<i32>()).ok_or_else(wrong)?;
        Ok(column.is_valid(row).then(|| column.value(row)))
    };
    let times =
        batch.column_by_name("_timestamp").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>()).ok_or_else(wrong)?;
    Ok(block.push(Record {
        offset: offsets(batch)?.value(row),
        timestamp_ms: if times.is_valid(row) { times.value(row).div_euclid(1000) } else { -1 },
        key: text("_key")?.or(bytes("_key_bytes")?),
        value: text("_value")?.or(bytes("_value_bytes")?),
        headers: text("_headers")?.unwrap_or_default(),
    }))
}
