//! What has been done and how far each table is: for the progress line, the summary, and those who watch.
//!
//! Receives word from every stage, once a block or a commit and never once a row. Promises that telling and looking take
//! no longer than copying some numbers, whoever looks and however often. Never holds anything that a table needs.

mod commits;
mod status;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use commits::{CLASSES, Commits};
pub use status::{Fill, Partition, Status, TableStatus, TopicStatus};

use super::report::Reporter;
use crate::buffer::Room;
use crate::error::Error;
use crate::lake::Extent;
use crate::model::positions::Positions;
use crate::model::table_id::{Layer, TableId};
use crate::source::{Budget, KnownEnds};

/// Running counts of a pipeline.
#[derive(Debug)]
pub struct Progress {
    pipeline: String,
    started: Instant,
    started_ms: i64,
    /// the source has taken up partitions
    assigned: AtomicBool,
    /// nothing new is taken in any more
    ending: AtomicBool,
    read: AtomicU64,
    bronze: AtomicU64,
    topics: Mutex<BTreeMap<Arc<str>, Topic>>,
    tables: Mutex<BTreeMap<TableId, Table>>,
    room: Room,
    source: OnceLock<(Budget, KnownEnds)>,
    reporter: Arc<Reporter>,
}

/// The Bronze table of one topic.
#[derive(Debug, Clone, Default)]
struct Topic {
    records: u64,
    commits: Commits,
    positions: Positions,
}

/// One table, as its task tells; of a Bronze table only how it fares.
#[derive(Debug, Clone, Default)]
pub(in crate::pipeline) struct Table {
    pub(in crate::pipeline) counts: TableCounts,
    /// rows that a module rejected, or that made it fail
    pub(in crate::pipeline) rejected: u64,
    pub(in crate::pipeline) module: ModuleUse,
    pub(in crate::pipeline) commits: Commits,
    pub(in crate::pipeline) stand: TableState,
    /// since it started, it has met what Bronze had committed
    pub(in crate::pipeline) caught_up: bool,
    topic: Option<Arc<str>>,
    /// of a Gold table, the version of each Silver table that it stands at
    pub(in crate::pipeline) inputs: BTreeMap<String, u64>,
    /// of a Gold table, what the rows of its inputs take
    pub(in crate::pipeline) state_bytes: Option<usize>,
}

/// How a Silver table stands, as committed.
#[derive(Debug, Clone, Default)]
pub(in crate::pipeline) struct TableState {
    pub(in crate::pipeline) positions: Positions,
    /// of a table that is made
    pub(in crate::pipeline) extent: Option<Extent>,
    /// about, and as of some seconds before the last commit
    pub(in crate::pipeline) index_bytes: Option<usize>,
}

/// Counts of one Silver table.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct TableCounts {
    /// changes taken in
    pub changes: u64,
    /// rows written
    pub rows: u64,
    /// records and rows set aside
    pub dead_letters: u64,
    /// commits
    pub commits: u64,
    /// why the table stopped, where it did
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// what to do about it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What the modules of a table used.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct ModuleUse {
    /// calls made
    pub calls: u64,
    /// seconds by the clock that batches spent in it
    pub seconds: f64,
    /// the most linear memory that one call came to
    pub memory_bytes: usize,
}

/// What a run did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Summary {
    /// seconds since the start
    pub seconds: f64,
    /// records read from the source
    pub records: u64,
    /// records appended to Bronze
    pub bronze: u64,
    /// by Silver table
    pub silver: BTreeMap<String, TableCounts>,
    /// by Gold table
    pub gold: BTreeMap<String, TableCounts>,
}

impl Progress {
    pub(in crate::pipeline) fn new(pipeline: &str, room: Room, reporter: Arc<Reporter>) -> Self {
        Progress {
            pipeline: pipeline.to_owned(),
            started: Instant::now(),
            started_ms: now_ms(),
            assigned: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            read: AtomicU64::new(0),
            bronze: AtomicU64::new(0),
            topics: Mutex::default(),
            tables: Mutex::default(),
            room,
            source: OnceLock::new(),
            reporter,
        }
    }

    /// The source started.
    pub(in crate::pipeline) fn reads_from(&self, budget: Budget, ends: KnownEnds) {
        let _ = self.source.set((budget, ends));
    }

    /// The source has taken up partitions.
    pub(in crate::pipeline) fn assigned(&self) {
        self.assigned.store(true, Relaxed);
    }

    /// The run ends: what was read is still committed, nothing more is read.
    pub(in crate::pipeline) fn ending(&self) {
        self.ending.store(true, Relaxed);
    }

    pub(in crate::pipeline) fn read(&self, records: usize) {
        self.read.fetch_add(records as u64, Relaxed);
    }

    /// A topic's Bronze table is open, at these positions.
    pub(in crate::pipeline) fn bronze_at(&self, topic: &Arc<str>, positions: &Positions) {
        self.topic(topic, |t| t.positions.clone_from(positions));
    }

    /// A topic's Bronze table appended `records` of which the newest is of `newest_ms`, and stands at `positions` now.
    pub(in crate::pipeline) fn bronze(
        &self,
        topic: &Arc<str>,
        records: usize,
        positions: &Positions,
        took: Duration,
        newest_ms: Option<i64>,
    ) {
        self.bronze.fetch_add(records as u64, Relaxed);
        self.topic(topic, |t| {
            t.records += records as u64;
            t.commits.note(took, newest_ms);
            t.positions.clone_from(positions);
        });
    }

    fn topic(&self, topic: &Arc<str>, change: impl FnOnce(&mut Topic)) {
        change(locked(&self.topics).entry(Arc::clone(topic)).or_default());
    }

    pub(in crate::pipeline) fn table(&self, id: &TableId, change: impl FnOnce(&mut Table)) {
        let mut tables = locked(&self.tables);
        match tables.get_mut(id) {
            Some(table) => change(table),
            None => change(tables.entry(id.clone()).or_default()),
        }
    }

    /// A table stopped; the others go on.
    pub(in crate::pipeline) fn stop(&self, id: &TableId, error: &Error) {
        tracing::error!(table = %id, %error, hint = error.next_step(), "table stopped; the others go on");
        self.table(id, |t| {
            t.counts.stopped = Some(error.to_string());
            t.counts.hint = error.next_step().map(str::to_owned);
        });
        self.reporter.stop(id, error);
    }

    /// A table tries again what failed, since the first time that this was said.
    pub(in crate::pipeline) fn retrying(&self, id: &TableId, error: &Error) {
        self.reporter.retry(id, error);
    }

    /// What a table tried again works, or is tried no longer.
    pub(in crate::pipeline) fn well(&self, id: &TableId) {
        self.reporter.well(id);
    }

    /// A table, made of `topic`, starts, perhaps again.
    pub(in crate::pipeline) fn start(&self, id: &TableId, topic: &Arc<str>) {
        self.table(id, |t| {
            (t.counts.stopped, t.counts.hint) = (None, None);
            t.topic = Some(Arc::clone(topic));
            t.caught_up = false;
        });
        self.reporter.start(id);
    }

    /// A Gold table starts, perhaps again.
    pub(in crate::pipeline) fn start_gold(&self, id: &TableId) {
        self.table(id, |t| (t.counts.stopped, t.counts.hint, t.caught_up) = (None, None, false));
        self.reporter.start(id);
    }

    /// A topic's Bronze table starts, perhaps again. Whose it is, its Silver tables say.
    pub(in crate::pipeline) fn start_bronze(&self, id: &TableId) {
        self.table(id, |t| (t.counts.stopped, t.counts.hint) = (None, None));
        self.reporter.start_bronze(id);
    }

    /// A table is no longer asked for.
    pub(in crate::pipeline) fn forget(&self, id: &TableId) {
        locked(&self.tables).remove(id);
    }

    /// A table is another instance's.
    pub(in crate::pipeline) fn release(&self, id: &TableId) {
        self.forget(id);
        self.reporter.release(id);
    }

    /// A topic's Bronze table is another instance's.
    pub(in crate::pipeline) fn release_topic(&self, topic: &Arc<str>) {
        locked(&self.topics).remove(topic);
        let id = TableId::bronze(Arc::clone(topic));
        self.forget(&id);
        self.reporter.forget(&id);
    }

    /// The counts as they stand.
    pub fn summary(&self) -> Summary {
        let of = |layer| move |(id, _): &(&TableId, &Table)| id.layer == layer;
        let tables = locked(&self.tables);
        let counts = |layer| {
            tables.iter().filter(of(layer)).map(|(id, table)| (id.name.to_string(), table.counts.clone())).collect()
        };
        Summary {
            seconds: self.started.elapsed().as_secs_f64(),
            records: self.read.load(Relaxed),
            bronze: self.bronze.load(Relaxed),
            silver: counts(Layer::Silver),
            gold: counts(Layer::Gold),
        }
    }
}

impl ModuleUse {
    /// Another batch went through it.
    pub(in crate::pipeline) fn add(&mut self, other: ModuleUse) {
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
