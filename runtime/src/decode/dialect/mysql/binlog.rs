//! Places in a binlog, and which comes first.
//!
//! Receives file names, positions and times as Debezium's source block and the schema-change topic give them. Promises an
//! order only where there is one: within one binlog by file and position, between two by the source's time.

use crate::decode::format::json::source_block::Snapshot;
use crate::model::sequence::Sequence;

/// Where something stands in a binlog.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SourcePosition {
    /// the binlog's base name, without the number
    pub base: String,
    /// numeric suffix of the file
    pub file: u64,
    /// byte position in the file
    pub pos: u64,
}

impl SourcePosition {
    /// True when it is known to stand before `other`: positions of two binlogs say nothing of each other.
    pub(crate) fn precedes(&self, other: &SourcePosition) -> bool {
        self.base == other.base && self < other
    }

    /// True when it is known to stand where `other` does or after it.
    pub(crate) fn reaches(&self, other: &SourcePosition) -> bool {
        self.base == other.base && self >= other
    }

    /// File and position, which are compared within one binlog.
    pub(crate) fn in_binlog(&self) -> (u64, u64) {
        (self.file, self.pos)
    }
}

/// Base name and number of a binlog file: `binlog.000002`.
pub(crate) fn split_file(file: &str) -> Option<(&str, u64)> {
    let (base, number) = file.rsplit_once('.')?;
    let digits = !number.is_empty() && number.len() <= 18 && number.bytes().all(|b| b.is_ascii_digit());
    if digits { Some((base, number.parse().ok()?)) } else { None }
}

/// A moment in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// where in the binlog
    pub position: SourcePosition,
    /// milliseconds since 1970; what compares two binlogs
    pub ts_ms: i64,
}

impl Moment {
    /// True of an event that stands before this moment.
    #[inline]
    pub(crate) fn is_after(&self, event: &SourceEvent<'_>) -> bool {
        if self.position.base == event.base {
            (event.file, event.pos) < self.position.in_binlog()
        } else {
            event.ts_ms < self.ts_ms
        }
    }

    /// True when this moment comes before `other`.
    pub(crate) fn precedes(&self, other: &Moment) -> bool {
        if self.position.base == other.position.base {
            self.position < other.position
        } else {
            self.ts_ms < other.ts_ms
        }
    }

    /// True when a statement told at `position` and `ts_ms` stands before this moment.
    pub fn follows(&self, position: &SourcePosition, ts_ms: i64) -> bool {
        Moment { position: position.clone(), ts_ms }.precedes(self)
    }
}

/// The event of the binlog that a record or a statement tells of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceEvent<'a> {
    /// the binlog's base name
    pub(crate) base: &'a str,
    /// the database server; 0 where unknown
    pub(crate) server: u64,
    pub(crate) file: u64,
    pub(crate) pos: u64,
    pub(crate) row: u64,
    pub(crate) ts_ms: i64,
    pub(crate) snapshot: Snapshot,
    /// the delete of a key change
    pub(crate) key_change: bool,
}

impl SourceEvent<'_> {
    /// Its sequence in `epoch`; `None` where a part of the position does not fit one.
    #[inline]
    pub(crate) fn sequence(&self, epoch: u16, rank: u8) -> Option<Sequence> {
        Sequence::new(epoch, self.file, self.pos, self.row, rank)
    }

    /// The binlog that it stands in.
    pub(crate) fn binlog(&self) -> Binlog {
        Binlog { base: self.base.to_owned(), server: self.server }
    }
}

/// One binlog of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binlog {
    pub(crate) base: String,
    /// 0 where unknown
    pub(crate) server: u64,
}

impl Binlog {
    /// True when `event` may stand in it: of a server that is unknown nothing else is asked.
    #[inline]
    pub(crate) fn may_hold(&self, event: &SourceEvent<'_>) -> bool {
        self.base == event.base && (self.server == event.server || event.server == 0 || self.server == 0)
    }

    /// True when `event` stands in exactly this one.
    #[inline]
    pub(crate) fn holds(&self, event: &SourceEvent<'_>) -> bool {
        self.server == event.server && self.base == event.base
    }
}

/// True when `sequence` is not before `newest`, by file and position alone.
#[inline]
pub(crate) fn is_ahead(sequence: Sequence, newest: Sequence) -> bool {
    (sequence.file(), sequence.pos()) >= (newest.file(), newest.pos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_taken_apart() {
        assert_eq!(split_file("mysql-bin.changelog.000123"), Some(("mysql-bin.changelog", 123)));
        assert_eq!(split_file("binlog"), None);
    }

    #[test]
    fn positions_of_two_binlogs_are_not_compared() {
        let at = |base: &str, pos| SourcePosition { base: base.into(), file: 1, pos };
        assert!(at("a", 1).precedes(&at("a", 2)) && !at("a", 2).precedes(&at("a", 2)));
        assert!(at("a", 2).reaches(&at("a", 2)) && !at("a", 1).reaches(&at("a", 2)));
        assert!(!at("a", 1).precedes(&at("b", 2)) && !at("a", 2).reaches(&at("b", 1)));
    }
}
