//! The lake as others see it: judged by Python scripts that share no code with the runtime.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

use crate::pipeline::Pipeline;
use crate::places;

/// How Silver is compared with the database's own final state.
#[derive(Debug, Clone, Copy)]
pub struct Truth {
    /// folder below `tests/captures`
    pub folder: &'static str,
    /// times were cut to milliseconds by the connector
    pub milliseconds: bool,
    /// file of differences that the capture cannot avoid
    pub allow: Option<&'static str>,
}

/// Fails unless Silver equals `truth`, row by row and column by column.
#[track_caller]
pub fn expect_silver(pipeline: &Pipeline, truth: &Truth, tables: Option<&str>) {
    expect_tables(&pipeline.lake().join("silver"), &places::capture(truth.folder), truth, tables);
}

/// Fails unless the `tables` of Silver equal those in the folder `state`; times and what to allow as `truth` says.
#[track_caller]
pub fn expect_silver_as(pipeline: &Pipeline, state: &Path, truth: &Truth, tables: &str) {
    expect_tables(&pipeline.lake().join("silver"), state, truth, Some(tables));
}

/// Fails unless the tables in `folder` equal those in the folder `state`.
#[track_caller]
fn expect_tables(folder: &Path, state: &Path, truth: &Truth, tables: Option<&str>) {
    let mut check = Command::new(places::python());
    check.arg(places::script("check_silver.py")).arg(folder).arg(state);
    if truth.milliseconds {
        check.arg("--ms");
    }
    if let Some(file) = truth.allow {
        check.arg("--allow").arg(places::capture(file));
    }
    if let Some(tables) = tables {
        check.args(["--tables", tables]);
    }
    let text = expect_success(&mut check);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.ends_with("exact, 0 differ") && !last.starts_with("0 "), "check_silver.py compared nothing: {text}");
}

/// Number of rows that `table` has in the database.
pub fn rows_in_truth(truth: &Truth, table: &str) -> u64 {
    let path = places::capture(truth.folder).join(format!("{table}.jsonl.gz"));
    let file = fs::File::open(&path).unwrap_or_else(|e| panic!("`{}`: {e}", path.display()));
    let first = BufReader::new(GzDecoder::new(file)).lines().next().and_then(Result::ok).unwrap_or_default();
    let meta: Value = serde_json::from_str(&first).unwrap_or_default();
    meta["_meta"]["rows"].as_u64().unwrap_or_else(|| panic!("no number of rows in `{}`", path.display()))
}

/// Fails unless Bronze holds every record of `capture` exactly once, byte by byte, and nothing else.
#[track_caller]
pub fn expect_bronze(pipeline: &Pipeline, capture: &Path) {
    expect_success(&mut bronze_check(pipeline, capture));
}

/// Fails unless the Silver table equals an independent fold of `capture` by `rule`.
#[track_caller]
pub fn expect_fold(pipeline: &Pipeline, capture: &Path, table: &str, rule: &str) {
    let mut fold = Command::new(places::python());
    fold.arg(places::script("fold.py")).arg(pipeline.lake().join("silver").join(table)).arg(capture);
    print!("{}", expect_success(fold.args([table, "--rule", rule])));
}

/// Fails unless every feed of changes folds to its Silver table, and that equals `truth`. With `capture` (bare JSON,
/// decimals as strings) each key's history must be the capture's, too.
#[track_caller]
pub fn expect_feeds(pipeline: &Pipeline, truth: &Truth, tables: &[&str], capture: Option<&Path>) {
    let folded = expect_folds(pipeline, tables.len(), capture);
    expect_tables(folded.path(), &places::capture(truth.folder), truth, Some(&tables.join(",")));
}

/// Fails unless there are `feeds` feeds and each folds to its Silver table; the folder with what they fold to. With
/// `capture` as in [`expect_feeds`].
#[track_caller]
pub fn expect_folds(pipeline: &Pipeline, feeds: usize, capture: Option<&Path>) -> TempDir {
    let folded = tempfile::tempdir().expect("temporary folder");
    let mut fold = Command::new(places::python());
    fold.arg(places::script("fold_changes.py")).arg(pipeline.lake()).arg(folded.path());
    if let Some(capture) = capture {
        fold.arg("--capture").arg(capture);
    }
    let text = expect_success(&mut fold);
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("{feeds} feeds")), "{text}");
    folded
}

/// True when Bronze holds exactly the records of `capture`; see [`expect_bronze`].
pub fn bronze_holds(pipeline: &Pipeline, capture: &Path) -> bool {
    bronze_check(pipeline, capture).output().is_ok_and(|output| output.status.success())
}

fn bronze_check(pipeline: &Pipeline, capture: &Path) -> Command {
    let mut check = Command::new(places::python());
    check.arg(places::script("check_bronze.py")).arg(pipeline.lake().join("bronze")).arg(capture);
    check
}

/// Runs a checker; fails with its output unless it ends with 0, else gives it.
#[track_caller]
pub fn expect_success(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}\n{text}{told}", output.status);
    text
}

/// The log of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// the table's folder
    pub table: PathBuf,
    /// number of commits
    pub commits: usize,
    /// version of the last checkpoint
    pub checkpoint: Option<u64>,
}

/// The logs of all tables, by folder.
pub fn logs(lake: &Path) -> Vec<Log> {
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let tables = folders(lake).flat_map(|layer| folders(&layer).chain([layer]).collect::<Vec<_>>());
    let mut logs: Vec<Log> = tables
        .filter_map(|table| {
            let log = table.join("_delta_log");
            let commits = folders(&log).filter(|f| f.extension().is_some_and(|e| e == "json")).count();
            let last = fs::read(log.join("_last_checkpoint")).ok();
            let last: Option<Value> = last.and_then(|text| serde_json::from_slice(&text).ok());
            let checkpoint = last.and_then(|last| last["version"].as_u64());
            (commits > 0).then_some(Log { table, commits, checkpoint })
        })
        .collect();
    logs.sort_by(|a, b| a.table.cmp(&b.table));
    logs
}

/// Number of commits in the logs of all tables: grows as long as a run makes progress.
pub fn commits(lake: &Path) -> usize {
    logs(lake).iter().map(|log| log.commits).sum()
}
