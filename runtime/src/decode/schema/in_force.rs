//! Which structure of a table is in force at a position.
//!
//! Receives a table's entries of the history. Promises the last one at or before a position, and within which positions
//! it stays that one, so that the next record costs two comparisons.

use super::history::StructureFrom;

/// The entry in force within some positions of one binlog.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce {
    /// of the history that it was looked up in
    revision: u64,
    from: (u64, u64),
    to: (u64, u64),
    /// index of the entry; `None`: the table's first structure begins later
    pub(crate) entry: Option<usize>,
}

impl InForce {
    /// The entry in force at file and position `at` of the binlog `base`. A table of which nothing is told in that binlog
    /// is looked up in the others.
    pub(crate) fn at(entries: &[StructureFrom], revision: u64, base: &str, at: (u64, u64)) -> InForce {
        let told_here = entries.iter().any(|e| e.position.base == base);
        let mut found = InForce { revision, from: (0, 0), to: (u64::MAX, u64::MAX), entry: None };
        for (index, entry) in entries.iter().enumerate() {
            if told_here && entry.position.base != base {
                continue;
            }
            let position = entry.position.in_binlog();
            if position <= at {
                if position >= found.from {
                    found.from = position;
                    found.entry = Some(index);
                }
            } else {
                found.to = found.to.min(position);
            }
        }
        found
    }

    /// True when the same entry is in force at `at` of the same binlog.
    #[inline]
    pub(crate) fn holds(&self, revision: u64, at: (u64, u64)) -> bool {
        self.revision == revision && self.from <= at && at < self.to
    }
}
