//! What a running pipeline says of itself: for each table its module, what was refused and why, and why it stopped.
//!
//! Receives word from everywhere. Promises that the file `_lode/<pipeline>.json` in the lake, or where instances share the
//! tables `_lode/instances/<pipeline>/<id>.json`, follows within moments, so that `lode status` can tell without asking any
//! process. Never holds anything that the tables need: it may be lost.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Location, lake_error};
use crate::model::table_id::TableId;

/// Shortest time between two writes of the file.
const WRITE_EVERY: Duration = Duration::from_millis(500);
/// Age at which the report of an instance that ended without a word is removed.
const LEFTOVER_AGE_DAYS: i64 = 7;
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
    /// the table's task was started here, and the table was not given to another instance since
    #[serde(default)]
    pub here: bool,
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
    /// what the table tries again, and since when
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retrying: Option<Refusal>,
    /// why the table stopped
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Refusal>,
}

/// The whole report.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// when it was written, milliseconds since 1970
    #[serde(default)]
    pub written_ms: i64,
    /// the pipeline file's last version that was not taken over, until a good one is
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_file: Option<Refusal>,
    /// by table
    #[serde(deserialize_with = "tables")]
    pub tables: BTreeMap<TableId, TableReport>,
}

/// Reports of earlier versions name Silver tables without their layer, and Bronze tables with a slash.
fn tables<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<TableId, TableReport>, D::Error> {
    let told = BTreeMap::<String, TableReport>::deserialize(deserializer)?;
    let id = |name: String| match name.strip_prefix("bronze/") {
        Some(topic) => TableId::bronze(topic),
        None => name.parse().unwrap_or_else(|_| TableId::silver(name)),
    };
    Ok(told.into_iter().map(|(name, report)| (id(name), report)).collect())
}

impl Report {
    /// The report in the lake at `root`, put together where several instances wrote some; `None` where the pipeline never
    /// ran.
    ///
    /// # Errors
    /// `Unavailable` or `Denied` when the lake cannot be read, `Corrupt` when a file is no report.
    pub async fn read(root: &Location, pipeline: &str) -> Result<Option<Report>> {
        let store = root.store()?;
        let unreadable = |e: object_store::Error| lake_error("the pipeline's report cannot be read", e);
        let mut paths: Vec<Path> = vec![own_report(pipeline)];
        let listed: Vec<_> = store.list(Some(&folder(pipeline))).try_collect().await.map_err(unreadable)?;
        paths.extend(listed.into_iter().map(|file| file.location));
        let mut reports = Vec::new();
        for path in paths {
            let found = match store.get(&path).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(e) => return Err(unreadable(e)),
            };
            let bad = || Error::new(ErrorKind::Corrupt, format!("`{path}` is not a report of lode"));
            if found.meta.size > BYTES_MAX {
                return Err(bad());
            }
            let bytes = found.bytes().await.map_err(unreadable)?;
            reports.push(serde_json::from_slice(&bytes).map_err(|e| bad().caused_by(e))?);
        }
        Ok(Report::put_together(reports))
    }

    /// Of each table what the instance says that runs it; the newest word counts where several do, or none.
    fn put_together(mut reports: Vec<Report>) -> Option<Report> {
        reports.sort_by_key(|report| report.written_ms);
        let mut whole = reports.pop()?;
        while let Some(older) = reports.pop() {
            for (table, told) in older.tables {
                match whole.tables.get(&table) {
                    Some(known) if known.here || !told.here => {}
                    _ => drop(whole.tables.insert(table, told)),
                }
            }
        }
        Some(whole)
    }
}

/// The report of a pipeline that runs.
#[derive(Debug)]
pub(in crate::pipeline) struct Reporter {
    report: Mutex<Report>,
    changes: watch::Sender<u64>,
    path: Path,
    /// where other instances keep theirs, if there may be some
    shared: Option<Path>,
}

impl Reporter {
    /// `shared`: other instances may run beside this one.
    pub(in crate::pipeline) fn new(pipeline: &str, shared: bool) -> Self {
        let path = match shared {
            true => folder(pipeline).join(format!("{}.json", uuid::Uuid::new_v4().simple())),
            false => own_report(pipeline),
        };
        let shared = shared.then(|| folder(pipeline));
        Reporter { report: Mutex::default(), changes: watch::Sender::new(0), path, shared }
    }

    /// A module took over a table.
    pub(in crate::pipeline) fn serve(&self, id: &TableId, sha256: String) {
        self.change_table(id, |entry| {
            let here = entry.here;
            *entry = TableReport { here, module: Some(sha256), since_ms: Some(now_ms()), ..TableReport::default() };
        });
    }

    /// What the module that took over a table makes otherwise.
    pub(in crate::pipeline) fn differ(&self, id: &TableId, difference: String) {
        self.change_table(id, |entry| entry.difference = Some(difference));
    }

    /// Something was not taken over for a table.
    pub(in crate::pipeline) fn refuse(&self, id: &TableId, sha256: Option<String>, error: &Error) {
        tracing::warn!(table = %id, %error, hint = error.next_step(), "refused: the table goes on as it was");
        self.change_table(id, |entry| entry.refused = Some(refusal(error, sha256)));
    }

    /// A version of the pipeline file was taken over (`None`), or not.
    pub(in crate::pipeline) fn pipeline_file(&self, refused: Option<&Error>) {
        if let Some(error) = refused {
            tracing::warn!(%error, hint = error.next_step(), "pipeline file refused: everything goes on as it was");
        }
        let refused = refused.map(|error| refusal(error, None));
        self.change(|report| report.pipeline_file = refused);
    }

    /// A table starts, perhaps again.
    pub(in crate::pipeline) fn start(&self, id: &TableId) {
        self.change_table(id, |entry| (entry.here, entry.stopped) = (true, None));
    }

    /// A Bronze table starts, perhaps again: of one that is well nothing is said.
    pub(in crate::pipeline) fn start_bronze(&self, id: &TableId) {
        self.change(|report| report.tables.get_mut(id).into_iter().for_each(|entry| entry.stopped = None));
    }

    /// A table is another instance's.
    pub(in crate::pipeline) fn release(&self, id: &TableId) {
        self.change_table(id, |entry| (entry.here, entry.stopped, entry.retrying) = (false, None, None));
    }

    /// A table tries again; the first time since it was well counts.
    pub(in crate::pipeline) fn retry(&self, id: &TableId, error: &Error) {
        self.change_table(id, |entry| {
            let since = entry.retrying.as_ref().map(|told| told.time_ms);
            let told = refusal(error, None);
            entry.retrying = Some(Refusal { time_ms: since.unwrap_or(told.time_ms), ..told });
        });
    }

    /// A table tries nothing again any more.
    pub(in crate::pipeline) fn well(&self, id: &TableId) {
        self.change_table(id, |entry| entry.retrying = None);
    }

    /// A table stopped.
    pub(in crate::pipeline) fn stop(&self, id: &TableId, error: &Error) {
        self.change_table(id, |entry| (entry.stopped, entry.retrying) = (Some(refusal(error, None)), None));
    }

    /// A table is no longer asked for.
    pub(in crate::pipeline) fn forget(&self, id: &TableId) {
        self.change(|report| drop(report.tables.remove(id)));
    }

    /// The report as it is now.
    pub(in crate::pipeline) fn report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change_table(&self, id: &TableId, change: impl FnOnce(&mut TableReport)) {
        self.change(|report| change(report.tables.entry(id.clone()).or_default()));
    }

    fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
        self.changes.send_modify(|n| *n += 1);
    }

    /// Keeps the file in the lake as the report is, until it is dropped.
    pub(in crate::pipeline) async fn keep_written(&self, root: &Location) {
        if let Some(folder) = &self.shared {
            remove_leftovers(root, folder).await;
        }
        let mut changes = self.changes.subscribe();
        changes.mark_changed();
        while changes.changed().await.is_ok() {
            self.write(root).await;
            tokio::time::sleep(WRITE_EVERY).await;
        }
    }

    /// Leaves the last word: the report, or nothing where the other instances go on with the tables.
    pub(in crate::pipeline) async fn conclude(&self, root: &Location) {
        if self.shared.is_some() {
            self.change(|report| report.tables.values_mut().for_each(|told| told.here = false));
        }
        if self.shared.is_none() || self.has_something_to_say() {
            return self.write(root).await;
        }
        let removed =
            async { root.store().map_err(|e| e.to_string())?.delete(&self.path).await.map_err(|e| e.to_string()) };
        if let Err(error) = removed.await {
            tracing::debug!(error, "the report cannot be removed");
        }
    }

    fn has_something_to_say(&self) -> bool {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.pipeline_file.is_some() || report.tables.values().any(|t| t.refused.is_some() || t.stopped.is_some())
    }

    /// Writes the report now; a failure is only logged.
    async fn write(&self, root: &Location) {
        let report = Report { written_ms: now_ms(), ..self.report() };
        let written = async {
            let text = serde_json::to_vec(&report).map_err(|e| e.to_string())?;
            let store = root.store().map_err(|e| e.to_string())?;
            store.put(&self.path, text.into()).await.map_err(|e| e.to_string())
        };
        if let Err(error) = written.await {
            tracing::warn!(error, "the report for `lode status` cannot be written");
        }
    }
}

/// Removes the reports of instances that ended long ago without a word.
async fn remove_leftovers(root: &Location, folder: &Path) {
    let Ok(store) = root.store() else { return };
    let old = chrono::Utc::now() - chrono::TimeDelta::days(LEFTOVER_AGE_DAYS);
    let Ok(files) = store.list(Some(folder)).try_collect::<Vec<_>>().await else { return };
    for file in files.into_iter().filter(|file| file.last_modified < old) {
        let _ = store.delete(&file.location).await;
    }
}

/// Keeps the bytes of a module under its hash in the lake, so that whoever meets the hash in a commit can have them.
pub(in crate::pipeline) async fn keep_module(root: &Location, sha256: &str, bytes: Vec<u8>) {
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

fn own_report(pipeline: &str) -> Path {
    Path::from(format!("_lode/{pipeline}.json"))
}

fn folder(pipeline: &str) -> Path {
    Path::from(format!("_lode/instances/{pipeline}"))
}

fn refusal(error: &Error, sha256: Option<String>) -> Refusal {
    Refusal { reason: error.to_string(), hint: error.next_step().map(str::to_owned), sha256, time_ms: now_ms() }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(written_ms: i64, tables: &[(&str, bool, Option<&str>)]) -> Report {
        let told = |(name, here, module): &(&str, bool, Option<&str>)| {
            let told = TableReport { here: *here, module: module.map(str::to_owned), ..TableReport::default() };
            (TableId::silver(*name), told)
        };
        Report { written_ms, pipeline_file: None, tables: tables.iter().map(told).collect() }
    }

    #[test]
    fn of_several_instances_the_one_that_runs_a_table_is_heard() {
        let reports = vec![
            report(3, &[("a", false, Some("loaded")), ("b", true, Some("newest"))]),
            report(2, &[("a", true, Some("runs")), ("b", true, Some("older")), ("c", false, Some("loaded"))]),
            report(1, &[("a", true, Some("died")), ("c", false, None)]),
        ];
        let whole = Report::put_together(reports).unwrap();
        let modules: Vec<_> = whole.tables.iter().map(|(name, t)| (&*name.name, t.module.as_deref())).collect();
        assert_eq!(modules, [("a", Some("runs")), ("b", Some("newest")), ("c", Some("loaded"))]);
        assert!(Report::put_together(Vec::new()).is_none());
    }

    #[test]
    fn a_report_of_an_earlier_version_is_read() {
        let old = r#"{"written_ms":1,"tables":{"bronze/db.shop.orders":{"here":true},"orders":{},"silver.items":{}}}"#;
        let report: Report = serde_json::from_str(old).unwrap();
        let ids: Vec<String> = report.tables.keys().map(ToString::to_string).collect();
        assert_eq!(ids, ["bronze.db.shop.orders", "silver.items", "silver.orders"]);
        let again: Report = serde_json::from_slice(&serde_json::to_vec(&report).unwrap()).unwrap();
        assert!(again.tables.keys().eq(report.tables.keys()));
    }
}
