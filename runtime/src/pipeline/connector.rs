//! What is known of one connector: the table structures it announced and the modes its values reveal.
//!
//! Shared by the tables of the connector. [`Connector::changed`] wakes the tables that wait for a schema.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use crate::decode::{Evidence, Lineage, SchemaChange, SchemaChangeKind, SchemaHistory, TableName};
use crate::record::{Block, Offsets, PartitionId, Positions};

/// One connector, known by the name of its schema-change topic.
#[derive(Debug)]
pub(super) struct Connector {
    /// the schema-change topic
    pub(super) topic: String,
    history: RwLock<SchemaHistory>,
    clearings: Mutex<HashMap<TableName, Vec<Clearing>>>,
    evidence: Mutex<Evidence>,
    positions: Mutex<Offsets>,
    changes: watch::Sender<u64>,
}

/// A statement that left a table without the rows it had, and the Kafka partition of the record that told it.
#[derive(Debug, Clone)]
pub(super) struct Clearing {
    pub(super) told_in: PartitionId,
    pub(super) change: SchemaChange,
}

impl Connector {
    pub(super) fn new(topic: &str) -> Self {
        Connector {
            topic: topic.to_owned(),
            history: RwLock::default(),
            clearings: Mutex::default(),
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
                match history.apply(record) {
                    Ok(told) => told.into_iter().for_each(|change| self.note(block.partition(), change)),
                    Err(bad) => {
                        tracing::warn!(topic = %self.topic, offset = record.offset, reason = %bad, "schema change cannot be read");
                    }
                }
            }
            if let Some(range) = block.range() {
                *next = range.to.max(*next);
            }
        }
        self.changes.send_modify(|n| *n += 1);
    }

    fn note(&self, told_in: &PartitionId, change: SchemaChange) {
        match change.kind {
            SchemaChangeKind::Truncated | SchemaChangeKind::Recreated => {
                let mut all = self.clearings.lock().unwrap_or_else(PoisonError::into_inner);
                let of_table = all.entry(change.table.clone()).or_default();
                of_table.push(Clearing { told_in: told_in.clone(), change });
            }
            SchemaChangeKind::Thinned => {
                let table = &change.table;
                tracing::warn!(%table, "partitions were emptied by a statement; no event tells which rows went, so they stay");
            }
            _ => {}
        }
    }

    /// What cleared `table`, under this name or one it had before, and was told at or past `next`; in the order of the
    /// topic.
    pub(super) fn clearings(&self, table: &TableName, lineage: &Lineage, next: &Positions) -> Vec<Clearing> {
        let all = self.clearings.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |c: &&Clearing| next.get(&c.told_in).is_none_or(|next| c.change.offset >= next);
        let own = all.get(table).into_iter().flatten();
        let own =
            own.filter(|c| !lineage.since.as_ref().is_some_and(|m| m.follows(&c.change.position, c.change.ts_ms)));
        let earlier = lineage.ancestors.iter().flat_map(|ancestor| {
            let until = &ancestor.until;
            let of = all.get(&ancestor.table).into_iter().flatten();
            of.filter(|c| until.follows(&c.change.position, c.change.ts_ms))
        });
        let mut found: Vec<Clearing> = own.chain(earlier).filter(fresh).cloned().collect();
        found.sort_by_key(|c| c.change.offset);
        found
    }

    /// Every record before `end` has been given; what lies between the last one and `end` holds none.
    pub(super) fn pass(&self, id: &PartitionId, end: i64) {
        {
            let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            let next = positions.entry(id.clone()).or_default();
            if *next >= end {
                return;
            }
            *next = end;
        }
        self.changes.send_modify(|n| *n += 1);
    }

    /// The next offset of the partition that was not taken in.
    pub(super) fn position(&self, id: &PartitionId) -> Option<i64> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// True when everything before `ends` has been taken in.
    pub(super) fn has_reached(&self, ends: &Offsets) -> bool {
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
