//! The schema of a source table: its columns as Arrow fields, its key, and the defaults of its columns.

pub(crate) mod widen;

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Fields, SchemaRef};

/// Field metadata: the column's name in the database, where it differs from the field's.
pub const SOURCE_NAME: &str = "lode.source_name";

/// Field metadata: as text, what rows have that are older than the column. Kept with the table, because an older row
/// may come when nothing else remembers it.
pub const DEFAULT: &str = "lode.default";

/// A source table as of one moment.
///
/// Types: MySQL integers by size (BIGINT UNSIGNED: `Decimal128(20,0)`), DECIMAL(p,s) `Decimal128(p,s)` (over 38
/// digits `Utf8`), FLOAT `Float32`, DOUBLE `Float64`, DATE `Date32`, DATETIME `Timestamp(µs)` without zone,
/// TIMESTAMP `Timestamp(µs, "UTC")`, TIME `Utf8`, YEAR `Int32`, BIT(1) `Boolean`, BIT(n) `Int64` (n = 64:
/// `Decimal128(20,0)`), text types, ENUM, SET, JSON `Utf8`, binary types `Binary`.
#[derive(Debug, Clone)]
pub struct TableSchema {
    /// database of the table
    pub database: String,
    /// the table's name in the database
    pub table: String,
    /// one field a column, in the table's order; key columns are not nullable, all others are
    pub fields: SchemaRef,
    /// indices of the primary key's columns, in key order; empty: the table has no primary key
    pub key: Vec<usize>,
    /// per column: an array of one value, the default that rows older than the column have; `None` is null
    pub defaults: Vec<Option<ArrayRef>>,
    /// [`Rename::mark`] of the last renaming that the fields' names know of; 0: none
    pub renamed: i64,
}

/// Columns of a source table that one statement gave other names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// offset past the record of the schema-change topic that told it; grows with every renaming of a table
    pub mark: i64,
    /// the columns, all of them renamed at once
    pub columns: Vec<RenamedColumn>,
}

/// A column that was given another name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenamedColumn {
    /// the field's name before
    pub from: String,
    /// the field's name after
    pub to: String,
    /// the name after in the database
    pub source_name: String,
    /// no earlier structure of the table had a column of this name
    pub fresh: bool,
}

impl Rename {
    /// Each of `fields` after the renaming; `None` for a column that is gone and whose name is now another's.
    pub fn carry(&self, fields: &Fields) -> Vec<Option<FieldRef>> {
        // a structure without the column does not know the name that it had before
        let known: Vec<&RenamedColumn> = self.columns.iter().filter(|c| fields.find(&c.from).is_some()).collect();
        let carried = |field: &FieldRef| {
            let Some(renamed) = known.iter().find(|c| c.from == *field.name()) else {
                let taken = known.iter().any(|c| c.to.eq_ignore_ascii_case(field.name()));
                return (!taken).then(|| Arc::clone(field));
            };
            let mut metadata = field.metadata().clone();
            metadata.remove(SOURCE_NAME);
            if renamed.to != renamed.source_name {
                metadata.insert(SOURCE_NAME.to_owned(), renamed.source_name.clone());
            }
            Some(Arc::new(field.as_ref().clone().with_name(&renamed.to).with_metadata(metadata)))
        };
        fields.iter().map(carried).collect()
    }
}

/// Shared schema; equality of the pointer means the same version.
pub type TableSchemaRef = Arc<TableSchema>;
