//! Compaction.

use crate::error::Result;

/// Files to rewrite, chosen by [`super::KeyedTable::plan_compaction`].
#[derive(Debug)]
pub struct Compaction {}

/// What a compaction wrote, ready to be committed.
#[derive(Debug)]
pub struct Rewritten {}

impl Compaction {
    /// Reads the chosen files and writes the new ones. Touches no log; may run beside flushes.
    pub async fn rewrite(self) -> Result<Rewritten> {
        Err(crate::error::Error::new(crate::error::ErrorKind::Internal, "not built yet"))
    }
}
