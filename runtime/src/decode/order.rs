//! The order of a table's changes across servers, binlogs and snapshots.

pub(crate) mod epochs;
mod epochs_text;
