//! Room for records that are under way: what was read and nobody has taken in yet.
//!
//! Receives how much a block takes and of which topic it is. Promises that no more than the total is under way, and that
//! topics whose records nobody takes in leave room for the others: of n topics that are read, each may hold the n+1st part.
//! Never takes room back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: usize = 1024;

/// Bytes of records that may be under way at once.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    room: Arc<Semaphore>,
    total: u32,
    /// what each topic that is read holds
    held: Mutex<HashMap<Arc<str>, usize>>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// the topic holds all it may
    OfTopic,
    /// everything is taken
    OfAll,
}

/// Room that is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    topic: Arc<str>,
    budget: Budget,
    permit: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut held = self.budget.held();
        if let Some(of_topic) = held.get_mut(&self.topic) {
            *of_topic = of_topic.saturating_sub(self.permit.num_permits());
        }
    }
}

impl Budget {
    /// A budget of `bytes`, counted in KiB.
    pub fn new(bytes: usize) -> Self {
        let total = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX / 2).max(1);
        Budget(Arc::new(Shared { room: Arc::new(Semaphore::new(total as usize)), total, held: Mutex::default() }))
    }

    /// Bytes that may be under way at once.
    pub fn bytes(&self) -> usize {
        self.0.total as usize * UNIT_BYTES
    }

    /// Bytes that are under way, each block rounded up to whole KiB.
    pub fn taken_bytes(&self) -> usize {
        (self.0.total as usize).saturating_sub(self.0.room.available_permits()) * UNIT_BYTES
    }

    /// The topic is going to be read: it counts when room is shared out.
    pub(crate) fn meet(&self, topic: &Arc<str>) {
        self.held().entry(Arc::clone(topic)).or_default();
    }

    /// Room for `bytes` of `topic`. A topic that holds nothing gets whatever is free, and a block larger than the whole
    /// budget all of it.
    pub(crate) fn take(&self, topic: &Arc<str>, bytes: usize) -> Result<Taken, Full> {
        let units = u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX).min(self.0.total);
        let mut held = self.held();
        let share = self.share(held.len());
        let own = held.entry(Arc::clone(topic)).or_default();
        if *own > 0 && *own + units as usize > share {
            return Err(Full::OfTopic);
        }
        let permit = Arc::clone(&self.0.room).try_acquire_many_owned(units).map_err(|_| Full::OfAll)?;
        *own += permit.num_permits();
        Ok(Taken { topic: Arc::clone(topic), budget: self.clone(), permit })
    }

    /// True where the topic could go on with less than half of what it may hold.
    pub(crate) fn has_room_again(&self, topic: &str) -> bool {
        let held = self.held();
        2 * held.get(topic).copied().unwrap_or(0) <= self.share(held.len())
    }

    fn share(&self, topics: usize) -> usize {
        self.0.total as usize / (topics + 1)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KB: usize = 1000;

    #[test]
    fn topics_that_nobody_takes_in_leave_room_for_the_others() {
        let budget = Budget::new(4 << 20);
        let mut kept = Vec::new();
        let sick: Vec<Arc<str>> = (0..10).map(|sick| format!("sick{sick}").into()).collect();
        sick.iter().for_each(|topic| budget.meet(topic));
        for topic in sick {
            while let Ok(room) = budget.take(&topic, 10 * KB) {
                kept.push(room);
            }
        }
        let sound: Arc<str> = "sound".into();
        assert!(budget.has_room_again("sound") && !budget.has_room_again("sick0"));
        for _ in 0..1000 {
            drop(budget.take(&sound, 10 * KB).expect("room for who takes its records in"));
        }
        let before = budget.taken_bytes();
        kept.clear();
        assert!(before > 3_500_000 && budget.taken_bytes() == 0 && budget.has_room_again("sick0"), "{before}");
    }

    #[test]
    fn one_topic_alone_is_told_that_it_is_over_its_share_before_all_is_taken() {
        let budget = Budget::new(100 * 1024);
        let topic: Arc<str> = "t".into();
        let mut kept = Vec::new();
        let full = loop {
            match budget.take(&topic, KB) {
                Ok(room) => kept.push(room),
                Err(full) => break full,
            }
        };
        assert_eq!((kept.len(), full), (50, Full::OfTopic));
        let other = budget.take(&"u".into(), 45 * KB).expect("the rest is free for others");
        assert!(matches!(budget.take(&"v".into(), 10 * KB), Err(Full::OfAll)));
        drop(other);
    }

    #[test]
    fn a_block_larger_than_everything_gets_everything() {
        let budget = Budget::new(10 * 1024);
        let topic: Arc<str> = "t".into();
        let all = budget.take(&topic, 1 << 20).expect("all of it");
        assert_eq!(budget.taken_bytes(), budget.bytes());
        assert!(budget.take(&topic, 1).is_err());
        drop(all);
        assert!(budget.take(&topic, 1).is_ok());
    }
}
