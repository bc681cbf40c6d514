//! What a running pipeline says of itself: for each table its module, what was refused and why, and why it stopped.
//!
//! Receives word from everywhere. Promises that the file `_lode/<pipeline>.json` in the lake follows within moments, so
//! that `lode status` can tell without asking the process. Never holds anything that the tables need: it may be lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::table::Location;

/// Shortest time between two writes of the file.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// The largest report that is read.
const BYTES_MAX: u64 = 16 << 20;

/// What was not taken over, and why; the one before goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Refusal {
    /// what, where and why
    pub reason: String,
    /// what to do about it
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// hash of what was refused, where there was something to hash
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// milliseconds since 1970
    pub time_ms: i64,
}

/// One table in the report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TableReport {
    /// hash of the module that serves
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    /// since when, milliseconds since 1970
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// what its rows differ in from those of the module before, as its trial showed
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
    /// the last module or setting that was not taken over, until a good one is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
    /// why the table stopped
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Refusal>,
}

/// The whole report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// the pipeline file's last version that was not taken over, until a good one is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_file: Option<Refusal>,
    /// by Silver table
    pub tables: BTreeMap<String, TableReport>,
}

impl Report {
    /// The report in the lake at `root`; `None` where the pipeline never ran.
    ///
    /// # Errors
    /// `Unavailable` or `Denied` when the lake cannot be read, `Corrupt` when the file is no report.
    pub async fn read(root: &Location, pipeline: &str) -> Result<Option<Report>> {
        let found = match root.store()?.get(&path(pipeline)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => {
                return Err(Error::new(ErrorKind::Unavailable, "the pipeline's report cannot be read").caused_by(e));
            }
        };
        let bad = || Error::new(ErrorKind::Corrupt, format!("`{}` is not a report of lode", path(pipeline)));
        if found.meta.size > BYTES_MAX {
            return Err(bad());
        }
        let bytes = found
            .bytes()
            .await
            .map_err(|e| Error::new(ErrorKind::Unavailable, "the pipeline's report cannot be read").caused_by(e))?;
        serde_json::from_slice(&bytes).map(Some).map_err(|e| bad().caused_by(e))
    }
}

/// The report of a pipeline that runs.
#[derive(Debug)]
pub(super) struct Reporter {
    report: Mutex<Report>,
    changes: watch::Sender<u64>,
}

impl Reporter {
    pub(super) fn new() -> Self {
        Reporter { report: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// A module took over a table.
    pub(super) fn serve(&self, table: &str, sha256: String) {
        self.change(|report| {
            let entry = report.tables.entry(table.to_owned()).or_default();
            *entry = TableReport { module: Some(sha256), since_ms: Some(now_ms()), ..TableReport::default() };
        });
    }

    /// What the module that took over a table makes otherwise.
    pub(super) fn differ(&self, table: &str, difference: String) {
        self.change(|report| report.tables.entry(table.to_owned()).or_default().difference = Some(difference));
    }

    /// Something was not taken over for a table.
    pub(super) fn refuse(&self, table: &str, sha256: Option<String>, error: &Error) {
        tracing::warn!(%table, %error, hint = error.next_step(), "refused: the table goes on as it was");
        let refusal = refusal(error, sha256);
        self.change(|report| report.tables.entry(table.to_owned()).or_default().refused = Some(refusal));
    }

    /// A version of the pipeline file was taken over (`None`), or not.
    pub(super) fn pipeline_file(&self, refused: Option<&Error>) {
        if let Some(error) = refused {
            tracing::warn!(%error, hint = error.next_step(), "pipeline file refused: everything goes on as it was");
        }
        let refused = refused.map(|error| refusal(error, None));
        self.change(|report| report.pipeline_file = refused);
    }

    /// A table starts, perhaps again.
    pub(super) fn start(&self, table: &str) {
        self.change(|report| {
            if let Some(entry) = report.tables.get_mut(table) {
                entry.stopped = None;
            }
        });
    }

    /// A table stopped.
    pub(super) fn stop(&self, table: &str, error: &Error) {
        let stopped = refusal(error, None);
        self.change(|report| report.tables.entry(table.to_owned()).or_default().stopped = Some(stopped));
    }

    /// A table is no longer asked for.
    pub(super) fn forget(&self, table: &str) {
        self.change(|report| drop(report.tables.remove(table)));
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|n| *n += 1);
    }

    /// Keeps the file in the lake as the report is, until it is dropped.
    pub(super) async fn keep_written(&self, root: &Location, pipeline: &str) {
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            self.write(root, pipeline).await;
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }

    /// Writes the report now; a failure is only logged.
    pub(super) async fn write(&self, root: &Location, pipeline: &str) {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let written = async {
            let text = serde_json::to_vec(&report).map_err(|e| e.to_string())?;
            let store = root.store().map_err(|e| e.to_string())?;
            store.put(&path(pipeline), text.into()).await.map_err(|e| e.to_string())
        };
        if let Err(error) = written.await {
            tracing::warn!(error, "the report for `lode status` cannot be written");
        }
    }
}

/// Keeps the bytes of a module under its hash in the lake, so that whoever meets the hash in a commit can have them.
pub(super) async fn keep_module(root: &Location, sha256: &str, bytes: Vec<u8>) {
    let path = Path::from(format!("_lode/modules/{sha256}.wasm"));
    let kept = async {
        let store = root.store().map_err(|e| e.to_string())?;
        let options = object_store::PutOptions { mode: object_store::PutMode::Create, ..Default::default() };
        match store.put_opts(&path, bytes.into(), options).await {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    };
    if let Err(error) = kept.await {
        tracing::warn!(error, sha256, "the module cannot be kept in the lake");
    }
}

fn path(pipeline: &str) -> Path {
    Path::from(format!("_lode/{pipeline}.json"))
}

fn refusal(error: &Error, sha256: Option<String>) -> Refusal {
    Refusal { reason: error.to_string(), hint: error.next_step().map(str::to_owned), sha256, time_ms: now_ms() }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}
