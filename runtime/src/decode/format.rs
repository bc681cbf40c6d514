//! How Debezium writes a record, whatever the database.
//!
//! Receives the bytes of keys and values. Promises places in those bytes. Knows nothing of tables and types.

pub(crate) mod embedded_schema;
pub(crate) mod json;
