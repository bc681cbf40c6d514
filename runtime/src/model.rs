//! The nouns that every stage shares: records and how far they were taken in, changes and their order, structures, tables.
//!
//! Plain values without a stage's knowledge: nothing here reads, writes or waits.

pub mod positions;
pub mod record;
pub mod sequence;
pub mod schema;
pub mod change;
pub mod table_id;
