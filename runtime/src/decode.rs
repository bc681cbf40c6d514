//! From Kafka records of Debezium to typed changes.
//!
//! Receives [`Block`](crate::record::Block)s of one source table's topic, and the records of the connector's
//! schema-change topic. Promises [`Changes`](crate::change::Changes) whose every value is what the database held, in the
//! order of the topic, or a [`BadRow`] that says why not. A record that may be explained by a schema that is not known yet
//! is held, without a trace, until it is or until nothing more can come. Never clips, guesses or nulls a value, never
//! panics on what a record holds, never recurses deeper than a fixed limit, and allocates nothing a row.

mod classify;
mod codec;
mod column;
mod columntype;
mod connect;
mod ddl;
mod decoder;
mod envelope;
mod epoch;
mod epochtext;
mod escape;
mod evidence;
mod history;
mod json;
mod layout;
mod lineage;
mod moment;
mod output;
mod peek;
mod plan;
mod row;
mod scalar;
mod structure;
#[cfg(test)]
mod tests;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use classify::{TopicKind, classify, classify_name, schema_topic};
pub use columntype::ColumnType;
pub use decoder::Decoder;
pub use epoch::Epochs;
pub use evidence::Evidence;
pub use history::{SchemaChange, SchemaChangeKind, SchemaHistory};
pub use lineage::{Ancestor, Lineage, Moment, topic_of};
pub use output::Decoded;
pub use peek::peek;

/// A table of the source, as the database names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// the database (MySQL) the table is in
    pub database: String,
    /// the table's name
    pub table: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// Where something stands in a binlog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SourcePosition {
    /// the binlog's base name, without the number
    pub base: String,
    /// numeric suffix of the file
    pub file: u64,
    /// byte position in the file
    pub pos: u64,
}

/// The connector's `time.precision.mode`: what a number of a DATETIME or TIME column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePrecision {
    /// `adaptive_time_microseconds`, Debezium's default: DATETIME(0..3) milliseconds, DATETIME(4..6) and TIME microseconds
    AdaptiveTimeMicroseconds,
    /// `adaptive`: as above, TIME(0..3) in milliseconds
    Adaptive,
    /// `connect`: everything in milliseconds
    Connect,
    /// `microseconds`: everything in microseconds
    Microseconds,
    /// `nanoseconds`: everything in nanoseconds
    Nanoseconds,
    /// `isostring`: ISO 8601 text (text is understood in every mode)
    IsoString,
}

/// The connector's `decimal.handling.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecimalHandling {
    /// `precise`: base64 of the unscaled big-endian integer
    Precise,
    /// `string`: the digits
    String,
    /// `double`: a JSON number
    Double,
}

/// The connector's `binary.handling.mode`, as the JSON converter writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryHandling {
    /// `bytes` and `base64`: standard base64
    Base64,
    /// `base64-url-safe`
    Base64UrlSafe,
    /// `hex`
    Hex,
}

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
    /// largest record that is decoded, in bytes; a larger one is a bad row
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

/// What to do with a record that no known schema explains.
///
/// Whoever decodes a block says `LastChance` once it has read the schema-change topic to where it ended after the block
/// was fetched, and has applied all of it; without such a topic, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// stop before it: more of the schema-change topic may come
    Hold,
    /// the schema-change topic is read to its end: type it from its own schema where it has one, else make it a bad row
    LastChance,
}

/// How far [`Decoder::decode`] came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// every record of the block is decoded
    Done,
    /// records before `row` are decoded; `row` needs a schema, or evidence of a mode, that is not known yet. Worth another
    /// try when [`SchemaHistory::revision`] or the [`Evidence`] has changed
    Held {
        /// index in the block of the first record that is not decoded
        row: usize,
        /// what is missing
        reason: String,
    },
    /// records before `row` are decoded; at `row` the source's order jumps back and nothing explains it: stop the table
    Jump {
        /// index in the block of the first record that is not decoded
        row: usize,
        /// what was seen, and the next step
        reason: String,
    },
}

/// A record that cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// the record's topic
    pub topic: Arc<str>,
    /// its Kafka partition
    pub partition: i32,
    /// its offset
    pub offset: i64,
    /// why, with a next step where there is one; no values of the row, at most [`REASON_BYTES_MAX`] bytes
    pub reason: String,
}

/// Longest reason of a [`BadRow`] or [`BadRecord`], in bytes.
pub const REASON_BYTES_MAX: usize = 300;

/// A record of the schema-change topic that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// why; at most [`REASON_BYTES_MAX`] bytes
    pub reason: String,
}

impl BadRecord {
    fn new(reason: impl Into<String>) -> Self {
        BadRecord { reason: shorten(reason.into()) }
    }
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for BadRecord {}

/// Cuts a reason at a character boundary within [`REASON_BYTES_MAX`].
fn shorten(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let cut = reason.floor_char_boundary(REASON_BYTES_MAX);
        reason.truncate(cut);
    }
    reason
}
