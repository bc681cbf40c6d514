//! What is known of one connector: the table structures it announced and the modes its values reveal.
//!
//! Shared by the tables of the connector. [`Connector::changed`] wakes the tables that wait for a schema.

use std::sync::{Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use crate::decode::{Evidence, SchemaHistory};
use crate::record::{Block, PartitionId, Positions};

/// One connector, known by the name of its schema-change topic.
#[derive(Debug)]
pub(super) struct Connector {
    /// the schema-change topic
    pub(super) topic: String,
    history: RwLock<SchemaHistory>,
    evidence: Mutex<Evidence>,
    positions: Mutex<Positions>,
    changes: watch::Sender<u64>,
}

impl Connector {
    pub(super) fn new(topic: &str) -> Self {
        Connector {
            topic: topic.to_owned(),
            history: RwLock::default(),
            evidence: Mutex::default(),
            positions: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    /// Takes in records of the schema-change topic; each counts once, however often it is given.
    pub(super) fn take(&self, block: &Block) {
        {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
            let next = positions.entry(block.partition().clone()).or_default();
            for record in block.iter().filter(|r| r.offset >= *next) {
                if let Err(bad) = history.apply(record) {
                    tracing::warn!(topic = %self.topic, offset = record.offset, reason = %bad, "schema change cannot be read");
                }
            }
            if let Some(range) = block.range() {
                *next = range.to.max(*next);
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// True when everything before `ends` has been taken in.
    pub(super) fn has_reached(&self, ends: &Positions) -> bool {
        let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let at = |id: &PartitionId| positions.get(id).copied().unwrap_or(0);
        ends.iter().all(|(id, end)| at(id) >= *end)
    }

    /// True while no record of the schema-change topic has been seen.
    pub(super) fn is_silent(&self) -> bool {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Runs `use_it` with the history as it is now.
    pub(super) fn with_history<T>(&self, use_it: impl FnOnce(&SchemaHistory) -> T) -> T {
        use_it(&self.history.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The modes known so far.
    pub(super) fn evidence(&self) -> Evidence {
        *self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what a table learned, and wakes those that wait for it.
    pub(super) fn learn(&self, evidence: Evidence) {
        {
            let mut known = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
            let before = *known;
            // Other tables learned meanwhile: what they know stays.
            known.merge(evidence);
            if *known == before {
                return;
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// Changes whenever something was learned.
    pub(super) fn changed(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
