//! The versions of a table's rows, from its feed of changes: which one was in force at a time.
//!
//! Receives changes in any order, each once. Promises for a key and a time the version in force by the source's own order and
//! clock: the last one whose time is not after it, where a change whose clock is behind that of an earlier one counts from
//! that one on; before the first that is known, the first; none where the row was deleted by then, or a truncate took it.
//! Never holds a row: they lie in [`Rows`], keyed by the table's key and the change's sequence.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, TimestampMicrosecondType};
use hashbrown::{HashMap, HashSet};

use super::Slot;
use super::rows::{Taken, column};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Owner, owners_of};

/// The feed's columns that say what a change is, in which order, and when it was made.
#[derive(Debug, Clone)]
pub struct FeedColumns {
    /// `delete` and `truncate` leave no row
    pub change: String,
    /// `decimal(38,0)`
    pub seq: String,
    /// microseconds
    pub time: String,
}

/// A change of one key.
#[derive(Debug, Clone, Copy)]
struct Change {
    seq: i128,
    time_us: i64,
    /// `None`: no row is left
    row: Option<Slot>,
}

/// The versions of every key.
#[derive(Debug)]
pub struct Versions {
    key: Vec<String>,
    feed: FeedColumns,
    slots: HashMap<Owner, Slot>,
    /// of each key its changes, in the source's order once settled
    changes: Vec<Vec<Change>>,
    /// what took the rows of every key
    truncates: Vec<Change>,
    /// of each version's slot, its key
    keys: Vec<Slot>,
    /// keys whose changes are not in order
    stale: HashSet<Slot>,
}

impl Versions {
    /// No change yet, of a table with this key.
    pub fn new(key: &[String], feed: FeedColumns) -> Self {
        Versions {
            key: key.to_vec(),
            feed,
            slots: HashMap::new(),
            changes: Vec::new(),
            truncates: Vec::new(),
            keys: Vec::new(),
            stale: HashSet::new(),
        }
    }

    /// The slots of keys, whose columns are in key order; none where one of them is null.
    ///
    /// # Errors
    /// `Config` where a column has a type that no key has.
    pub fn slots_of(&mut self, key: &[ArrayRef]) -> Result<Vec<Option<Slot>>> {
        let is_null = |row: usize| key.iter().any(|column| column.is_null(row));
        let owners = owners_of(key)?;
        Ok(owners.into_iter().enumerate().map(|(row, owner)| (!is_null(row)).then(|| self.slot(owner))).collect())
    }

    fn slot(&mut self, owner: Owner) -> Slot {
        let next = self.changes.len() as Slot;
        let slot = *self.slots.entry(owner).or_insert(next);
        if slot == next {
            self.changes.push(Vec::new());
        }
        slot
    }

    /// Takes in changes that were added to the feed; the keys that have others by that.
    ///
    /// # Errors
    /// `Internal` where a column is missing.
    pub fn take_in(&mut self, taken: &Taken) -> Result<Vec<Slot>> {
        let Some(rows) = &taken.rows else { return Ok(Vec::new()) };
        let key = self.key.iter().map(|name| column(rows, name)).collect::<Result<Vec<_>>>()?;
        let keys = self.slots_of(&key)?;
        let changes = self.read(rows)?;
        let mut touched = Vec::with_capacity(keys.len());
        for ((key, slot), (change, leaves_row)) in keys.into_iter().zip(&taken.came).zip(changes) {
            let Some(key) = key else { continue };
            if let Some(of_key) = self.changes.get_mut(key as usize) {
                of_key.push(Change { row: leaves_row.then_some(*slot), ..change });
            }
            if self.keys.len() <= *slot as usize {
                self.keys.resize(*slot as usize + 1, Slot::MAX);
            }
            if let Some(of_slot) = self.keys.get_mut(*slot as usize) {
                *of_slot = key;
            }
            touched.push(key);
        }
        self.stale.extend(touched.iter().copied());
        Ok(touched)
    }

    /// Takes in the truncates among rows of the feed; true where there is a new one.
    ///
    /// # Errors
    /// `Internal` where a column is missing.
    pub fn take_in_truncates(&mut self, rows: &RecordBatch) -> Result<bool> {
        let kinds = column(rows, &self.feed.change)?;
        let kinds = kinds.as_string_opt::<i32>().ok_or_else(|| unfit(&self.feed.change))?;
        if !kinds.iter().any(|kind| kind == Some("truncate")) {
            return Ok(false);
        }
        let before = self.truncates.len();
        for ((change, _), kind) in self.read(rows)?.into_iter().zip(kinds) {
            if kind == Some("truncate") && self.truncates.iter().all(|known| known.seq != change.seq) {
                self.truncates.push(change);
            }
        }
        self.truncates.sort_unstable_by_key(|truncate| truncate.seq);
        Ok(self.truncates.len() > before)
    }

    /// The key that a version is of.
    pub fn of(&self, version: Slot) -> Option<Slot> {
        self.keys.get(version as usize).copied().filter(|key| *key != Slot::MAX)
    }

    /// Every key that has changes.
    pub fn keys(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.changes.len()).map(|key| key as Slot)
    }

    /// The changes of a batch, each with whether it leaves a row; none of them knows its slot.
    fn read(&self, rows: &RecordBatch) -> Result<Vec<(Change, bool)>> {
        let (kinds, seqs, times) =
            (column(rows, &self.feed.change)?, column(rows, &self.feed.seq)?, column(rows, &self.feed.time)?);
        let kinds = kinds.as_string_opt::<i32>().ok_or_else(|| unfit(&self.feed.change))?;
        let seqs = seqs.as_primitive_opt::<Decimal128Type>().ok_or_else(|| unfit(&self.feed.seq))?;
        let times = times.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| unfit(&self.feed.time))?;
        let one = |row| {
            let time_us = if times.is_valid(row) { times.value(row) } else { i64::MIN };
            let leaves_row = kinds.is_valid(row) && !matches!(kinds.value(row), "delete" | "truncate");
            (Change { seq: seqs.value(row), time_us, row: None }, leaves_row)
        };
        Ok((0..rows.num_rows()).map(one).collect())
    }

    /// Puts the changes of every key in order.
    pub fn settle(&mut self) {
        for key in self.stale.drain() {
            if let Some(changes) = self.changes.get_mut(key as usize) {
                changes.sort_by_key(|change| change.seq);
            }
        }
    }

    /// The version of a key in force at `time_us`, as last settled; `None` for a time: the newest.
    pub fn at(&self, key: Slot, time_us: Option<i64>) -> Option<Slot> {
        let changes = self.changes.get(key as usize)?;
        let first = changes.iter().find(|change| change.row.is_some())?;
        let mut in_force = None;
        let (mut clock, mut truncates) = (i64::MIN, self.truncates.iter().peekable());
        for change in changes {
            while let Some(truncate) = truncates.next_if(|truncate| truncate.seq < change.seq) {
                if truncate.seq > first.seq {
                    clock = clock.max(truncate.time_us);
                    if time_us.is_some_and(|time| clock > time) {
                        return in_force.map_or(first.row, |of: Change| of.row);
                    }
                    in_force = Some(*truncate);
                }
            }
            clock = clock.max(change.time_us);
            if time_us.is_some_and(|time| clock > time) {
                return in_force.map_or(first.row, |of| of.row);
            }
            in_force = Some(*change);
        }
        for truncate in truncates.filter(|truncate| truncate.seq > first.seq) {
            clock = clock.max(truncate.time_us);
            if time_us.is_some_and(|time| clock > time) {
                break;
            }
            in_force = Some(*truncate);
        }
        in_force.map_or(first.row, |of| of.row)
    }

    /// Bytes that knowing them takes.
    pub fn bytes(&self) -> usize {
        self.slots.capacity() * (size_of::<(Owner, Slot)>() + 1)
            + self.keys.capacity() * size_of::<Slot>()
            + self
                .changes
                .iter()
                .map(|of| of.capacity() * size_of::<Change>() + size_of::<Vec<Change>>())
                .sum::<usize>()
    }
}

fn unfit(name: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("`{name}` of a feed has another type than feeds have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(changes: &[(i128, i64, bool)], truncates: &[(i128, i64)]) -> Versions {
        let names = FeedColumns { change: String::new(), seq: String::new(), time: String::new() };
        let mut versions = Versions::new(&[], names);
        let change = |(row, (seq, time_us, stays)): (usize, &(i128, i64, bool))| Change {
            seq: *seq,
            time_us: *time_us,
            row: stays.then_some(row as Slot),
        };
        versions.changes = vec![changes.iter().enumerate().map(change).collect()];
        versions.truncates =
            truncates.iter().map(|(seq, time_us)| Change { seq: *seq, time_us: *time_us, row: None }).collect();
        versions.stale.insert(0);
        versions.settle();
        versions
    }

    #[test]
    fn the_version_in_force_is_found_by_order_and_clock() {
        // the second came late, and its clock is behind the first's
        let all = versions(&[(10, 100, true), (30, 300, true), (20, 90, true), (40, 400, false), (50, 500, true)], &[]);
        let at = |time| all.at(0, Some(time));
        assert_eq!(at(5), Some(0), "before the first that is known");
        assert_eq!(at(99), Some(0));
        assert_eq!(at(100), Some(2), "what follows an earlier change is not before it");
        assert_eq!(at(299), Some(2));
        assert_eq!(at(300), Some(1));
        assert_eq!(at(400), None, "deleted");
        assert_eq!(at(500), Some(4));
        assert_eq!(all.at(0, None), Some(4));
        assert_eq!(all.at(7, Some(1)), None, "a key that was never met");
    }

    #[test]
    fn a_truncate_takes_every_row_until_one_comes_again() {
        let all = versions(&[(10, 100, true), (30, 300, true)], &[(5, 50), (20, 200), (60, 600)]);
        let at = |time| all.at(0, Some(time));
        assert_eq!((at(60), at(150), at(200), at(250), at(300)), (Some(0), Some(0), None, None, Some(1)));
        assert_eq!((at(599), at(600), all.at(0, None)), (Some(1), None, None));
    }

    #[test]
    fn where_nothing_but_a_delete_is_known_there_is_no_version() {
        assert_eq!(versions(&[(10, 100, false)], &[]).at(0, Some(5)), None);
        assert_eq!(versions(&[(10, 100, false), (20, 200, true)], &[]).at(0, Some(5)), Some(1));
    }
}
