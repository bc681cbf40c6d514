//! What the pipeline file says about one table's records.

use std::collections::BTreeMap;

use super::value::column_type::ColumnType;
use super::value::modes::{BinaryHandling, DecimalHandling, TimePrecision};

/// Largest record that is decoded when nothing else is set, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// What the pipeline file says about one table's records. `None` is inferred.
#[derive(Debug, Clone)]
pub struct Settings {
    /// what numbers in time columns count
    pub time_precision: Option<TimePrecision>,
    /// how DECIMAL is written
    pub decimal_handling: Option<DecimalHandling>,
    /// how binary columns are written; `None` is base64
    pub binary_handling: Option<BinaryHandling>,
    /// types of columns, by their name in the database; they win over what any schema says
    pub columns: BTreeMap<String, ColumnType>,
    /// largest record that is decoded, in bytes; a larger one is a bad record
    pub record_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            time_precision: None,
            decimal_handling: None,
            binary_handling: None,
            columns: BTreeMap::new(),
            record_bytes_max: RECORD_BYTES_MAX,
        }
    }
}
