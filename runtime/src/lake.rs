//! The Delta tables of the lake: Bronze by append, Silver and Gold by replacing the rows of changed owners.
//!
//! Receives Arrow columns with the ranges of the inputs they come from. Promises that a table's data, its deletion vectors
//! and its positions move together in one Delta commit, that every commit is made by one function
//! ([`commit`]), and that what happened is decided by reading the log, never by an answer that did not come.
//! Never talks to Kafka, never runs a module, never uses MERGE.
//!
//! # What lasts on disk
//!
//! - `txn` application id `lode/g<generation>/<topic>/<partition>`, version = next offset of that Kafka partition; of an
//!   input that is a table `lode/g<generation>/table:<its metadata id>/g<its generation>`, version = its next Delta
//!   version (no topic has a colon in its name; see [`crate::model::positions::InputId`]).
//! - Table configuration: `lode.generation`, `lode.key` (JSON list of the owner key's columns; empty list: no key),
//!   `lode.epochs` (opaque text of the decoder), `lode.table` (`<layer>/<name>`), `lode.renamed` (offset past the schema
//!   change whose renaming of columns was followed last), `lode.freshness` (`differs`; absent: newer).
//! - Columns beside the data: `_seq` decimal(38,0), `_source_ts` timestamp (UTC, µs), and in tables without a key
//!   `_owner` (16 bytes, the hash of the source row's image, see [`key`]). In a table that replaces rows when they differ
//!   instead of all these `_fingerprint` decimal(38,0): the upper 126 bits of the hash of the row's image, of an owner
//!   with several rows their sum.
//! - Data files lie in the table's root, those of a partition in `column=value/` (see [`files`]); partition values are in
//!   the log.
//! - Deletion vectors as [`vector`] describes; owners without rows in `_lode/` as [`owners`] describes.
//! - The feed of a table, where it has one, is a Delta table of its own: see [`changes`].
//! - `commitInfo` holds an object `lode` given by the caller, with a `batch` of ours that is unique.

mod location;
mod failure;
mod freshness;
mod log;
mod file;
mod append;
mod keyed;
mod feed;
mod upkeep;
pub mod query;
pub mod dead_letters;

#[cfg(test)]
pub(crate) mod tests;

use std::time::Duration;

use arrow::datatypes::SchemaRef;

pub use append::{BronzeDraft, BronzeFiles, BronzeRows, BronzeTable, bronze_schema};
pub(crate) use failure::lake_error;
pub use feed::{CHANGE, ChangesTable, FeedSelection, NewestRows};
pub use file::Extent;
pub use freshness::Freshness;
pub use keyed::{
    ChangeSet, Columns, Committed, Difference, Follower, KeyedTable, Memo, Next, Owner, OwnerRows, Rebuild, Selection,
    images_of, owners_of,
};
pub use location::{Location, map_conflicts};
pub use log::positions_of;
pub(crate) use log::{delta_table, turn};
pub use upkeep::{AppendOnly, Compaction, Maintained, Pace, Packed, Rewritten, Vacuumed};

/// Name of the table with what was set aside: see [`dead_letters`].
pub const DEAD_LETTERS: &str = "dead_letters";

/// Column with the change's [`crate::model::sequence::Sequence`].
pub const SEQ: &str = "_seq";
/// Column with the source's time of the change.
pub const SOURCE_TS: &str = "_source_ts";
/// Column with the fingerprint of an owner's rows, in tables that replace rows when they differ: see [`Freshness`].
pub const FINGERPRINT: &str = "_fingerprint";
/// Column with the owner's hash, in tables without a key.
pub const OWNER: &str = "_owner";

/// What a keyed table is to be.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// `<layer>/<name>`, kept as `lode.table`
    pub name: String,
    /// the columns, without `_seq`, `_source_ts`, `_owner` and `_fingerprint`, which the table adds
    pub fields: SchemaRef,
    /// the owner key's columns in key order, all of them in `fields`; empty: the source table has no key
    pub key: Vec<String>,
    /// [`crate::model::schema::Rename::mark`] of the last renaming that the names in `fields` know of
    pub renamed: i64,
    /// columns whose values separate files; Delta cannot tell empty text from null in them, so a flush with empty text
    /// there is refused
    pub partition_by: Vec<String>,
    /// which rebuild of the table this is; 0 for the first
    pub generation: u64,
    /// which rows take the place of others
    pub freshness: Freshness,
}

/// Settings of a table, with defaults a careful engineer would keep.
#[derive(Debug, Clone)]
pub struct Settings {
    /// vectors up to this many bytes go into the log itself
    pub inline_vector_bytes: usize,
    /// compaction aims at files of this size
    pub target_file_bytes: u64,
    /// files below this are candidates to be joined
    pub small_file_bytes: u64,
    /// compaction waits for this many small files of one partition value
    pub small_files_min: usize,
    /// a file with more than this share of its rows hidden is rewritten, with those of its partition that nearly have it; vectors
    /// of a large table grow with it, rewriting does not: a quarter keeps the sum of both within 1.3 at four times the rows
    pub hidden_ratio: f64,
    /// one compaction reads at most this many bytes (and holds about 48 bytes a row of them)
    pub compaction_bytes_max: u64,
    /// a checkpoint is due after this many commits
    pub checkpoint_every: u64,
    /// how often a commit is tried before the error is handed back
    pub commit_attempts: u32,
    /// the longest any one request to the lake may take
    pub request_timeout: Duration,
    /// vacuum keeps files that a version younger than this uses
    pub vacuum_retention: Duration,
    /// owners without rows are remembered this long
    pub owners_window: Duration,
    /// owners files are merged when there are more than this
    pub owners_files_max: usize,
    /// records of a block read back from Bronze
    pub block_rows: usize,
    /// distinct partition values in one flush
    pub partitions_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            inline_vector_bytes: 1024,
            target_file_bytes: 128 << 20,
            small_file_bytes: 32 << 20,
            small_files_min: 16,
            hidden_ratio: 0.25,
            compaction_bytes_max: 256 << 20,
            checkpoint_every: 50,
            commit_attempts: 8,
            request_timeout: Duration::from_secs(60),
            vacuum_retention: Duration::from_secs(7 * 24 * 3600),
            owners_window: Duration::from_secs(7 * 24 * 3600),
            owners_files_max: 16,
            block_rows: 50_000,
            partitions_max: 1024,
        }
    }
}

/// How a commit ended. `C` tells of one that was made: the version of the Delta table, or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<C = u64> {
    /// what was to be committed is in the table
    Committed(C),
    /// the table had the whole range already, by an earlier attempt of ours or an equal one
    AlreadyCommitted {
        /// version of the Delta table that was read
        version: u64,
    },
    /// another instance moved the table's positions: drop the batch and read the positions again
    Fenced,
}
