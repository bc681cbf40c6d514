//! Columns that get another name.
//!
//! Receives one renaming of the source's columns. Promises one commit in which every row has its value under the new name
//! and the old name is gone, every file rewritten: no column mapping is asked of readers. A renaming that the table
//! has followed is never followed again. Never loses a value that a row had under the new name already.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::is_not_null;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde_json::{Map, Value, json};

use super::KeyedTable;
use super::evolve::{Evolution, ROUNDS_MAX};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Outcome;
use crate::lake::log::schema::{TableSchema, batch_of};
use crate::model::schema::Rename;

/// Configuration: the [`Rename::mark`] that the table has followed.
pub(in crate::lake) const RENAMED: &str = "lode.renamed";

/// How rows get their new names.
#[derive(Debug, Clone)]
pub(in crate::lake) struct Renaming {
    /// the columns of before, every one
    pub(in crate::lake) before: SchemaRef,
    /// the columns of after, and for each its column of before; a second one where rows may have their value under the
    /// new name already
    columns: Vec<(FieldRef, String, Option<String>)>,
}

impl Renaming {
    fn new(before: &TableSchema, rename: &Rename) -> Result<Self> {
        let fields = before.data.fields();
        let mut columns: Vec<(FieldRef, String, Option<String>)> = Vec::new();
        for (old, new) in fields.iter().zip(rename.carry(fields)) {
            let Some(new) = new else { continue };
            let fresh = rename.columns.iter().any(|c| c.from == *old.name() && c.fresh);
            let ahead = fields.iter().find(|f| fresh && f.name() == new.name() && f.name() != old.name());
            if let Some(ahead) = ahead
                && ahead.data_type() != old.data_type()
            {
                return Err(cannot(old.name(), new.name(), "which the table has with another type"));
            }
            if columns.iter().any(|(f, ..)| f.name().eq_ignore_ascii_case(new.name())) {
                return Err(cannot(old.name(), new.name(), "a name that another column has"));
            }
            if old.name() != new.name() && before.partition_by.contains(old.name()) {
                return Err(cannot(old.name(), new.name(), "because the table is partitioned by it"));
            }
            columns.push((new, old.name().clone(), ahead.map(|f| f.name().clone())));
        }
        for field in before.all.fields().iter().filter(|f| before.data.field_with_name(f.name()).is_err()) {
            columns.push((Arc::clone(field), field.name().clone(), None));
        }
        Ok(Renaming { before: Arc::clone(&before.all), columns })
    }

    fn is_empty(&self) -> bool {
        self.columns.iter().all(|(field, from, _)| field.name() == from)
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|(field, ..)| Arc::clone(field)).collect::<Vec<_>>()))
    }

    fn name_of(&self, before: &str) -> String {
        let found = self.columns.iter().find(|(_, from, _)| from == before);
        found.map_or_else(|| before.to_owned(), |(field, ..)| field.name().clone())
    }

    /// `rows` of before with the columns of after.
    pub(in crate::lake) fn apply(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let lost = || Error::new(ErrorKind::Internal, "columns cannot be renamed");
        let column = |name: &str| rows.column_by_name(name).cloned().ok_or_else(lost);
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|(_, from, ahead)| {
                let Some(ahead) = ahead else { return column(from) };
                let has: BooleanArray = is_not_null(&column(from)?).map_err(|e| lost().caused_by(e))?;
                zip(&has, &column(from)?, &column(ahead)?).map_err(|e| lost().caused_by(e))
            })
            .collect::<Result<_>>()?;
        let loose: Vec<_> = self.columns.iter().map(|(f, ..)| f.as_ref().clone().with_nullable(true)).collect();
        batch_of(Arc::new(Schema::new(loose)), columns, rows.num_rows())
    }
}

fn cannot(from: &str, to: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("column `{from}` cannot become `{to}`, {why}"))
        .hint("`lode rebuild` makes the table anew")
}

impl KeyedTable {
    /// [`Rename::mark`] of the last renaming that the table's columns know of; 0: none.
    pub fn renamed(&self) -> i64 {
        let mark = self.committer.metadata.get("configuration").and_then(|all| all.get(RENAMED)?.as_str());
        mark.and_then(|mark| mark.parse().ok()).unwrap_or(0)
    }

    /// Gives columns the names that `rename` gave them in the source. A column of that name that the source has dropped
    /// before goes away.
    ///
    /// Errors: `Config` when the table cannot have those names; nothing is changed then.
    pub async fn rename(&mut self, rename: &Rename) -> Result<Outcome> {
        for _ in 0..ROUNDS_MAX {
            if self.renamed() >= rename.mark {
                return Ok(Outcome::AlreadyCommitted { version: self.committer.version });
            }
            let renaming = Renaming::new(&self.committer.schema, rename)?;
            let schema = TableSchema::new(renaming.schema(), self.committer.schema.partition_by.clone())?
                .with_own(self.committer.schema.own());
            let key: Vec<String> = self.key.iter().map(|name| renaming.name_of(name)).collect();
            let metadata = self.renamed_metadata(&schema, &key, rename.mark)?;
            let first = [json!({"metaData": metadata})];
            let done = if renaming.is_empty() {
                self.commit_actions("RENAME COLUMN", &first).await?
            } else {
                let evolution = Evolution { data_change: true, renaming: Some(renaming), ..Evolution::default() };
                let mut compaction = self.compaction(self.files_by_partition(), Some(evolution));
                compaction.use_schema(schema.clone());
                let rewritten = compaction.rewrite().await?;
                self.commit_rewritten(rewritten, "RENAME COLUMN", &first).await?
            };
            if done {
                self.committer.schema = schema;
                self.committer.metadata = metadata;
                self.key = key;
                return Ok(Outcome::Committed(self.committer.version));
            }
        }
        Err(Error::new(ErrorKind::Conflict, "other writers change the table faster than its columns can be renamed"))
    }

    fn renamed_metadata(&self, schema: &TableSchema, key: &[String], mark: i64) -> Result<Value> {
        let mut metadata = self.committer.metadata.clone();
        let broken = || Error::new(ErrorKind::Internal, "the table's metadata is no object");
        let members = metadata.as_object_mut().ok_or_else(broken)?;
        members.insert("schemaString".to_string(), Value::from(schema.schema_string()?));
        let configuration = members.entry("configuration").or_insert_with(|| Value::Object(Map::new()));
        let configuration = configuration.as_object_mut().ok_or_else(broken)?;
        configuration.insert("lode.key".to_string(), Value::from(json!(key).to_string()));
        configuration.insert(RENAMED.to_string(), Value::from(mark.to_string()));
        Ok(metadata)
    }
}
