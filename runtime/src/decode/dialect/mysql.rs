//! What only MySQL and MariaDB say: how a place in the binlog is written and compared, how types are spelled, what a DDL
//! statement does, what a new column holds in old rows, and what a record of the schema-change topic looks like.
//!
//! Plain functions and types without a memory. Who remembers structures and orders records asks here.

pub(crate) mod binlog;
pub(crate) mod types;

pub(crate) mod ddl;
pub(crate) mod defaults;

pub(crate) mod schema_topic;
