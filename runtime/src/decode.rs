//! From Kafka records of Debezium to typed changes.
//!
//! Receives [`Block`](crate::model::record::Block)s of one source table's topic, and the records of the connector's
//! schema-change topic. Promises [`Changes`](crate::model::change::Changes) whose every value is what the database held, in the
//! order of the topic, or a [`BadRecord`] that says why not. A record that may be explained by a structure that is not
//! known yet is held, without a trace, until it is or until nothing more can come. Never clips, guesses or nulls a value,
//! never panics on what a record holds, never recurses deeper than a fixed limit, and allocates nothing a row.
//!
//! The rooms, each of which knows only those before it: `format` takes a record's JSON apart, `value` reads one value,
//! `dialect` is what only one database says, `order` places records in the source's order, `schema` remembers what the
//! tables were like; the files beside them put these together.

mod bad_record;
mod dialect;
mod format;
mod order;
mod schema;
mod settings;
mod table_name;
mod value;

mod classify;
mod current_table;
mod decoder;
mod output;
mod plan;
mod row;
mod step;
#[cfg(test)]
mod tests;

pub use bad_record::{BadRecord, BadSchemaChange, REASON_BYTES_MAX};
pub use classify::{TopicKind, classify, classify_name, schema_topic, topic_of};
pub use decoder::Decoder;
pub use dialect::mysql::binlog::{Moment, SourcePosition};
pub use dialect::mysql::types::column_type as mysql_column_type;
pub use format::json::op_and_time::op_and_time;
pub use order::epochs::Epochs;
pub use output::Decoded;
pub use schema::history::{SchemaChange, SchemaChangeKind, SchemaHistory};
pub use schema::lineage::{Ancestor, Lineage};
pub use settings::{RECORD_BYTES_MAX, Settings};
pub use step::{Patience, Step};
pub use table_name::TableName;
pub use value::column_type::ColumnType;
pub use value::modes::{BinaryHandling, DecimalHandling, Evidence, TimePrecision};
