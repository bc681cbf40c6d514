//! Data files as large as a compaction makes them, written to the lake while they grow.
//!
//! Receives rows as a [`DataFile`] does. Promises that memory holds one row group and a few parts on their way, however
//! large the file becomes, and that the file is in the lake whole or not at all: until it is described nobody sees it. One
//! that is dropped is given up; where a store keeps the parts of such an upload, its own rules clear them away.

use std::sync::Arc;

use deltalake::kernel::Add;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use super::{Codec, DataFile, PART_BYTES, PartitionValues};
use crate::error::{Error, Result};
use crate::lake::failure::store_error;
use crate::lake::log::commit::now_ms;
use crate::lake::log::schema::TableSchema;

/// Parts on their way at a time.
const PARTS_MAX: usize = 2;

/// A large data file in the making.
pub(in crate::lake) struct Upload {
    store: Arc<dyn ObjectStore>,
    partition_values: PartitionValues,
    path: String,
    file: DataFile,
    begun_ms: i64,
    /// once a part of it is complete
    parts: Option<WriteMultipart>,
}

impl Upload {
    /// An empty file of the table's columns, for rows with these partition values.
    pub(in crate::lake) fn new(
        store: &Arc<dyn ObjectStore>,
        schema: &TableSchema,
        codec: Codec,
        partition_values: PartitionValues,
    ) -> Result<Self> {
        let file = DataFile::new(schema, codec)?;
        let path = file.new_path(&partition_values);
        Ok(Upload { store: store.clone(), partition_values, path, file, begun_ms: now_ms(), parts: None })
    }

    /// The partition values of its rows.
    pub(in crate::lake) fn partition_values(&self) -> &PartitionValues {
        &self.partition_values
    }

    /// Rows so far.
    pub(in crate::lake) fn rows(&self) -> u64 {
        self.file.rows()
    }

    /// About the bytes the file would have now.
    pub(in crate::lake) fn bytes(&self) -> u64 {
        self.file.bytes() as u64
    }

    /// Appends rows; columns that are not in files are passed over.
    pub(in crate::lake) async fn push(&mut self, batch: &arrow::array::RecordBatch) -> Result<()> {
        self.file.push(batch)?;
        let Some(bytes) = self.file.take_encoded() else { return Ok(()) };
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                let path = Path::from(self.path.as_str());
                let upload = self.store.put_multipart(&path).await.map_err(failed)?;
                self.parts.insert(WriteMultipart::new_with_chunk_size(upload, PART_BYTES))
            }
        };
        // copied: a part that waits for its rest would hold the whole row group
        parts.write(&bytes);
        let Err(error) = parts.wait_for_capacity(PARTS_MAX).await else { return Ok(()) };
        if let Some(parts) = self.parts.take() {
            // the first error is the one to tell
            let _ = parts.abort().await;
        }
        Err(failed(error))
    }

    /// Ends the file and describes it.
    pub(in crate::lake) async fn write(self, data_change: bool) -> Result<Add> {
        let encoded = self.file.finish()?;
        let Some(mut parts) = self.parts else {
            return encoded.write_at(&self.store, self.path, self.partition_values, data_change).await;
        };
        let add = encoded.described(self.path, self.partition_values, data_change);
        parts.put(encoded.into_bytes());
        if let Err(error) = parts.wait_for_capacity(0).await {
            let _ = parts.abort().await;
            return Err(failed(error));
        }
        parts.finish().await.map_err(failed)?;
        // S3 dates a file by the beginning of its upload, and vacuum goes by it
        Ok(Add { modification_time: self.begun_ms, ..add })
    }
}

fn failed(e: object_store::Error) -> Error {
    store_error("writing a data file", e)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::{AsArray, BinaryArray, RecordBatch};
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use futures::{StreamExt, TryStreamExt};
    use object_store::memory::InMemory;
    use rand::rngs::StdRng;
    use rand::{Rng, RngCore, SeedableRng};

    use super::super::scan;
    use super::*;

    const ROWS: usize = 1_000;
    const ROW_BYTES: usize = 1_000;

    fn columns() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("bytes", DataType::Binary, true)]))
    }

    /// Bytes that no codec makes fewer.
    fn batch(random: &mut StdRng) -> RecordBatch {
        let mut bytes = vec![0; ROWS * ROW_BYTES];
        random.fill_bytes(&mut bytes);
        let rows = BinaryArray::from_iter_values(bytes.chunks(ROW_BYTES));
        RecordBatch::try_new(columns(), vec![Arc::new(rows)]).unwrap()
    }

    #[tokio::test]
    async fn a_large_file_leaves_memory_while_it_grows_and_is_read_as_it_was_written() {
        let seed = rand::rng().random();
        println!("seed {seed}");
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let schema = TableSchema::new(columns(), Vec::new()).unwrap();
        let mut upload = Upload::new(&store, &schema, Codec::Small, HashMap::new()).unwrap();
        let (mut random, mut most) = (StdRng::seed_from_u64(seed), 0);
        const BATCHES: usize = 80;
        for _ in 0..BATCHES {
            upload.push(&batch(&mut random)).await.unwrap();
            most = most.max(upload.file.held_bytes());
        }
        assert!(most < 48 << 20, "{most} bytes in memory");
        assert!(store.list(None).next().await.is_none(), "seen before it is whole");
        let add = upload.write(true).await.unwrap();
        assert!(add.size > 64 << 20, "{} bytes", add.size);
        assert_eq!(store.head(&Path::from(add.path.as_str())).await.unwrap().size, add.size as u64);

        let read: Vec<RecordBatch> = scan(&store, &add, columns()).await.unwrap().try_collect().await.unwrap();
        let mut read = read.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter());
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..BATCHES {
            for bytes in batch(&mut random).column(0).as_binary::<i32>() {
                assert!(read.next() == Some(bytes));
            }
        }
        assert!(read.next().is_none());
    }

    #[tokio::test]
    async fn a_small_file_is_put_whole_and_one_that_is_given_up_is_not_there() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let schema = TableSchema::new(columns(), Vec::new()).unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let mut large = Upload::new(&store, &schema, Codec::Small, HashMap::new()).unwrap();
        while large.parts.is_none() {
            large.push(&batch(&mut random)).await.unwrap();
        }
        drop(large);
        assert!(store.list(None).next().await.is_none());
        let mut small = Upload::new(&store, &schema, Codec::Fast, HashMap::new()).unwrap();
        small.push(&batch(&mut random)).await.unwrap();
        let add = small.write(true).await.unwrap();
        assert_eq!(store.head(&Path::from(add.path.as_str())).await.unwrap().size, add.size as u64);
    }
}
