//! The structures that the source's tables had, and under which names.

pub(crate) mod structure;

pub(crate) mod lineage;

pub(crate) mod history;
pub(crate) mod in_force;
