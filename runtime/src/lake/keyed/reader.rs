//! Data files as an index needs them: whose each row is, and what marks it.
//!
//! Receives the add action of a file. Promises its rows that readers see, in file order, with owner and sequence (or
//! fingerprint); needs neither the table nor its log, and may run beside commits. Keeps no row.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use deltalake::kernel::Add;
use futures::TryStreamExt;
use roaring::RoaringBitmap;

use super::key::{Hasher, Owner};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::OWNER;
use crate::lake::file::deletion_vector;
use crate::lake::file::live_files::LiveFile;
use crate::lake::file::scan;
use crate::lake::log::schema::TableSchema;
use crate::model::sequence::Sequence;

/// The visible rows of one file: row number, owner, sequence.
pub(in crate::lake) type Rows = Vec<(u32, Owner, Sequence)>;

/// A file read for the index.
pub(in crate::lake) struct Read {
    pub(in crate::lake) file: LiveFile,
    pub(in crate::lake) rows: Rows,
}

/// Reads data files for the index.
#[derive(Debug, Clone)]
pub(in crate::lake) struct OwnerReader {
    pub(in crate::lake) committer_store: Arc<dyn object_store::ObjectStore>,
    schema: TableSchema,
    key: Vec<String>,
    hasher: Hasher,
}

impl OwnerReader {
    /// Reads files with the columns of `schema`, whose owners are told by the columns `key`.
    pub(in crate::lake) fn new(
        committer_store: Arc<dyn object_store::ObjectStore>,
        schema: TableSchema,
        key: Vec<String>,
        hasher: Hasher,
    ) -> Self {
        OwnerReader { committer_store, schema, key, hasher }
    }

    /// The visible rows of a file with their owners and sequences.
    pub(in crate::lake) async fn read(&self, add: Add) -> Result<Read> {
        let hidden = match &add.deletion_vector {
            Some(vector) => deletion_vector::read(&self.committer_store, vector).await?,
            None => RoaringBitmap::new(),
        };
        let (rows, total) = self.rows(&add, |row| !hidden.contains(row)).await?;
        Ok(Read { file: LiveFile { add, rows: total, hidden, vector_ms: None }, rows })
    }

    /// Owners and sequences of the rows that `wanted` names, and the number of all rows in the file.
    pub(in crate::lake) async fn rows(&self, add: &Add, wanted: impl Fn(u32) -> bool) -> Result<(Rows, u32)> {
        let names: Vec<&str> = if self.key.is_empty() {
            vec![OWNER, self.schema.mark()]
        } else {
            self.key.iter().map(String::as_str).chain([self.schema.mark()]).collect()
        };
        let fields = self.columns(&names)?;
        let mut rows = Rows::new();
        let mut total = 0u32;
        let mut batches = scan(&self.committer_store, add, fields).await?;
        let mut owners_due = false;
        while let Some(batch) = batches.try_next().await? {
            let seqs = sequences(&batch, self.schema.mark())?;
            let owners = match self.key.as_slice() {
                [] => stored_owners(&batch)?,
                key => {
                    let columns = batch.columns().get(..key.len()).unwrap_or_default();
                    self.hasher.owners(columns)?.into_iter().map(Some).collect()
                }
            };
            for (owner, seq) in owners.into_iter().zip(seqs) {
                if wanted(total) {
                    owners_due |= owner.is_none();
                    rows.push((total, owner.unwrap_or(0), seq));
                }
                total = total.checked_add(1).ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, format!("data file `{}` has over 2^32 rows", add.path))
                })?;
            }
        }
        if owners_due {
            self.fill_owners(add, &mut rows).await?;
        }
        Ok((rows, total))
    }

    /// Rows that another engine wrote into a table without key have no owner stored: it is their image.
    async fn fill_owners(&self, add: &Add, rows: &mut Rows) -> Result<()> {
        let mut batches = scan(&self.committer_store, add, self.schema.data.clone()).await?;
        let mut images = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            images.extend(self.hasher.batch_images(&batch)?);
        }
        for (row, owner, _) in rows.iter_mut().filter(|(_, owner, _)| *owner == 0) {
            *owner = images.get(*row as usize).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// The owner of each row of `batch`, which has every column of the table.
    pub(in crate::lake) fn owners(&self, batch: &RecordBatch) -> Result<Vec<Owner>> {
        if self.key.is_empty() {
            let stored = stored_owners(batch)?;
            if stored.iter().all(Option::is_some) {
                return Ok(stored.into_iter().map(|owner| owner.unwrap_or(0)).collect());
            }
            let images = self.images(batch)?;
            return Ok(stored.into_iter().zip(images).map(|(stored, image)| stored.unwrap_or(image)).collect());
        }
        let key =
            self.key
                .iter()
                .map(|name| {
                    batch.column_by_name(name).cloned().ok_or_else(|| {
                        Error::new(ErrorKind::Corrupt, format!("the table has lost its column `{name}`"))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
        self.hasher.owners(&key)
    }

    /// The hash of each row's image: its columns without the table's own.
    pub(in crate::lake) fn images(&self, batch: &RecordBatch) -> Result<Vec<Owner>> {
        let columns: Vec<_> = batch
            .schema_ref()
            .fields()
            .iter()
            .zip(batch.columns())
            .filter(|(field, _)| !self.schema.own().contains(&field.name().as_str()))
            .map(|(field, column)| (field.name().as_str(), column))
            .collect();
        self.hasher.images(&columns, batch.num_rows())
    }

    /// True of a table without a key.
    pub(in crate::lake) fn is_keyless(&self) -> bool {
        self.key.is_empty()
    }

    fn columns(&self, names: &[&str]) -> Result<SchemaRef> {
        let fields = names
            .iter()
            .map(|name| {
                self.schema.all.fields().find(name).map(|(_, field)| field.clone()).ok_or_else(|| {
                    Error::new(ErrorKind::Corrupt, format!("the table has lost its column `{name}`"))
                        .hint("`lode rebuild` makes the table anew")
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn sequences(batch: &RecordBatch, name: &str) -> Result<Vec<Sequence>> {
    use arrow::array::{Array, AsArray};
    let column = batch
        .column_by_name(name)
        .and_then(|c| c.as_primitive_opt::<arrow::datatypes::Decimal128Type>())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("the table's column `{name}` is not decimal(38,0)")))?;
    let seq = |row| if column.is_null(row) { 0 } else { u128::try_from(column.value(row)).unwrap_or(0) };
    Ok((0..column.len()).map(|row| Sequence(seq(row))).collect())
}

fn stored_owners(batch: &RecordBatch) -> Result<Vec<Option<Owner>>> {
    use arrow::array::AsArray;
    let column = batch
        .column_by_name(OWNER)
        .and_then(|c| c.as_binary_opt::<i32>())
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the table's column `_owner` is not binary"))?;
    Ok(column.iter().map(|bytes| Some(Owner::from_be_bytes(bytes?.try_into().ok()?))).collect())
}
