//! Records that cannot be read, and why.
//!
//! A reason is short and holds no value of a row: it goes to logs and dead letters.

use std::fmt;
use std::sync::Arc;

/// A record of a table's topic that cannot be read; its reader stores it as a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// the record's topic
    pub topic: Arc<str>,
    /// its Kafka partition
    pub partition: i32,
    /// its offset
    pub offset: i64,
    /// why, with a next step where there is one; no values of the row, at most [`REASON_BYTES_MAX`] bytes
    pub reason: String,
}

/// Longest reason of a [`BadRecord`] or [`BadSchemaChange`], in bytes.
pub const REASON_BYTES_MAX: usize = 300;

/// Why a record of the schema-change topic cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadSchemaChange {
    /// why; at most [`REASON_BYTES_MAX`] bytes
    pub reason: String,
}

impl BadSchemaChange {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        BadSchemaChange { reason: shorten(reason.into()) }
    }
}

impl fmt::Display for BadSchemaChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for BadSchemaChange {}

/// Cuts a reason at a character boundary within [`REASON_BYTES_MAX`].
pub(crate) fn shorten(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
        reason.truncate(cut);
    }
    reason
}
