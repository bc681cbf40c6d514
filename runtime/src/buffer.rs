//! When buffered records are due.
//!
//! Receives word of what was taken in. Promises the ranges that the next commit covers, and that a commit is due at
//! the first of three bounds: records, bytes, age of the oldest. Holds no records itself: Bronze and Silver each
//! keep theirs in builders of their own form.

use std::time::Instant;

use crate::config::Flush;
use crate::record::{PartitionId, Range, Ranges};

/// What has been taken in since the last commit.
#[derive(Debug)]
pub struct Pending {
    policy: Flush,
    ranges: Ranges,
    rows: usize,
    bytes: usize,
    since: Option<Instant>,
}

impl Pending {
    /// Nothing taken in yet.
    pub fn new(policy: Flush) -> Self {
        Pending { policy, ranges: Ranges::new(), rows: 0, bytes: 0, since: None }
    }

    /// Records of `id` in `range` were taken in. Ranges of one partition must follow on each other.
    pub fn add(&mut self, id: &PartitionId, range: Range, rows: usize, bytes: usize) {
        if range.from >= range.to {
            return;
        }
        match self.ranges.get_mut(id) {
            Some(known) => known.to = range.to,
            None => {
                self.ranges.insert(id.clone(), range);
            }
        }
        self.rows += rows;
        self.bytes += bytes;
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

    /// The next commit would be full.
    pub fn is_full(&self) -> bool {
        self.rows >= self.policy.rows || self.bytes >= self.policy.bytes
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
        *self = Pending::new(self.policy);
    }
}
