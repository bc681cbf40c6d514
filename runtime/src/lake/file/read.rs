//! Data files, read.
//!
//! Receives what the log says of a file, and the columns asked for. Promises its rows in file order in these columns,
//! and tells a file that ends too early apart from a store that does not answer. Never holds more of it than a batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use deltalake::kernel::Add;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{Encoded, PartitionValues, READ_ROWS, read_error, store_path};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::failure::is_cut;
use crate::lake::log::schema::{batch_of, partition_value};
use crate::model::schema::widen::column_of;

/// A file of the lake as parquet reads it.
struct FileReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move {
            let read = self.store.get_range(&self.path, range).await;
            self.whole(read).await
        }
        .boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        async move {
            let read = self.store.get_ranges(&self.path, &ranges).await;
            self.whole(read).await
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(64 << 10));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

impl FileReader {
    /// What was read; an error of the store is told apart from a file that ends too early.
    async fn whole<T>(&self, read: object_store::Result<T>) -> parquet::errors::Result<T> {
        use parquet::errors::ParquetError;
        match read {
            Ok(read) => Ok(read),
            Err(_) if is_cut(self.store.as_ref(), &self.path, self.size).await => {
                Err(ParquetError::EOF(format!("the file is shorter than the `{}` bytes that the log says", self.size)))
            }
            Err(e) => Err(ParquetError::External(Box::new(e))),
        }
    }
}

/// Rows of the file that `add` describes, in file order, in the columns `fields` of the table.
pub(in crate::lake) async fn scan(
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    fields: SchemaRef,
) -> Result<BoxStream<'static, Result<RecordBatch>>> {
    let path = store_path(&add.path)?;
    let lost = format!("data file `{}`", add.path);
    let reader = FileReader { store: store.clone(), path, size: u64::try_from(add.size).unwrap_or(0) };
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchStreamBuilder::new_with_options(reader, options).await.map_err(|e| read_error(&lost, e))?;
    let here = builder.parquet_schema().root_schema().get_fields();
    let roots = here.iter().enumerate().filter(|(_, f)| fields.field_with_name(f.name()).is_ok()).map(|(at, _)| at);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
    let stream = builder.with_projection(mask).with_batch_size(READ_ROWS).build().map_err(|e| read_error(&lost, e))?;
    let partition = add.partition_values.clone();
    let aligned = stream.map(move |batch| {
        let batch = batch.map_err(|e| read_error(&lost, e))?;
        complete(&batch, &fields, &partition)
    });
    Ok(aligned.boxed())
}

/// The rows of a file that is not in the lake yet, in file order, in the columns `fields` of the table.
pub(in crate::lake) fn reread(
    file: &Encoded,
    fields: &SchemaRef,
    partition: &PartitionValues,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    const WHAT: &str = "a data file in memory";
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.bytes.clone(), options);
    let batches = builder.and_then(|b| b.with_batch_size(READ_ROWS).build()).map_err(|e| read_error(WHAT, e))?;
    Ok(batches.map(move |batch| {
        let batch =
            batch.map_err(|e| Error::new(ErrorKind::Internal, format!("{WHAT} cannot be read")).caused_by(e))?;
        complete(&batch, fields, partition)
    }))
}

fn complete(batch: &RecordBatch, fields: &SchemaRef, partition: &PartitionValues) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = fields
        .fields()
        .iter()
        .map(|field| {
            let text = partition.get(field.name());
            let one = text.map(|text| partition_value(text.as_deref(), field.data_type(), field.name())).transpose()?;
            column_of(batch, field, one.as_ref())
        })
        .collect::<Result<Vec<_>>>()?;
    // a file may hold null where a column is not null by now: the reader of these rows looks at values only
    let loose = Arc::new(arrow::datatypes::Schema::new(
        fields.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>(),
    ));
    batch_of(loose, columns, rows)
}
