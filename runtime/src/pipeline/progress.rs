//! Counts of what has been done, for the progress line and the summary.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::report::Reporter;
use crate::error::Error;

/// Running counts of a pipeline.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    read: AtomicU64,
    bronze: AtomicU64,
    tables: Mutex<BTreeMap<String, TableCounts>>,
    reporter: Arc<Reporter>,
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
}

impl Progress {
    pub(super) fn new(reporter: Arc<Reporter>) -> Self {
        Progress {
            started: Instant::now(),
            read: AtomicU64::new(0),
            bronze: AtomicU64::new(0),
            tables: Mutex::default(),
            reporter,
        }
    }

    pub(super) fn read(&self, records: usize) {
        self.read.fetch_add(records as u64, Relaxed);
    }

    pub(super) fn bronze(&self, records: usize) {
        self.bronze.fetch_add(records as u64, Relaxed);
    }

    pub(super) fn table(&self, name: &str, add: impl FnOnce(&mut TableCounts)) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        match tables.get_mut(name) {
            Some(counts) => add(counts),
            None => add(tables.entry(name.to_owned()).or_default()),
        }
    }

    /// A Silver table stopped; the others go on.
    pub(super) fn stop(&self, name: &str, error: &Error) {
        tracing::error!(table = %name, %error, hint = error.next_step(), "table stopped; the others go on");
        self.table(name, |t| {
            t.stopped = Some(error.to_string());
            t.hint = error.next_step().map(str::to_owned);
        });
        self.reporter.stop(name, error);
    }

    /// A Silver table starts, perhaps again.
    pub(super) fn start(&self, name: &str) {
        self.table(name, |t| (t.stopped, t.hint) = (None, None));
        self.reporter.start(name);
    }

    /// A Silver table is no longer asked for.
    pub(super) fn forget(&self, name: &str) {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A Silver table is another instance's.
    pub(super) fn release(&self, name: &str) {
        self.forget(name);
        self.reporter.release(name);
    }

    /// The counts as they stand.
    pub fn summary(&self) -> Summary {
        Summary {
            seconds: self.started.elapsed().as_secs_f64(),
            records: self.read.load(Relaxed),
            bronze: self.bronze.load(Relaxed),
            silver: self.tables.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
