//! The schema of a source table: its columns as Arrow fields, its key, and the defaults of its columns.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;

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
}

/// Shared schema; equality of the pointer means the same version.
pub type TableSchemaRef = Arc<TableSchema>;
