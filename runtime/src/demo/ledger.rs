//! What the lake's own logs say while the demo goes on.
//!
//! Reads each commit of the tables' logs once, as it appears. Promises that a position counts only when the commit that
//! carries it can be read by anyone: so it is told when a table has taken in everything, and how long each record was
//! on its way. Never asks the pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde_json::Value;

use super::broker::Appended;
use crate::model::positions::{InputId, Offsets, PartitionId};

/// How long a record's way is remembered, in milliseconds.
const WINDOW_MS: i64 = 10_000;

/// A table's log, read up to a version.
#[derive(Debug, Default)]
struct Log {
    folder: PathBuf,
    next_version: u64,
    positions: Offsets,
    /// hashes of the modules that commits with rows name
    modules: BTreeSet<String>,
    rows: u64,
}

/// The logs of a local lake's Bronze and Silver tables.
#[derive(Debug)]
pub(super) struct Ledger {
    root: PathBuf,
    bronze: BTreeMap<String, Log>,
    silver: BTreeMap<String, Log>,
    /// when records could be read in Silver, in milliseconds since 1970, and their way there in milliseconds
    ways: Vec<(i64, i64)>,
}

impl Ledger {
    pub(super) fn new(root: &Path) -> Ledger {
        Ledger { root: root.to_owned(), bronze: BTreeMap::new(), silver: BTreeMap::new(), ways: Vec::new() }
    }

    /// Reads what was committed since the last time.
    pub(super) fn read(&mut self, appended: &Appended) {
        find_tables(&self.root.join("bronze"), &mut self.bronze);
        find_tables(&self.root.join("silver"), &mut self.silver);
        // A feed stands at no place of Kafka.
        self.silver.retain(|table, _| !table.ends_with("_changes"));
        for log in self.bronze.values_mut() {
            while log.read_next().is_some() {}
        }
        for log in self.silver.values_mut() {
            while let Some((moved, readable)) = log.read_next() {
                for (partition, next) in moved {
                    let sent = appended.take_sent(&partition, next);
                    self.ways.extend(sent.iter().map(|sent| (readable, (readable - sent).max(0))));
                }
            }
        }
        let newest = self.ways.iter().map(|(readable, _)| *readable).max().unwrap_or(0);
        self.ways.retain(|(readable, _)| *readable > newest - WINDOW_MS);
    }

    /// True when Bronze and Silver have everything below `ends`.
    pub(super) fn has_all(&self, ends: &Offsets, silver_tables: usize) -> bool {
        let position = |logs: &BTreeMap<String, Log>, id: &PartitionId| {
            logs.values().filter_map(|log| log.positions.get(id)).min().copied()
        };
        let taken = |(id, end): (&PartitionId, &i64)| {
            let in_bronze = position(&self.bronze, id).is_some_and(|next| next >= *end);
            let of_rows = crate::decode::schema_topic(&id.topic).is_some();
            in_bronze && (!of_rows || position(&self.silver, id).is_some_and(|next| next >= *end))
        };
        self.silver.len() == silver_tables && ends.iter().all(taken)
    }

    /// True when a commit of the Silver table `table` with rows names the module.
    pub(super) fn has_rows_by(&self, table: &str, sha256: &str) -> bool {
        self.silver.get(table).is_some_and(|log| log.modules.contains(sha256))
    }

    /// Rows written so far, by Silver table.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&str, u64)> {
        self.silver.iter().map(|(table, log)| (table.as_str(), log.rows))
    }

    /// The median and the 99th percentile of the ways from the producer to a Silver table that anyone can read, of the
    /// last ten seconds, in milliseconds.
    pub(super) fn freshness(&self) -> Option<(i64, i64)> {
        let mut ways: Vec<i64> = self.ways.iter().map(|(_, way)| *way).collect();
        ways.sort_unstable();
        let at = |percent: usize| ways.get(ways.len().saturating_sub(1) * percent / 100).copied();
        Some((at(50)?, at(99)?))
    }
}

fn find_tables(layer: &Path, logs: &mut BTreeMap<String, Log>) {
    for entry in std::fs::read_dir(layer).into_iter().flatten().flatten() {
        if let Ok(name) = entry.file_name().into_string() {
            logs.entry(name).or_insert_with(|| Log { folder: entry.path().join("_delta_log"), ..Log::default() });
        }
    }
}

impl Log {
    /// The next commit's positions, and when it could be read in milliseconds since 1970; `None` where there is none
    /// yet.
    fn read_next(&mut self) -> Option<(Vec<(PartitionId, i64)>, i64)> {
        let file = self.folder.join(format!("{:020}.json", self.next_version));
        let text = std::fs::read_to_string(&file).ok()?;
        let written = std::fs::metadata(&file).ok()?.modified().ok()?;
        let readable = written.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        self.next_version += 1;
        let mut moved = Vec::new();
        for action in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let of_lode = &action["commitInfo"]["lode"];
            if let (Some(module), Some(1..)) = (of_lode["module"].as_str(), of_lode["rows"].as_u64()) {
                self.modules.insert(module.to_owned());
            }
            self.rows += of_lode["rows"].as_u64().unwrap_or(0);
            let txn = &action["txn"];
            if let (Some(id), Some(next)) = (txn["appId"].as_str().and_then(partition_of), txn["version"].as_i64()) {
                self.positions.insert(id.clone(), next);
                moved.push((id, next));
            }
        }
        Some((moved, readable))
    }
}

fn partition_of(app_id: &str) -> Option<PartitionId> {
    InputId::read_app_id(app_id)?.1.partition().cloned()
}
