//! Bronze read back: records as blocks, in offset order within each Kafka partition.
//!
//! Receives positions to start from. Promises every record between them and the table's own positions once, whatever
//! order files and rows are in, with memory bounded by the files of one Kafka partition whose offsets overlap. Never
//! looks into a value.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use deltalake::kernel::Add;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use roaring::RoaringBitmap;
use serde_json::Value;

use super::BronzeTable;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::deletion_vector;
use crate::lake::file::stats::integer_bound;
use crate::lake::file::{join, scan};
use crate::lake::log;
use crate::model::positions::{PartitionId, Positions};
use crate::model::record::{Block, Record};

/// Blocks handed out by [`BronzeTable::read`] end at about this many bytes or rows.
const BLOCK_BYTES: usize = 8 << 20;
/// Rows held at once of a file that is not in offset order.
const MIXED_ROWS: usize = 20_000;

impl BronzeTable {
    /// Every record at or past `from` (a Kafka partition that is absent: from its start) below the table's positions,
    /// as blocks in offset order within each Kafka partition. Reads the log anew. Files are read one after another
    /// by the lowest offset they may hold, so memory holds the blocks of one Kafka partition's overlapping files.
    pub async fn read(&self, from: &Positions) -> Result<BoxStream<'static, Result<Block>>> {
        let opened = log::open(&self.committer.location, &self.committer.settings).await?;
        let Some(opened) = opened else { return Ok(stream::empty().boxed()) };
        let to = opened.committer.positions;
        let sources = opened.files.into_iter().filter_map(|add| BronzeFile::of(add, from, &to)).collect::<Vec<_>>();
        let mut wanted: BTreeMap<PartitionId, Window> = BTreeMap::new();
        for (partition, end) in to.partitions() {
            let start = from.get(partition).unwrap_or(0);
            if start < end {
                wanted.insert(partition.clone(), Window { start, end });
            }
        }
        let store = self.committer.store.clone();
        let block_rows = self.committer.settings.block_rows.max(1);
        let schema = self.committer.schema.all.clone();
        let queue: VecDeque<_> = wanted.into_iter().collect();
        let merges = stream::iter(queue).then(move |(partition, window)| {
            let (store, schema) = (store.clone(), schema.clone());
            let mut mine: Vec<BronzeFile> =
                sources.iter().filter(|s| s.may_hold(&partition, window)).cloned().collect();
            mine.sort_by_key(|s| Reverse(s.low()));
            async move { Ok::<_, Error>(Merge::new(store, schema, partition, window, block_rows, mine).stream()) }
        });
        Ok(merges.try_flatten().boxed())
    }
}

/// Offsets of one Kafka partition to read.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: i64,
    end: i64,
}

/// A file that may hold records to read, by its statistics.
#[derive(Debug, Clone)]
struct BronzeFile {
    add: Add,
    partitions: Option<(i64, i64)>,
    offsets: Option<(i64, i64)>,
}

impl BronzeFile {
    fn of(add: Add, from: &Positions, to: &Positions) -> Option<Self> {
        let stats: Option<Value> = add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let both = |column: &str| {
            let stats = stats.as_ref()?;
            Some((integer_bound(stats, "minValues", column)?, integer_bound(stats, "maxValues", column)?))
        };
        let source = BronzeFile { partitions: both("_partition"), offsets: both("_offset"), add };
        let useful = to.partitions().any(|(partition, end)| {
            source.may_hold(partition, Window { start: from.get(partition).unwrap_or(0), end })
        });
        useful.then_some(source)
    }

    fn may_hold(&self, partition: &PartitionId, window: Window) -> bool {
        let within =
            |bounds: Option<(i64, i64)>, low: i64, high: i64| bounds.is_none_or(|(l, h)| l <= high && h >= low);
        let number = i64::from(partition.partition);
        window.start < window.end
            && within(self.partitions, number, number)
            && within(self.offsets, window.start, window.end - 1)
    }

    /// The lowest offset that may be in the file.
    fn low(&self) -> i64 {
        self.offsets.map_or(i64::MIN, |(low, _)| low)
    }
}

/// The records of one Kafka partition out of files whose offsets may overlap.
struct Merge {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    partition: PartitionId,
    window: Window,
    block_rows: usize,
    /// files not opened yet, the lowest offset last
    files: Vec<BronzeFile>,
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

/// Rows of one file in offset order.
struct Cursor {
    batches: BoxStream<'static, Result<RecordBatch>>,
    rows: Columns,
    row: usize,
}

impl Merge {
    fn new(
        store: Arc<dyn ObjectStore>,
        schema: SchemaRef,
        partition: PartitionId,
        window: Window,
        block_rows: usize,
        files: Vec<BronzeFile>,
    ) -> Self {
        let next = window.start;
        Merge {
            store,
            schema,
            partition,
            window,
            block_rows,
            files,
            heads: BinaryHeap::new(),
            open: BTreeMap::new(),
            opened: 0,
            next,
        }
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
            while self
                .files
                .last()
                .is_some_and(|file| self.heads.peek().is_none_or(|Reverse(head)| file.low() <= head.offset))
            {
                let Some(file) = self.files.pop() else { break };
                self.open_file(file).await?;
            }
            let Some(Reverse(head)) = self.heads.pop() else { break };
            let Some(cursor) = self.open.get_mut(&head.cursor) else { continue };
            if head.offset >= self.next {
                if !block.push(cursor.rows.record(cursor.row)) {
                    self.heads.push(Reverse(head));
                    break;
                }
                self.next = head.offset + 1;
            }
            cursor.row += 1;
            self.place(head.cursor).await?;
            if block.bytes() >= BLOCK_BYTES || block.len() >= self.block_rows {
                break;
            }
        }
        Ok(if block.is_empty() { None } else { Some(block) })
    }

    async fn open_file(&mut self, file: BronzeFile) -> Result<()> {
        let hidden = match &file.add.deletion_vector {
            Some(described) => deletion_vector::read(&self.store, described).await?,
            None => RoaringBitmap::new(),
        };
        let part = Part {
            store: self.store.clone(),
            schema: self.schema.clone(),
            partition: self.partition.clone(),
            add: file.add,
            hidden: Arc::new(hidden),
        };
        let windows = part.windows(self.window).await?;
        if windows.is_empty() {
            return Ok(());
        }
        let batches = stream::iter(windows)
            .then(move |window| {
                let part = part.clone();
                async move { part.rows(window).await }
            })
            .try_flatten();
        let id = self.opened;
        self.opened += 1;
        let rows = Columns::of(&RecordBatch::new_empty(self.schema.clone()))?;
        self.open.insert(id, Cursor { batches: batches.boxed(), rows, row: 0 });
        self.place(id).await
    }

    /// Puts the cursor's next row on the heap, or drops a cursor that is at its end.
    async fn place(&mut self, id: usize) -> Result<()> {
        let Some(cursor) = self.open.get_mut(&id) else { return Ok(()) };
        while cursor.row >= cursor.rows.offsets.len() {
            match cursor.batches.try_next().await? {
                Some(batch) => (cursor.rows, cursor.row) = (Columns::of(&batch)?, 0),
                None => {
                    self.open.remove(&id);
                    return Ok(());
                }
            }
        }
        self.heads.push(Reverse(Head { offset: cursor.rows.offsets.value(cursor.row), cursor: id }));
        Ok(())
    }
}

/// One file, as far as it holds records of one Kafka partition.
#[derive(Clone)]
struct Part {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    partition: PartitionId,
    add: Add,
    hidden: Arc<RoaringBitmap>,
}

impl Part {
    /// Windows in which the file's rows can be handed out one after another: one where the file is in order, several
    /// of bounded size where another engine has mixed it up.
    async fn windows(&self, window: Window) -> Result<Vec<(Window, bool)>> {
        let names = ["_topic", "_partition", "_offset"];
        let few: Vec<_> = self.schema.fields().iter().filter(|f| names.contains(&f.name().as_str())).cloned().collect();
        let mut batches = self.scan(Arc::new(Schema::new(few)), window).await?;
        let mut all: Vec<i64> = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            all.extend_from_slice(offsets(&batch)?.values());
        }
        if all.is_empty() {
            return Ok(Vec::new());
        }
        if all.windows(2).all(|w| matches!(w, [a, b] if a <= b)) {
            return Ok(vec![(window, true)]);
        }
        all.sort_unstable();
        let mut windows = Vec::new();
        let mut start = window.start;
        for next in all.chunks(MIXED_ROWS).skip(1).filter_map(|chunk| chunk.first().copied()) {
            if next > start {
                windows.push((Window { start, end: next }, false));
                start = next;
            }
        }
        windows.push((Window { start, end: window.end }, false));
        Ok(windows)
    }

    async fn rows(&self, (window, sorted): (Window, bool)) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let mut batches = self.scan(self.schema.clone(), window).await?;
        if sorted {
            return Ok(batches);
        }
        let failed =
            |e: arrow::error::ArrowError| Error::new(ErrorKind::Internal, "Bronze rows cannot be sorted").caused_by(e);
        let mut all = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            all.push(batch);
        }
        let Some(first) = all.first() else { return Ok(stream::empty().boxed()) };
        let rows = join(&first.schema(), &all)?;
        let order = arrow::compute::sort_to_indices(offsets(&rows)?, None, None).map_err(failed)?;
        let rows = arrow::compute::take_record_batch(&rows, &order).map_err(failed)?;
        Ok(stream::iter([Ok(rows)]).boxed())
    }

    /// The file's rows of this Kafka partition in a window, in file order.
    async fn scan(&self, fields: SchemaRef, window: Window) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let (partition, hidden) = (self.partition.clone(), self.hidden.clone());
        let mut at = 0u32;
        let rows = scan(&self.store, &self.add, fields).await?.map(move |batch| {
            let batch = batch?;
            let first = at;
            at = at.saturating_add(batch.num_rows() as u32);
            mine(&batch, &partition, window, |row| hidden.contains(first + row))
        });
        Ok(rows.boxed())
    }
}

fn wrong() -> Error {
    Error::new(ErrorKind::Corrupt, "the Bronze table's columns have other types than lode gave them")
}

fn offsets(batch: &RecordBatch) -> Result<&Int64Array> {
    batch.column_by_name("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(wrong)
}

/// The rows of one Kafka partition in a window.
fn mine(
    batch: &RecordBatch,
    partition: &PartitionId,
    window: Window,
    hidden: impl Fn(u32) -> bool,
) -> Result<RecordBatch> {
    let topics = batch.column_by_name("_topic").and_then(|c| c.as_string_opt::<i32>()).ok_or_else(wrong)?;
    let numbers =
        batch.column_by_name("_partition").and_then(|c| c.as_primitive_opt::<Int32Type>()).ok_or_else(wrong)?;
    let offsets = offsets(batch)?;
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| {
            let here = numbers.value(row) == partition.partition && topics.value(row) == &*partition.topic;
            Some(here && (window.start..window.end).contains(&offsets.value(row)) && !hidden(row as u32))
        })
        .collect();
    filter_record_batch(batch, &keep)
        .map_err(|e| Error::new(ErrorKind::Internal, "Bronze rows cannot be filtered").caused_by(e))
}

/// The columns that make records.
struct Columns {
    offsets: Int64Array,
    timestamps: TimestampMicrosecondArray,
    keys: StringArray,
    key_bytes: BinaryArray,
    values: StringArray,
    value_bytes: BinaryArray,
    headers: StringArray,
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let text =
            |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).cloned().ok_or_else(wrong);
        let bytes =
            |name: &str| batch.column_by_name(name).and_then(|c| c.as_binary_opt::<i32>()).cloned().ok_or_else(wrong);
        let times = batch.column_by_name("_timestamp").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        Ok(Columns {
            offsets: offsets(batch)?.clone(),
            timestamps: times.cloned().ok_or_else(wrong)?,
            keys: text("_key")?,
            key_bytes: bytes("_key_bytes")?,
            values: text("_value")?,
            value_bytes: bytes("_value_bytes")?,
            headers: text("_headers")?,
        })
    }

    fn record(&self, row: usize) -> Record<'_> {
        fn part<'a>(text: &'a StringArray, bytes: &'a BinaryArray, row: usize) -> Option<&'a [u8]> {
            if text.is_valid(row) {
                return Some(text.value(row).as_bytes());
            }
            bytes.is_valid(row).then(|| bytes.value(row))
        }
        Record {
            offset: self.offsets.value(row),
            timestamp_ms: if self.timestamps.is_valid(row) { self.timestamps.value(row).div_euclid(1000) } else { -1 },
            key: part(&self.keys, &self.key_bytes, row),
            value: part(&self.values, &self.value_bytes, row),
            headers: if self.headers.is_valid(row) { self.headers.value(row).as_bytes() } else { &[] },
        }
    }
}
