//! What the tasks of the tables are made of.

pub(super) mod upkeep;
