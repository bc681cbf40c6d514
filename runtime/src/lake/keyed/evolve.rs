//! New and wider columns.
//!
//! Receives the columns a table is to have and what old rows hold in those that are new. Promises one commit with the new
//! schema and, where old files would not fit it, every file rewritten: no type-widening feature is asked of readers. Only
//! ever adds and widens. Never drops a column, nor makes a value another.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde_json::{Map, Value, json};

use super::KeyedTable;
use super::key::Owner;
use super::reader::OwnerReader;
use super::rename::Renaming;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::file::live_files::LiveFile;
use crate::lake::file::repeat;
use crate::lake::log::commit::{Attempts, Put};
use crate::lake::log::schema::{TableSchema, batch_of};
use crate::lake::{OWNER, Outcome};
use crate::model::schema::widen::{widen, widens};

pub(in crate::lake) const ROUNDS_MAX: u32 = 8;

/// How rows change while they are rewritten.
#[derive(Debug, Clone, Default)]
pub(in crate::lake) struct Evolution {
    /// one value an added column
    pub(in crate::lake) fills: HashMap<String, ArrayRef>,
    /// columns that get another name
    pub(in crate::lake) renaming: Option<Renaming>,
    /// rows read differently afterwards
    pub(in crate::lake) data_change: bool,
}

/// `rows` with renamed columns renamed and added ones filled, and their owners where the image is the owner and has
/// changed.
pub(in crate::lake) fn fill(
    rows: RecordBatch,
    evolution: &Evolution,
    reader: &OwnerReader,
    owners: &[Owner],
) -> Result<(RecordBatch, Option<Vec<Owner>>)> {
    if evolution.fills.is_empty() && evolution.renaming.is_none() {
        return Ok((rows, None));
    }
    // only where the stored owner is the image of this row: a transform may have made the row from another
    let images = if reader.is_keyless() { Some(reader.images(&rows)?) } else { None };
    let rows = match &evolution.renaming {
        Some(renaming) => renaming.apply(&rows)?,
        None => rows,
    };
    let rows = fill_columns(&rows, evolution)?;
    let (schema, count) = (rows.schema(), rows.num_rows());
    let Some(images) = images else { return Ok((rows, None)) };
    let now = reader.images(&rows)?;
    let becomes: Vec<Owner> = owners
        .iter()
        .zip(images.iter().zip(&now))
        .map(|(owner, (was, is))| if owner == was { *is } else { *owner })
        .collect();
    let stored: ArrayRef = Arc::new(BinaryArray::from_iter_values(becomes.iter().map(|owner| owner.to_be_bytes())));
    let columns = schema
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| if field.name() == OWNER { stored.clone() } else { column.clone() })
        .collect();
    Ok((batch_of(schema, columns, count)?, Some(becomes)))
}

/// A table's columns as they are now, to ask without the table what they could become.
#[derive(Debug, Clone)]
pub struct Columns(TableSchema);

impl Columns {
    /// Whether [`KeyedTable::evolve`] would bring them to `fields`.
    ///
    /// # Errors
    /// `Misfit` where a column would have to become narrower or another type, or clashes.
    pub fn takes(&self, fields: &SchemaRef) -> Result<()> {
        changed(&self.0, fields).map(drop)
    }
}

impl KeyedTable {
    /// The columns as they are now.
    pub fn columns(&self) -> Columns {
        Columns(self.committer.schema.clone())
    }
}

/// `rows` with the added columns filled.
pub(in crate::lake) fn fill_columns(rows: &RecordBatch, evolution: &Evolution) -> Result<RecordBatch> {
    let columns = rows
        .schema_ref()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| match evolution.fills.get(field.name()) {
            Some(one) => repeat(&widen(one, field.data_type(), field.name())?, rows.num_rows()),
            None => Ok(column.clone()),
        })
        .collect::<Result<Vec<_>>>()?;
    batch_of(rows.schema(), columns, rows.num_rows())
}

fn values_of(file: &LiveFile) -> Vec<(String, Option<String>)> {
    let mut values: Vec<_> = file.add.partition_values.clone().into_iter().collect();
    values.sort_unstable();
    values
}

/// The table's columns after the change, and the names of those that get wider in files.
pub(in crate::lake) fn changed(
    now: &TableSchema,
    fields: &SchemaRef,
) -> Result<(TableSchema, Vec<String>, Vec<String>)> {
    let (mut wider, mut added) = (Vec::new(), Vec::new());
    let mut all: Vec<FieldRef> = Vec::new();
    for field in now.data.fields() {
        let wanted = fields.fields().iter().find(|f| f.name() == field.name());
        let to = match wanted {
            Some(wanted) if widens(wanted.data_type(), field.data_type()) => field.data_type(),
            Some(wanted) if widens(field.data_type(), wanted.data_type()) => {
                if !now.partition_by.contains(field.name()) {
                    wider.push(field.name().clone());
                }
                wanted.data_type()
            }
            Some(wanted) => {
                return Err(Error::new(
                    ErrorKind::Misfit,
                    format!(
                        "column `{}` is {} and cannot become {}",
                        field.name(),
                        field.data_type(),
                        wanted.data_type()
                    ),
                )
                .hint("`lode rebuild` makes the table anew"));
            }
            None => field.data_type(),
        };
        all.push(Arc::new(field.as_ref().clone().with_data_type(to.clone())));
    }
    for field in fields.fields() {
        if all.iter().any(|f| f.name() == field.name()) {
            continue;
        }
        if now.own().contains(&field.name().as_str()) || all.iter().any(|f| f.name().eq_ignore_ascii_case(field.name()))
        {
            return Err(Error::new(
                ErrorKind::Misfit,
                format!("column `{}` clashes with one of the table", field.name()),
            )
            .hint("Delta does not tell upper from lower case in names"));
        }
        added.push(field.name().clone());
        all.push(Arc::new(field.as_ref().clone().with_nullable(true)));
    }
    let own = now.all.fields().iter().filter(|f| now.data.field_with_name(f.name()).is_err()).cloned();
    // own columns stay where they are, before or after the others: statistics cover only the first columns
    let leading = now.all.fields().first().is_some_and(|f| now.own().contains(&f.name().as_str()));
    let all = if leading { own.chain(all).collect() } else { all.into_iter().chain(own).collect::<Vec<_>>() };
    let schema = TableSchema::new(Arc::new(Schema::new(all)), now.partition_by.clone())?;
    Ok((schema.with_own(now.own()), wider, added))
}

/// Of `fills`, those of added columns that are one value, in the column's type.
pub(in crate::lake) fn due_fills(
    schema: &TableSchema,
    added: &[String],
    fills: &HashMap<String, ArrayRef>,
) -> Result<HashMap<String, ArrayRef>> {
    let mut due = HashMap::new();
    for name in added {
        if let (Some(one), Ok(field)) = (fills.get(name), schema.all.field_with_name(name))
            && one.len() == 1
            && one.null_count() == 0
        {
            due.insert(name.clone(), widen(one, field.data_type(), name)?);
        }
    }
    Ok(due)
}

/// `metadata` with the columns of `schema`.
pub(in crate::lake) fn with_columns(mut metadata: Value, schema: &TableSchema) -> Result<Value> {
    let members =
        metadata.as_object_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "the table's metadata is no object"))?;
    members.insert("schemaString".to_string(), Value::from(schema.schema_string()?));
    Ok(metadata)
}

impl KeyedTable {
    /// Brings the table to the columns `fields`: adds those it lacks and widens those that are wider there; columns
    /// that `fields` lacks stay, narrower ones stay wide. `fills` holds, for an added column, an array of one value: what
    /// the rows have that are there already (absent: null). Returns the version that has the columns.
    ///
    /// Errors: `Config` when a column would change into a type that does not hold its values; nothing is changed then.
    pub async fn evolve(&mut self, fields: &SchemaRef, fills: &HashMap<String, ArrayRef>) -> Result<Outcome> {
        for _ in 0..ROUNDS_MAX {
            let before = self.committer.schema.clone();
            let (schema, wider, added) = changed(&before, fields)?;
            if wider.is_empty() && added.is_empty() && schema.all.fields() == before.all.fields() {
                return Ok(Outcome::AlreadyCommitted { version: self.committer.version });
            }
            let due = due_fills(&schema, &added, fills)?;
            let metadata = self.metadata_due().unwrap_or_else(|| self.committer.metadata.clone());
            let metadata = with_columns(metadata, &schema)?;
            let mut first = vec![json!({"metaData": metadata})];
            if schema.has_ntz() && !before.has_ntz() {
                first.insert(0, json!({"protocol": schema.protocol(true)}));
            }
            let done = if wider.is_empty() && due.is_empty() {
                self.commit_actions("ADD COLUMNS", &first).await?
            } else {
                let evolution = Evolution { data_change: !due.is_empty(), fills: due, renaming: None };
                let mut compaction = self.compaction(self.files_by_partition(), Some(evolution));
                compaction.use_schema(schema.clone());
                let rewritten = compaction.rewrite().await?;
                self.commit_rewritten(rewritten, "CHANGE COLUMN", &first).await?
            };
            if done {
                self.committer.schema = schema;
                self.committer.metadata = metadata;
                self.memo_due = None;
                return Ok(Outcome::Committed(self.committer.version));
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers change the table faster than its columns can be changed"))
    }

    /// Every data file, those of one partition together.
    pub(in crate::lake) fn files_by_partition(&self) -> Vec<u32> {
        let mut files: Vec<_> = self.files.iter().map(|(id, file)| (values_of(file), id)).collect();
        files.sort_unstable();
        files.into_iter().map(|(_, id)| id).collect()
    }

    /// Commits actions that touch no file; false when the table moved meanwhile and they must be made anew.
    pub(in crate::lake) async fn commit_actions(&mut self, operation: &str, actions: &[Value]) -> Result<bool> {
        let mut attempts = Attempts::of(operation, Map::new());
        loop {
            match attempts.put(&self.committer, actions).await? {
                Put::Written => {
                    self.committer.advance();
                    return Ok(true);
                }
                Put::Taken(other) => {
                    let metadata = other.metadata.is_some();
                    self.overtaken(*other).await?;
                    if metadata {
                        return Ok(false);
                    }
                }
            }
        }
    }
}
