//! How far the partitions of a source reach, as far as is known: a gauge for those who watch.
//!
//! Promises that noting and looking wait for nothing but each other's copying. Never a ground for a decision: what it
//! says may be some seconds old; [`super::Requests`] asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::positions::{Offsets, PartitionId};

/// What is known of one Kafka partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// offset at which this run began to read
    pub from: i64,
    /// exclusive end, as last known
    pub end: i64,
}

/// What is known of the partitions that are being read. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct KnownEnds(Arc<Mutex<BTreeMap<PartitionId, Reach>>>);

impl KnownEnds {
    /// The partition is taken up from `from` on, and reaches to `end`.
    pub(crate) fn begin(&self, id: &PartitionId, from: i64, end: i64) {
        self.with(|known| known.insert(id.clone(), Reach { from, end }));
    }

    /// The partitions reach so far by now. Of those that are not read nothing is kept.
    pub(crate) fn note(&self, ends: &Offsets) {
        self.with(|known| {
            for (id, end) in ends {
                if let Some(reach) = known.get_mut(id) {
                    reach.end = reach.end.max(*end);
                }
            }
        });
    }

    /// The topic is no longer read.
    pub(crate) fn forget(&self, topic: &str) {
        self.with(|known| known.retain(|id, _| *id.topic != *topic));
    }

    /// What is known now.
    pub fn look(&self) -> BTreeMap<PartitionId, Reach> {
        self.with(|known| known.clone())
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut BTreeMap<PartitionId, Reach>) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_grow_as_long_as_the_topic_is_read() {
        let id = |topic: &str, partition| PartitionId { topic: topic.into(), partition };
        let known = KnownEnds::default();
        known.begin(&id("a", 0), 3, 5);
        known.begin(&id("a", 1), 0, 2);
        known.note(&Offsets::from([(id("a", 0), 9), (id("a", 1), 1), (id("b", 0), 7)]));
        let reach = |from, end| Reach { from, end };
        assert_eq!(known.clone().look(), BTreeMap::from([(id("a", 0), reach(3, 9)), (id("a", 1), reach(0, 2))]));
        known.forget("a");
        assert!(known.look().is_empty());
    }
}
