//! Owners that have no row now, and floors: what the data files cannot tell a restarted process.
//!
//! Receives entries of one flush before its commit. Promises that an entry counts only when the commit it was
//! written for, or an equal one, has happened. Never holds a row.
//!
//! # Format
//!
//! Parquet files `_lode/g<generation>/owners-<uuid>.parquet` beside the table, with columns
//! `_owner` (binary, 16 bytes big endian, see [`super::key`]), `_seq` decimal(38,0), `_topic`, `_partition`, `_offset`,
//! `_kind` (`gone`: the owner has no row; `floor`: rows older than `_seq` are void; `applied`: table without key, the
//! change `_seq` with `_op` was applied, see [`super::multiset`]), `_op` (Debezium's letter), `_written` timestamp.
//!
//! An input that is a table stands as `table:<its metadata id>/g<its generation>` in `_topic`, with -1 in `_partition`.
//!
//! **An entry is valid only if its `_offset` is below the table's committed position of that input.** A file is written before the commit, so a commit that never happened leaves entries that do not count, and the same
//! entry in several files says the same. A merge writes the merged file first and deletes the others then.

use std::sync::Arc;

use arrow::array::{
    AsArray, BinaryBuilder, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::key::Owner;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::{broken, store_error};
use crate::lake::log::commit::now_ms;
use crate::lake::log::schema::{SEQ_TYPE, utc};
use crate::model::positions::{InputId, Origin, Positions};
use crate::model::sequence::Sequence;

/// More than this in one owners file is not ours.
const FILE_BYTES_MAX: u64 = 4 << 30;
const FILES_AT_ONCE: usize = 8;
/// Listings of files that others delete meanwhile.
const LISTINGS_MAX: u32 = 20;

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::lake) enum RowlessKind {
    Gone,
    Floor,
    Applied,
}

const KINDS: [(RowlessKind, &str); 3] =
    [(RowlessKind::Gone, "gone"), (RowlessKind::Floor, "floor"), (RowlessKind::Applied, "applied")];

/// One entry of an owners file.
#[derive(Debug, Clone)]
pub(in crate::lake) struct RowlessOwner {
    pub(in crate::lake) owner: Owner,
    pub(in crate::lake) seq: Sequence,
    pub(in crate::lake) origin: Origin,
    pub(in crate::lake) kind: RowlessKind,
    pub(in crate::lake) op: char,
    pub(in crate::lake) written_ms: i64,
}

impl RowlessOwner {
    /// An entry written now; `None` without an origin, since nothing would say whether it counts.
    pub(in crate::lake) fn new(
        kind: RowlessKind,
        owner: Owner,
        seq: Sequence,
        origin: Option<&Origin>,
    ) -> Option<Self> {
        Some(RowlessOwner { owner, seq, origin: origin?.clone(), kind, op: ' ', written_ms: now_ms() })
    }

    /// True when the commit this was written for, or an equal one, has happened.
    pub(in crate::lake) fn is_valid(&self, positions: &Positions) -> bool {
        positions.hold(&self.origin)
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("_owner", DataType::Binary, false),
        Field::new("_seq", SEQ_TYPE, false),
        Field::new("_topic", DataType::Utf8, false),
        Field::new("_partition", DataType::Int32, false),
        Field::new("_offset", DataType::Int64, false),
        Field::new("_kind", DataType::Utf8, false),
        Field::new("_op", DataType::Utf8, false),
        Field::new("_written", utc(), false),
    ]))
}

fn folder(generation: u64) -> Path {
    Path::from(format!("_lode/g{generation}"))
}

/// Writes `entries` as a new file; its path.
pub(in crate::lake) async fn write(
    store: &Arc<dyn ObjectStore>,
    generation: u64,
    entries: &[RowlessOwner],
) -> Result<Path> {
    let path = folder(generation).join(format!("owners-{}.parquet", uuid::Uuid::new_v4()));
    write_at(store, &path, entries).await?;
    Ok(path)
}

/// Writes `entries` as the file at `path`.
async fn write_at(store: &Arc<dyn ObjectStore>, path: &Path, entries: &[RowlessOwner]) -> Result<()> {
    let failed = |e: parquet::errors::ParquetError| {
        Error::new(ErrorKind::Internal, "an owners file cannot be written").caused_by(e)
    };
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), schema(), Some(properties)).map_err(failed)?;
    for chunk in entries.chunks(1 << 16) {
        writer.write(&batch(chunk)?).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(failed)?;
    store.put(path, bytes.into()).await.map_err(|e| store_error("writing an owners file", e))?;
    Ok(())
}

fn batch(entries: &[RowlessOwner]) -> Result<RecordBatch> {
    let mut owner = BinaryBuilder::new();
    let mut seq = Decimal128Builder::new().with_data_type(SEQ_TYPE);
    let (mut topic, mut kind, mut op) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let mut partition = Int32Builder::new();
    let mut offset = Int64Builder::new();
    let mut written = TimestampMicrosecondBuilder::new().with_data_type(utc());
    for entry in entries {
        owner.append_value(entry.owner.to_be_bytes());
        seq.append_value(i128::try_from(entry.seq.0).unwrap_or(i128::MAX));
        let (name, number) = entry.origin.input.columns();
        topic.append_value(name);
        partition.append_value(number);
        offset.append_value(entry.origin.offset);
        kind.append_value(KINDS.iter().find(|(k, _)| *k == entry.kind).map_or("", |(_, name)| name));
        op.append_value(entry.op.encode_utf8(&mut [0; 4]));
        written.append_value(entry.written_ms.saturating_mul(1000));
    }
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(owner.finish()),
            Arc::new(seq.finish()),
            Arc::new(topic.finish()),
            Arc::new(partition.finish()),
            Arc::new(offset.finish()),
            Arc::new(kind.finish()),
            Arc::new(op.finish()),
            Arc::new(written.finish()),
        ],
    )
    .map_err(|e| Error::new(ErrorKind::Internal, "an owners file cannot be written").caused_by(e))
}

/// Hands every entry of every owners file of a generation to `with`, valid or not, some perhaps twice; the files.
///
/// Another instance may merge them meanwhile: what it deleted is in the file that it wrote before, so they are listed anew.
pub(in crate::lake) async fn read_all(
    store: &Arc<dyn ObjectStore>,
    generation: u64,
    mut with: impl FnMut(RowlessOwner),
) -> Result<Vec<Path>> {
    'listing: for _ in 0..LISTINGS_MAX {
        let paths = list(store, generation).await?;
        let fetches: Vec<_> = paths.iter().map(|path| fetch(Arc::clone(store), path.clone())).collect();
        let mut files = stream::iter(fetches).buffered(FILES_AT_ONCE);
        for path in &paths {
            match files.try_next().await? {
                Some(Some(bytes)) => read(path, bytes, &mut with)?,
                _ => continue 'listing,
            }
        }
        drop(files);
        return Ok(paths);
    }
    Err(Error::new(ErrorKind::Unavailable, "the owners files are merged faster than they can be read"))
}

/// The owners files of a generation.
async fn list(store: &Arc<dyn ObjectStore>, generation: u64) -> Result<Vec<Path>> {
    let found: Vec<_> = store
        .list(Some(&folder(generation)))
        .try_collect()
        .await
        .map_err(|e| store_error("listing the owners files", e))?;
    Ok(found
        .into_iter()
        .map(|meta| meta.location)
        .filter(|path| path.filename().is_some_and(|name| name.starts_with("owners-") && name.ends_with(".parquet")))
        .collect())
}

/// The file at `path`; `None` where there is none.
async fn fetch(store: Arc<dyn ObjectStore>, path: Path) -> Result<Option<Bytes>> {
    let failed = |e| store_error("reading an owners file", e);
    let found = match store.get(&path).await {
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        found => found.map_err(failed)?,
    };
    if found.meta.size > FILE_BYTES_MAX {
        return Err(broken(format!("owners file `{path}` is too large")));
    }
    found.bytes().await.map(Some).map_err(failed)
}

/// Hands every entry of the file at `path` to `with`.
fn read(path: &Path, bytes: Bytes, with: &mut impl FnMut(RowlessOwner)) -> Result<()> {
    let bad = |what: &str| broken(format!("owners file `{path}` {what}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(8192).build())
        .map_err(|e| bad("is not readable").caused_by(e))?;
    for batch in reader {
        let batch = batch.map_err(|e| bad("is not readable").caused_by(e))?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| bad("lacks a column"));
        let text = |name: &str| column(name)?.as_string_opt::<i32>().ok_or_else(|| bad("has a column of another type"));
        let number = |name: &str| {
            column(name)?.as_primitive_opt::<Int64Type>().ok_or_else(|| bad("has a column of another type"))
        };
        let owners = column("_owner")?.as_binary_opt::<i32>().ok_or_else(|| bad("has a column of another type"))?;
        let seqs =
            column("_seq")?.as_primitive_opt::<Decimal128Type>().ok_or_else(|| bad("has a column of another type"))?;
        let partitions =
            column("_partition")?.as_primitive_opt::<Int32Type>().ok_or_else(|| bad("has a column of another type"))?;
        let written = column("_written")?
            .as_primitive_opt::<TimestampMicrosecondType>()
            .ok_or_else(|| bad("has a column of another type"))?;
        let (topics, kinds, ops) = (text("_topic")?, text("_kind")?, text("_op")?);
        let offsets = number("_offset")?;
        let mut topic: Arc<str> = Arc::from("");
        for row in 0..batch.num_rows() {
            let owner = owners.value(row).try_into().map_err(|_| bad("has an owner that is not 16 bytes"))?;
            // a kind of a later program is not ours to judge
            let Some((kind, _)) = KINDS.iter().find(|(_, name)| *name == kinds.value(row)) else { continue };
            if &*topic != topics.value(row) {
                topic = Arc::from(topics.value(row));
            }
            let input = InputId::of_columns(&topic, partitions.value(row)).ok_or_else(|| bad("names no input"))?;
            with(RowlessOwner {
                owner: u128::from_be_bytes(owner),
                seq: Sequence(seqs.value(row).unsigned_abs()),
                origin: Origin { input, offset: offsets.value(row) },
                kind: *kind,
                op: ops.value(row).chars().next().unwrap_or(' '),
                written_ms: written.value(row) / 1000,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;
    use crate::model::positions::PartitionId;

    #[tokio::test]
    async fn files_that_are_merged_while_they_are_read_are_read_all_the_same() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let late = ThrottleConfig { wait_get_per_call: Duration::from_millis(20), ..ThrottleConfig::default() };
        let slow: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(Arc::clone(&store), late));
        let entry = |owner| {
            let input = PartitionId { topic: "shop.orders".into(), partition: 0 }.into();
            RowlessOwner::new(RowlessKind::Gone, owner, Sequence(1), Some(&Origin { input, offset: 7 })).unwrap()
        };
        for owner in 0..20 {
            write(&store, 0, &[entry(owner)]).await.unwrap();
        }
        let mut owners = BTreeSet::new();
        let reading = read_all(&slow, 0, |entry| {
            owners.insert(entry.owner);
        });
        // The files are listed first; each is got 20 ms later, when it is no more.
        let merging = async {
            let before = list(&store, 0).await.unwrap();
            write(&store, 0, &(0..20).map(entry).collect::<Vec<_>>()).await.unwrap();
            for path in &before {
                store.delete(path).await.unwrap();
            }
            before.len()
        };
        let (read, merged) = tokio::join!(reading, merging);
        assert_eq!((read.unwrap().len(), merged), (1, 20));
        assert!(owners.into_iter().eq(0..20));
    }
}
