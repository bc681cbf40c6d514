//! What is known of one connector: the table structures it announced and the modes its values reveal.
//!
//! Shared by the tables of the connector. [`Connector::changed`] wakes the tables that wait for a schema.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures::StreamExt;
use tokio::sync::{OnceCell, watch};

use crate::decode::{self, Evidence, Lineage, SchemaChange, SchemaChangeKind, SchemaHistory, TableName, TopicKind};
use crate::error::Result;
use crate::lake::{BronzeTable, Location, Settings, positions_of};
use crate::model::positions::{InputId, Offsets, PartitionId, Positions};
use crate::model::record::Block;

/// Records of a topic that are looked at to find out what it carries.
const CLASSIFY_RECORDS_MAX: usize = 10_000;

/// The connectors of a pipeline, by the name of their schema-change topic.
pub(super) struct Connectors {
    /// with the credentials of the last time that the lake was opened
    root: Mutex<Location>,
    settings: Settings,
    by_topic: Mutex<HashMap<String, Arc<Connector>>>,
}

impl Connectors {
    pub(super) fn new(root: Location, settings: Settings) -> Self {
        Connectors { root: Mutex::new(root), settings, by_topic: Mutex::default() }
    }

    /// The lake was opened once more.
    pub(super) fn renew(&self, root: Location) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
    }

    /// The connector of the schema-change topic, new or known.
    pub(super) fn of(&self, schema_topic: &str) -> Arc<Connector> {
        let mut all = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(schema_topic.to_owned()).or_insert_with(|| Arc::new(Connector::new(schema_topic))))
    }

    /// Those that are known.
    pub(super) fn all(&self) -> Vec<Arc<Connector>> {
        self.by_topic.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Takes in what Bronze has of a connector's schema-change topic, once.
    pub(super) async fn take_in(&self, connector: &Connector) -> Result<()> {
        let read = async {
            let root = self.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let location = root.table(&format!("bronze/{}", connector.topic))?;
            if positions_of(&location).await?.is_empty() {
                return Ok(());
            }
            let table = BronzeTable::open_or_create(location, &connector.topic, self.settings.clone()).await?;
            connector.catch_up(&table).await
        };
        connector.taken_in.get_or_try_init(|| read).await.map(drop)
    }

    /// Finds out from Bronze what a topic carries; a schema-change topic is taken in whole.
    pub(super) async fn classify(&self, topic: &str, table: &BronzeTable) -> Result<TopicKind> {
        if table.positions().is_empty() {
            return Ok(TopicKind::Unknown);
        }
        let mut blocks = table.read(&Positions::new()).await?;
        let mut seen = 0;
        while let Some(block) = blocks.next().await {
            let block = block?;
            let kinds = block.iter().map(|record| decode::classify(topic, record));
            match kinds.into_iter().find(|kind| !matches!(kind, TopicKind::Unknown)) {
                Some(TopicKind::SchemaChanges) => {
                    let connector = self.of(topic);
                    self.take_in(&connector).await?;
                    // What another instance has appended since is read from nowhere else: the source goes on behind it.
                    connector.catch_up(table).await?;
                    return Ok(TopicKind::SchemaChanges);
                }
                Some(kind) => return Ok(kind),
                None => seen += block.len(),
            }
            if seen > CLASSIFY_RECORDS_MAX {
                break;
            }
        }
        Ok(TopicKind::Unknown)
    }
}

/// One connector, known by the name of its schema-change topic.
#[derive(Debug)]
pub(super) struct Connector {
    /// the schema-change topic
    pub(super) topic: String,
    history: RwLock<SchemaHistory>,
    truncates: Mutex<HashMap<TableName, Vec<Truncate>>>,
    evidence: Mutex<Evidence>,
    positions: Mutex<Offsets>,
    changes: watch::Sender<u64>,
    /// what Bronze had of the topic is known
    taken_in: OnceCell<()>,
}

/// A statement that left a table without the rows it had, and the Kafka partition of the record that told it.
#[derive(Debug, Clone)]
pub(super) struct Truncate {
    pub(super) told_in: PartitionId,
    pub(super) change: SchemaChange,
}

impl Connector {
    pub(super) fn new(topic: &str) -> Self {
        Connector {
            topic: topic.to_owned(),
            history: RwLock::default(),
            truncates: Mutex::default(),
            evidence: Mutex::default(),
            positions: Mutex::default(),
            changes: watch::Sender::new(0),
            taken_in: OnceCell::new(),
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

    /// Takes in what the Bronze table of the topic has and is not known yet.
    async fn catch_up(&self, table: &BronzeTable) -> Result<()> {
        let from: Positions = self.positions().into_iter().map(|(id, next)| (InputId::from(id), next)).collect();
        let mut blocks = table.read(&from).await?;
        while let Some(block) = blocks.next().await {
            self.take(&block?);
        }
        table.positions().partitions().for_each(|(id, end)| self.pass(id, end));
        Ok(())
    }

    fn note(&self, told_in: &PartitionId, change: SchemaChange) {
        match change.kind {
            SchemaChangeKind::Truncated | SchemaChangeKind::Recreated => {
                let mut all = self.truncates.lock().unwrap_or_else(PoisonError::into_inner);
                let of_table = all.entry(change.table.clone()).or_default();
                of_table.push(Truncate { told_in: told_in.clone(), change });
            }
            SchemaChangeKind::PartitionsEmptied => {
                let table = &change.table;
                tracing::warn!(%table, "partitions were emptied by a statement; no event tells which rows went, so they stay");
            }
            _ => {}
        }
    }

    /// What cleared `table`, under this name or one it had before, and was told at or past `next`; in the order of the
    /// topic.
    pub(super) fn truncates(&self, table: &TableName, lineage: &Lineage, next: &Positions) -> Vec<Truncate> {
        let all = self.truncates.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |c: &&Truncate| next.get(&c.told_in).is_none_or(|next| c.change.offset >= next);
        let own = all.get(table).into_iter().flatten();
        let own =
            own.filter(|c| !lineage.since.as_ref().is_some_and(|m| m.follows(&c.change.position, c.change.ts_ms)));
        let earlier = lineage.ancestors.iter().flat_map(|ancestor| {
            let until = &ancestor.until;
            let of = all.get(&ancestor.table).into_iter().flatten();
            of.filter(|c| until.follows(&c.change.position, c.change.ts_ms))
        });
        let mut found: Vec<Truncate> = own.chain(earlier).filter(fresh).cloned().collect();
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

    /// The next offset of each partition that was not taken in.
    pub(super) fn positions(&self) -> Offsets {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
