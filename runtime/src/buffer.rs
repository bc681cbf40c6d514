//! When buffered records are due.
//!
//! Receives word of what was taken in. Promises the ranges that the next commit covers, that a commit is due at the
//! first of three bounds (records, bytes, age of the oldest), and that all tables together buffer no more than twice
//! what they share. Holds no records itself: Bronze and Silver each keep theirs in builders of their own form.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::config::Flush;
use crate::model::positions::{InputId, Range, Ranges};

/// What the tables of a pipeline may buffer together. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Room {
    bytes: usize,
    taken_bytes: Arc<AtomicUsize>,
    tables: Arc<AtomicUsize>,
}

impl Room {
    /// Room for `bytes`, shared by every [`Pending`] made with it.
    pub fn new(bytes: usize) -> Self {
        Room { bytes, taken_bytes: Arc::default(), tables: Arc::default() }
    }

    /// Bytes that tables may buffer together before some commit early.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that they buffer now.
    pub fn taken_bytes(&self) -> usize {
        self.taken_bytes.load(Relaxed)
    }

    /// True where there is no room left, and a table with `bytes` has at least an equal share of it. Those with less
    /// are let alone, so that a busy table does not make the quiet ones commit crumbs.
    fn wants_back(&self, bytes: usize) -> bool {
        self.taken_bytes.load(Relaxed) > self.bytes && bytes >= self.bytes / self.tables.load(Relaxed).max(1)
    }
}

/// What has been taken in since the last commit.
#[derive(Debug)]
pub struct Pending {
    policy: Flush,
    room: Room,
    ranges: Ranges,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Pending {
    /// Nothing taken in yet.
    pub fn new(policy: Flush, room: Room) -> Self {
        room.tables.fetch_add(1, Relaxed);
        Pending { policy, room, ranges: Ranges::new(), rows: 0, bytes: 0, since: None }
    }

    /// Records of `id` in `range` were taken in. Ranges of one input must follow on each other.
    pub fn add(&mut self, id: impl Into<InputId>, range: Range, rows: usize, bytes: usize) {
        if range.is_empty() {
            return;
        }
        self.ranges.add(id, range);
        self.rows += rows;
        self.bytes += bytes;
        self.room.taken_bytes.fetch_add(bytes, Relaxed);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Nothing has been taken in since the last commit.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Records taken in since the last commit.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What the next commit covers.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The next commit would be full, or others need the room.
    pub fn is_full(&self) -> bool {
        self.rows >= self.policy.rows || self.bytes >= self.policy.bytes || self.room.wants_back(self.bytes)
    }

    /// When the next commit is due by age; `None` while nothing is pending.
    pub fn due_at(&self) -> Option<Instant> {
        self.since.map(|s| s + self.policy.age)
    }

    /// Other bounds, from now on.
    pub fn tune(&mut self, policy: Flush) {
        self.policy = policy;
    }

    /// The commit is done.
    pub fn clear(&mut self) {
        self.room.taken_bytes.fetch_sub(self.bytes, Relaxed);
        (self.rows, self.bytes, self.since) = (0, 0, None);
        self.ranges = Ranges::new();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.clear();
        self.room.tables.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::positions::PartitionId;

    const KB: usize = 1_000;

    fn pending(room: &Room) -> Pending {
        Pending::new(Flush { rows: usize::MAX, bytes: 100 * KB, age: Duration::from_secs(1) }, room.clone())
    }

    fn take(pending: &mut Pending, from: i64, bytes: usize) {
        let id = PartitionId { topic: "shop.orders".into(), partition: 0 };
        pending.add(&id, Range { from, to: from + 1 }, 1, bytes);
    }

    #[test]
    fn one_table_alone_is_full_at_its_own_bound_or_when_the_room_is() {
        let mut wide = pending(&Room::new(usize::MAX));
        take(&mut wide, 0, 99 * KB);
        assert!(!wide.is_full());
        take(&mut wide, 1, KB);
        assert!(wide.is_full());

        let mut narrow = pending(&Room::new(10 * KB));
        take(&mut narrow, 0, 10 * KB);
        assert!(!narrow.is_full());
        take(&mut narrow, 1, 1);
        assert!(narrow.is_full());
        narrow.clear();
        assert!(!narrow.is_full() && narrow.is_empty());
    }

    #[test]
    fn many_tables_together_stay_within_twice_the_room() {
        let room = Room::new(60 * KB);
        let mut tables: Vec<Pending> = (0..30).map(|_| pending(&room)).collect();
        let mut highest = 0;
        for round in 0..1_000 {
            let table = &mut tables[(round * 7) % 30];
            take(table, round as i64, KB / 2);
            if table.is_full() {
                table.clear();
            }
            highest = highest.max(room.taken_bytes.load(Relaxed));
        }
        assert!(highest > 60 * KB && highest <= 120 * KB, "{highest}");
    }

    #[test]
    fn a_quiet_table_need_not_commit_because_another_is_busy() {
        let room = Room::new(10 * KB);
        let (mut busy, mut quiet) = (pending(&room), pending(&room));
        take(&mut quiet, 0, KB);
        take(&mut busy, 0, 20 * KB);
        assert!(busy.is_full() && !quiet.is_full());
    }

    #[test]
    fn a_table_that_ends_gives_its_room_back() {
        let room = Room::new(10 * KB);
        let mut gone = pending(&room);
        take(&mut gone, 0, 9 * KB);
        drop(gone);
        let mut next = pending(&room);
        take(&mut next, 0, 10 * KB);
        assert!(!next.is_full());
    }
}
