//! What the tasks of the tables are made of.

pub(super) mod derivation;
pub(super) mod upkeep;
pub(super) mod writer;
