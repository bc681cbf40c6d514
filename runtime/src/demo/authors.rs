//! Which module made each row of a Silver table, by the table's own log.
//!
//! Reads the data files of every commit that added rows, as long as they are there (a demo vacuums nothing). Promises
//! the hash that the commit names, for each version of each row: compaction moves rows and makes none.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::SEQ;

/// Hash of the module by key and sequence of the row, both as texts; an empty hash: the commit names none.
pub(super) type Authors = HashMap<(String, String), String>;

/// The authors of every row that the table in `folder`, whose key is `key`, ever had.
///
/// # Errors
/// `Corrupt` for a log or a data file that cannot be read.
pub(super) fn authors(folder: &Path, key: &str) -> Result<Authors> {
    let mut authors = Authors::new();
    for version in 0_u64.. {
        let Ok(text) = std::fs::read_to_string(folder.join(format!("_delta_log/{version:020}.json"))) else { break };
        let actions: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let hash =
            actions.iter().find_map(|action| action["commitInfo"]["lode"]["module"].as_str()).unwrap_or_default();
        // A file that is removed and added in one commit only got another deletion vector.
        let kept: Vec<&str> = actions.iter().filter_map(|action| action["remove"]["path"].as_str()).collect();
        let added = actions.iter().map(|action| &action["add"]).filter(|add| add["dataChange"] == true);
        for path in added.filter_map(|add| add["path"].as_str()).filter(|path| !kept.contains(path)) {
            for row in keys_and_sequences(&folder.join(path), key)? {
                authors.insert(row, hash.to_owned());
            }
        }
    }
    Ok(authors)
}

fn keys_and_sequences(file: &Path, key: &str) -> Result<Vec<(String, String)>> {
    let broken = || Error::new(ErrorKind::Corrupt, format!("data file `{}` cannot be read", file.display()));
    let open = File::open(file).map_err(|e| broken().caused_by(e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(open).map_err(|e| broken().caused_by(e))?;
    let columns = ProjectionMask::columns(reader.parquet_schema(), [key, SEQ]);
    let batches = reader.with_projection(columns).build().map_err(|e| broken().caused_by(e))?;
    let mut rows = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|e| broken().caused_by(e))?;
        rows.extend(texts(&batch, key)?.into_iter().zip(texts(&batch, SEQ)?));
    }
    Ok(rows)
}

/// The values of a column as texts.
///
/// # Errors
/// `Corrupt` where there is no such column, or a value that has no text.
pub(super) fn texts(batch: &RecordBatch, column: &str) -> Result<Vec<String>> {
    let broken = || Error::new(ErrorKind::Corrupt, format!("column `{column}` cannot be read"));
    let values = batch.column_by_name(column).ok_or_else(broken)?;
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(values.as_ref(), &options).map_err(|e| broken().caused_by(e))?;
    let text = |row| formatter.value(row).try_to_string().map_err(|e| broken().caused_by(e));
    (0..batch.num_rows()).map(text).collect()
}
