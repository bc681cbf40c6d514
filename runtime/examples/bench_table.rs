//! Random updates into a keyed table: CPU and bytes a flush, by table size.
//!
//! `cargo run --release -p lodestream --example bench_table -- [rows…]` (default 1000000 4000000). Every flush updates
//! 10,000 random keys of a table with 12 columns; after each, compaction, checkpoint and owners merge run when they are due, and
//! count. Prints the mean of flushes 50 to 150, what building the index again takes and how many bytes a key it holds.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::ops::Range as Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arrow::array::{
    ArrayRef, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::stream::BoxStream;
use lodestream::change::{Changes, Op};
use lodestream::record::{PartitionId, Range, Ranges};
use lodestream::schema::TableSchema;
use lodestream::sequence::Sequence;
use lodestream::table::{KeyedTable, Location, Outcome, Settings, TableSpec};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, UploadPart,
};

const BATCH: usize = 10_000;
const FLUSHES: usize = 150;
const MEASURED_FROM: usize = 50;
const LOAD: usize = 500_000;

#[derive(Debug, Default)]
struct Written {
    data: AtomicU64,
    vectors: AtomicU64,
    log: AtomicU64,
    other: AtomicU64,
}

impl Written {
    fn count(&self, at: &Path, bytes: u64) {
        let name = at.as_ref();
        let to = if name.contains("_delta_log") {
            &self.log
        } else if name.contains("deletion_vector") {
            &self.vectors
        } else if name.contains("part-") {
            &self.data
        } else {
            &self.other
        };
        to.fetch_add(bytes, Ordering::Relaxed);
    }

    fn now(&self) -> [u64; 4] {
        [&self.data, &self.vectors, &self.log, &self.other].map(|n| n.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ObjectStore>,
    written: Arc<Written>,
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[derive(Debug)]
struct CountingUpload {
    inner: Box<dyn MultipartUpload>,
    at: Path,
    written: Arc<Written>,
}

#[async_trait::async_trait]
impl MultipartUpload for CountingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.written.count(&self.at, data.content_length() as u64);
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}

#[async_trait::async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &Path, body: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.written.count(at, body.content_length() as u64);
        self.inner.put_opts(at, body, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(at, options).await?;
        Ok(Box::new(CountingUpload { inner, at: at.clone(), written: self.written.clone() }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(at, options).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Bytes<u64>]) -> object_store::Result<Vec<bytes::Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A small generator of numbers, so that runs are alike.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn fields() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("customer_id", DataType::Int64, true),
        Field::new("status", DataType::Utf8, true),
        Field::new("city", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("tax", DataType::Decimal128(12, 2), true),
        Field::new("qty", DataType::Int32, true),
        Field::new("weight", DataType::Float64, true),
        Field::new("day", DataType::Date32, true),
        Field::new("created_at", at.clone(), true),
        Field::new("updated_at", at, true),
    ]))
}

fn rows(ids: &[i64], random: &mut Random) -> Result<RecordBatch, Box<dyn Error>> {
    let n = ids.len();
    let mut some = |below: u64| -> Vec<u64> { (0..n).map(|_| random.below(below)).collect() };
    let status = ["new", "paid", "shipped", "done"];
    let text = |v: Vec<u64>, with: &dyn Fn(u64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(v.into_iter().map(with)))
    };
    let money = |v: Vec<u64>| -> Result<ArrayRef, Box<dyn Error>> {
        let values = Decimal128Array::from_iter_values(v.into_iter().map(i128::from));
        Ok(Arc::new(values.with_precision_and_scale(12, 2)?))
    };
    let time = |v: Vec<u64>| -> ArrayRef {
        let values = v.into_iter().map(|ms| 1_700_000_000_000_000 + ms as i64 * 1000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(ids.to_vec())),
        Arc::new(Int64Array::from_iter_values(some(200_000).into_iter().map(|v| v as i64))),
        text(some(4), &|v| status[v as usize % 4].to_string()),
        text(some(500), &|v| format!("city {v}")),
        text(some(1 << 30), &|v| format!("note {v:x}")),
        money(some(10_000_000))?,
        money(some(100_000))?,
        Arc::new(Int32Array::from_iter_values(some(20).into_iter().map(|v| v as i32))),
        Arc::new(Float64Array::from_iter_values(some(100_000).into_iter().map(|v| v as f64 / 100.0))),
        Arc::new(Date32Array::from_iter_values(some(2000).into_iter().map(|v| v as i32 + 18_000))),
        time(some(1 << 35)),
        time(some(1 << 35)),
    ];
    let nullable = fields().fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns)?)
}

/// CPU seconds of the process, all threads.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn changes(schema: &Arc<TableSchema>, rows: RecordBatch, op: Op, first: i64) -> Changes {
    let n = rows.num_rows();
    Changes {
        schema: schema.clone(),
        topic: "shop.orders".into(),
        ops: vec![op; n],
        sequences: (0..n).map(|at| Sequence((first as u128 + at as u128 + 1) << 2)).collect(),
        source_ts_ms: vec![1_700_000_000_000; n],
        partitions: vec![0; n],
        offsets: (first..first + n as i64).collect(),
        rows,
    }
}

async fn flush(table: &mut KeyedTable, batch: Changes) -> Result<(), Box<dyn Error>> {
    let (first, n) = (batch.offsets[0], batch.offsets.len() as i64);
    let partition = PartitionId { topic: batch.topic.clone(), partition: 0 };
    let ranges: Ranges = [(partition, Range { from: first, to: first + n })].into();
    let selection = table.select(std::slice::from_ref(&batch), &[])?;
    let output = selection.upserts().clone();
    let outcome = table.flush(&selection, &output, None, &[], &ranges, Default::default()).await?;
    if !matches!(outcome, Outcome::Committed { .. }) {
        return Err(format!("not committed: {outcome:?}").into());
    }
    Ok(())
}

async fn run(total: usize) -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("bench_table_{total}_{}", std::process::id()));
    let written = Arc::new(Written::default());
    let location = Location::open(dir.to_str().ok_or("path")?, &HashMap::new())?
        .table("silver/orders")?
        .wrapped(|inner| Arc::new(Counting { inner, written: written.clone() }));
    let spec = TableSpec {
        name: "silver/orders".into(),
        fields: fields(),
        key: vec!["id".into()],
        partition_by: vec![],
        renamed: 0,
        generation: 0,
    };
    let schema = Arc::new(TableSchema {
        database: "shop".into(),
        table: "orders".into(),
        fields: fields(),
        key: vec![0],
        defaults: vec![None; 12],
        renamed: 0,
    });
    let mut random = Random(7);
    let mut table = KeyedTable::open_or_create(location.clone(), spec.clone(), Settings::default()).await?;
    let mut offset = 0i64;
    while (offset as usize) < total {
        let n = LOAD.min(total - offset as usize) as i64;
        let ids: Vec<i64> = (offset..offset + n).collect();
        flush(&mut table, changes(&schema, rows(&ids, &mut random)?, Op::Read, offset)).await?;
        offset += n;
    }
    let (files, visible) = table.size();
    let loaded = written.now();
    println!("{total} rows: {files} files, {:.1} MB of data, {visible} rows visible", loaded[0] as f64 / 1e6);

    let (mut cpu_flush, mut cpu_care, mut wall) = (0.0, 0.0, 0.0);
    let (mut rewrites, mut start) = (0, written.now());
    for round in 0..FLUSHES {
        if round == MEASURED_FROM {
            (cpu_flush, cpu_care, wall, rewrites, start) = (0.0, 0.0, 0.0, 0, written.now());
        }
        let ids: Vec<i64> = (0..BATCH).map(|_| random.below(total as u64) as i64).collect();
        let batch = changes(&schema, rows(&ids, &mut random)?, Op::Update, offset);
        offset += BATCH as i64;
        let (from, began) = (cpu(), Instant::now());
        flush(&mut table, batch).await?;
        let flushed = cpu();
        while let Some(compaction) = table.plan_compaction() {
            rewrites += 1;
            let rewritten = compaction.rewrite().await?;
            table.commit_compaction(rewritten).await?;
        }
        table.merge_owners().await?;
        table.checkpoint().await?;
        cpu_flush += flushed - from;
        cpu_care += cpu() - flushed;
        wall += began.elapsed().as_secs_f64();
    }
    let n = (FLUSHES - MEASURED_FROM) as f64;
    let bytes: Vec<f64> = written.now().iter().zip(start).map(|(now, then)| (*now - then) as f64 / 1e3 / n).collect();
    println!(
        "  a flush of {BATCH}: {:.4} CPU-s ({:.4} flush + {:.4} care, {rewrites} compactions), {:.0} ms",
        (cpu_flush + cpu_care) / n,
        cpu_flush / n,
        cpu_care / n,
        wall * 1000.0 / n
    );
    println!(
        "  kB a flush: {:.0} (data {:.0}, vectors {:.0}, log {:.0}, other {:.0})",
        bytes.iter().sum::<f64>(),
        bytes[0],
        bytes[1],
        bytes[2],
        bytes[3]
    );
    let (owners, index) = table.index_size();
    let (files, visible) = table.size();
    drop(table);
    let (from, began) = (cpu(), Instant::now());
    let table = KeyedTable::open_or_create(location, spec, Settings::default()).await?;
    println!(
        "  index: {owners} owners, {:.1} bytes each; rebuilt in {:.2} s ({:.2} CPU-s) from {files} files",
        index as f64 / owners as f64,
        began.elapsed().as_secs_f64(),
        cpu() - from
    );
    if table.size().1 != visible || visible != total as u64 {
        return Err(format!("{visible} rows visible, {} after opening again", table.size().1).into());
    }
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![1_000_000, 4_000_000];
    }
    for total in sizes {
        run(total).await?;
    }
    Ok(())
}
