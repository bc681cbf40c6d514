//! Data files: written once, read in row order.
//!
//! Receives rows in the table's columns. Promises files with statistics that hold for every row in them, and reads
//! whose rows count from 0 as the file has them, in the columns asked for: partition values added, narrower types
//! widened, absent columns null. Never knows which rows are hidden.
pub(super) mod stats;
pub(super) mod upload;
pub(super) mod deletion_vector;
pub(super) mod live_files;
mod read;

pub use live_files::Extent;
pub(super) use read::{reread, scan};

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, filter_record_batch, take, take_record_batch};
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use deltalake::kernel::Add;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};

use roaring::RoaringBitmap;

use super::failure::{lake_error, store_error};
use super::log::commit::now_ms;
use super::log::schema::{TableSchema, batch_of, partition_text};
use crate::error::{Error, ErrorKind, Result};
use crate::model::schema::widen::widen;
use stats::Stats;

const ROW_GROUP_ROWS: usize = 1 << 20;
const FAST_PAGE_BYTES_MAX: usize = 128 << 10;
/// Compressed; what a reader that takes a row group at a time has in memory is, of JSON, about eight times as much.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// A larger file goes to the lake in parts of this size.
pub(super) const PART_BYTES: usize = 8 << 20;
const READ_ROWS: usize = 8192;

/// Value of each partition column, as the log writes it.
pub(super) type PartitionValues = HashMap<String, Option<String>>;

/// How rows fall into partitions: for each, its values and the rows in it.
pub(super) type Split = Vec<(PartitionValues, Option<UInt32Array>)>;

/// Separates the rows of `batch` by their partition values; rows `None` is all of them.
pub(super) fn split(batch: &RecordBatch, schema: &TableSchema, partitions_max: usize) -> Result<Split> {
    if schema.partition_by.is_empty() {
        return Ok(vec![(HashMap::new(), None)]);
    }
    let bad = |e: arrow::error::ArrowError| {
        Error::new(ErrorKind::Internal, "rows cannot be separated by partition").caused_by(e)
    };
    let columns = schema
        .partition_by
        .iter()
        .map(|name| {
            batch
                .column_by_name(name)
                .cloned()
                .ok_or_else(|| Error::new(ErrorKind::Internal, format!("partition column `{name}` is missing")))
        })
        .collect::<Result<Vec<_>>>()?;
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let rows = RowConverter::new(fields).map_err(bad)?.convert_columns(&columns).map_err(bad)?;
    let mut groups: hashbrown::HashMap<&[u8], usize> = hashbrown::HashMap::new();
    let mut members: Vec<Vec<u32>> = Vec::new();
    for row in 0..batch.num_rows() {
        let value = rows.row(row).data();
        let group = *groups.entry(value).or_insert_with(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        if members.len() > partitions_max {
            return Err(Error::new(
                ErrorKind::Config,
                format!("one batch has rows of more than `{partitions_max}` partition values"),
            )
            .hint("partition by a column with fewer values"));
        }
        if let Some(group) = members.get_mut(group) {
            group.push(row as u32);
        }
    }
    let alone = members.len() == 1;
    members
        .into_iter()
        .map(|rows| {
            let first = rows.first().copied().unwrap_or(0) as usize;
            let mut values = HashMap::new();
            for (name, column) in schema.partition_by.iter().zip(&columns) {
                values.insert(name.clone(), partition_text(column.as_ref(), first)?);
            }
            Ok((values, (!alone).then(|| UInt32Array::from(rows))))
        })
        .collect()
}

/// Rows `rows` of `batch`.
pub(super) fn pick(batch: &RecordBatch, rows: Option<&UInt32Array>) -> Result<RecordBatch> {
    match rows {
        None => Ok(batch.clone()),
        Some(rows) => take_record_batch(batch, rows)
            .map_err(|e| Error::new(ErrorKind::Internal, "rows cannot be picked").caused_by(e)),
    }
}

/// The visible rows of a batch that begins at row `first` of its file.
pub(in crate::lake) fn shown(batch: &RecordBatch, first: u32, hidden: &RoaringBitmap) -> Result<Option<RecordBatch>> {
    let rows = batch.num_rows() as u32;
    let some = hidden.range_cardinality(first..first.saturating_add(rows));
    if some == 0 {
        return Ok((rows > 0).then(|| batch.clone()));
    }
    if some >= u64::from(rows) {
        return Ok(None);
    }
    let keep: BooleanArray = (first..first + rows).map(|row| Some(!hidden.contains(row))).collect();
    filter_record_batch(batch, &keep)
        .map(Some)
        .map_err(|e| Error::new(ErrorKind::Internal, "rows cannot be filtered").caused_by(e))
}

/// Rows `rows` of one column.
pub(super) fn pick_column(column: &ArrayRef, rows: &UInt32Array) -> Result<ArrayRef> {
    take(column, rows, None).map_err(|e| Error::new(ErrorKind::Internal, "rows cannot be picked").caused_by(e))
}

/// Columns that hold what came, whole: nobody looks for a range of them, and comparing them costs.
pub(super) const WHOLE_RECORDS: [&str; 5] = ["_key", "_key_bytes", "_value", "_value_bytes", "_headers"];

/// How a data file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Rows that a compaction will soon read and write again: Snappy, as most writers of Delta have it, in pages that stay
    /// in a core's cache from the first value to the last compressed byte.
    Fast,
    /// Rows that stay: zstd, about half the bytes.
    Small,
}

impl Codec {
    fn properties(self) -> WriterPropertiesBuilder {
        let properties = WriterProperties::builder();
        match self {
            // As a rule it is one row group, of which the log tells what statistics would.
            Codec::Fast => properties
                .set_compression(Compression::SNAPPY)
                .set_data_page_size_limit(FAST_PAGE_BYTES_MAX)
                .set_statistics_enabled(EnabledStatistics::None),
            Codec::Small => properties
                .set_compression(Compression::ZSTD(ZstdLevel::default()))
                .set_statistics_enabled(EnabledStatistics::Chunk),
        }
    }

    /// As it stands in the names of files, which readers do not look at and people do.
    fn name(self) -> &'static str {
        match self {
            Codec::Fast => "snappy",
            Codec::Small => "zstd",
        }
    }
}

/// A data file in the making, held in memory.
pub(super) struct DataFile {
    schema: SchemaRef,
    partition_by: Vec<String>,
    codec: Codec,
    writer: ArrowWriter<Vec<u8>>,
    stats: Stats,
    rows: u64,
    /// bytes that were taken out of the writer
    taken: usize,
}

impl DataFile {
    /// An empty file of the table's columns.
    pub(super) fn new(schema: &TableSchema, codec: Codec) -> Result<Self> {
        let fields = schema.in_files();
        // values of changed rows seldom repeat within a flush: dictionaries cost and do not pay
        let mut properties = codec
            .properties()
            .set_dictionary_enabled(false)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_offset_index_disabled(true);
        for column in WHOLE_RECORDS {
            properties = properties.set_column_statistics_enabled(column.into(), EnabledStatistics::None);
        }
        let properties = properties.build();
        let options = parquet::arrow::arrow_writer::ArrowWriterOptions::new()
            .with_properties(properties)
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), fields.clone(), options).map_err(parquet_error)?;
        let partition_by = schema.partition_by.clone();
        Ok(DataFile { stats: Stats::of(&fields), schema: fields, partition_by, codec, writer, rows: 0, taken: 0 })
    }

    /// Appends rows; columns that are not in files are passed over.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                let column = batch
                    .column_by_name(field.name())
                    .ok_or_else(|| Error::new(ErrorKind::Internal, format!("column `{}` is missing", field.name())))?;
                widen(column, field.data_type(), field.name())
            })
            .collect::<Result<Vec<_>>>()?;
        let batch = batch_of(self.schema.clone(), columns, batch.num_rows())?;
        self.stats.push(&batch);
        self.rows += batch.num_rows() as u64;
        self.writer.write(&batch).map_err(parquet_error)
    }

    /// Rows so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// About the bytes the file would have now.
    pub(super) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Bytes of it in memory.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes() - self.taken
    }

    /// A name for it that no other file has.
    pub(super) fn new_path(&self, partition_values: &PartitionValues) -> String {
        new_path(&self.partition_by, partition_values, self.codec)
    }

    /// Takes out the bytes that are complete, `None` while they are too few for a part. What is taken out is the
    /// caller's to keep, in order: [`Self::finish`] gives the rest.
    pub(super) fn take_encoded(&mut self) -> Option<Vec<u8>> {
        if self.writer.inner().len() < PART_BYTES {
            return None;
        }
        let bytes = std::mem::take(self.writer.inner_mut());
        self.taken += bytes.len();
        Some(bytes)
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<Encoded> {
        let stats = self.stats.text(self.rows);
        let bytes: Bytes = self.writer.into_inner().map_err(parquet_error)?.into();
        let size = self.taken + bytes.len();
        Ok(Encoded { bytes, size, partition_by: self.partition_by, codec: self.codec, stats })
    }

    /// Puts the file under a new name and describes it.
    pub(super) async fn write(
        self,
        store: &Arc<dyn ObjectStore>,
        partition_values: PartitionValues,
        data_change: bool,
    ) -> Result<Add> {
        self.finish()?.write(store, partition_values, data_change).await
    }
}

/// A data file that is whole, and not in the lake yet; or what of it was not taken out before.
#[derive(Debug)]
pub(super) struct Encoded {
    bytes: Bytes,
    /// of the whole file, in bytes
    size: usize,
    partition_by: Vec<String>,
    codec: Codec,
    stats: String,
}

impl Encoded {
    /// Puts the file under a new name and describes it.
    pub(super) async fn write(
        &self,
        store: &Arc<dyn ObjectStore>,
        partition_values: PartitionValues,
        data_change: bool,
    ) -> Result<Add> {
        let path = new_path(&self.partition_by, &partition_values, self.codec);
        self.write_at(store, path, partition_values, data_change).await
    }

    /// Puts the file under the name `path` and describes it.
    pub(super) async fn write_at(
        &self,
        store: &Arc<dyn ObjectStore>,
        path: String,
        partition_values: PartitionValues,
        data_change: bool,
    ) -> Result<Add> {
        put(store, &Path::from(path.as_str()), self.bytes.clone()).await?;
        Ok(self.described(path, partition_values, data_change))
    }

    /// The whole file as the log names it, once it is at `path`.
    pub(super) fn described(&self, path: String, partition_values: PartitionValues, data_change: bool) -> Add {
        Add {
            path,
            partition_values,
            size: self.size as i64,
            modification_time: now_ms(),
            data_change,
            stats: Some(self.stats.clone()),
            ..Add::default()
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

fn new_path(partition_by: &[String], values: &PartitionValues, codec: Codec) -> String {
    format!("{}part-{}.{}.parquet", folder(partition_by, values), uuid::Uuid::new_v4(), codec.name())
}

/// The folder of files with these partition values, `column=value/` a column. The log says the values, and most readers
/// ask nothing else; Polars takes them from the folders. A value of other characters than letters, digits, `_`, `-` and
/// `.`, or a long one, stands in the log alone: stores and readers do not agree on how a path escapes it.
fn folder(partition_by: &[String], values: &PartitionValues) -> String {
    const NULL: &str = "__HIVE_DEFAULT_PARTITION__";
    const BYTES_MAX: usize = 200;
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let mut folder = String::new();
    for column in partition_by {
        let value = values.get(column).and_then(Option::as_deref).unwrap_or(NULL);
        if !plain(column) || !plain(value) || column.len() + value.len() > BYTES_MAX {
            return String::new();
        }
        folder.push_str(&format!("{column}={value}/"));
    }
    folder
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, bytes: Bytes) -> Result<()> {
    let failed = |e| store_error("writing a data file", e);
    if bytes.len() <= PART_BYTES {
        return store.put(path, bytes.into()).await.map(|_| ()).map_err(failed);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(path).await.map_err(failed)?, PART_BYTES);
    upload.put(bytes);
    upload.finish().await.map(|_| ()).map_err(failed)
}

/// The one value of `one`, `rows` times.
pub(super) fn repeat(one: &ArrayRef, rows: usize) -> Result<ArrayRef> {
    pick_column(one, &UInt32Array::from(vec![0u32; rows]))
}

/// All of `batches` as one.
pub(super) fn join(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    concat_batches(schema, batches).map_err(|e| Error::new(ErrorKind::Internal, "rows cannot be joined").caused_by(e))
}

/// A path of the log in the store.
pub(super) fn store_path(path: &str) -> Result<Path> {
    if path.contains("://") {
        return Err(Error::new(ErrorKind::Corrupt, format!("data file `{path}` lies outside the table"))
            .hint("the table is a shallow clone of another: copy it whole instead"));
    }
    Path::parse(path)
        .map_err(|e| Error::new(ErrorKind::Corrupt, format!("data file `{path}` has no usable name")).caused_by(e))
}

fn parquet_error(e: parquet::errors::ParquetError) -> Error {
    Error::new(ErrorKind::Internal, "a data file cannot be written").caused_by(e)
}

fn read_error(what: &str, e: parquet::errors::ParquetError) -> Error {
    lake_error(format!("{what} cannot be read"), e)
}
