//! Logs and files that are cut, lost or written over, and many tables at once.

use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::bronze::{block, files_of, read_all, rows_of};
use super::*;
use crate::error::{Error, ErrorKind};
use crate::lake::Maintained;
use crate::model::positions::Positions;

fn settings() -> Settings {
    Settings { checkpoint_every: 4, ..Settings::default() }
}

fn log_folder(location: &Location) -> PathBuf {
    location.url().to_file_path().unwrap().join("_delta_log")
}

fn version_file(location: &Location, version: u64) -> PathBuf {
    log_folder(location).join(format!("{version:020}.json"))
}

fn checkpoint_file(location: &Location, version: u64) -> PathBuf {
    log_folder(location).join(format!("{version:020}.checkpoint.parquet"))
}

fn cut(file: &FilePath, bytes: u64) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length - bytes).unwrap();
}

async fn open(location: &Location) -> Result<BronzeTable> {
    BronzeTable::open_or_create(location.clone(), "bronze/shop.orders", settings()).await
}

async fn append(table: &mut BronzeTable, from: i64, to: i64) -> Result<Outcome> {
    let covered = ranges(&[(0, from, to)]);
    let files = files_of(table, &[rows_of([block(0, from..to)], 1)], &covered);
    table.append(&files, &covered, Map::new()).await
}

/// A table of `versions` versions of ten records, with a checkpoint after every fourth.
async fn grown(location: &Location, versions: i64) {
    let mut table = open(location).await.unwrap();
    for version in 0..versions {
        append(&mut table, version * 10, version * 10 + 10).await.unwrap();
        if let Some(checkpoint) = table.append_only().checkpointing() {
            checkpoint.await.unwrap();
        }
    }
}

/// The table opens, has everything, and goes on: another commit, a checkpoint, a vacuum.
async fn goes_on(location: &Location, versions: i64) {
    let mut table = open(location).await.unwrap();
    let end = versions * 10;
    assert_eq!(table.positions().get(partition(0)), Some(end));
    let offsets = read_all(&table, &Positions::new()).await.remove(&0).unwrap_or_default();
    assert!(offsets.into_iter().eq(0..end));
    for version in versions..versions + 5 {
        append(&mut table, version * 10, version * 10 + 10).await.unwrap();
    }
    table.maintain().await.unwrap();
    let table = open(location).await.unwrap();
    let offsets = read_all(&table, &Positions::new()).await.remove(&0).unwrap_or_default();
    assert!(offsets.into_iter().eq(0..end + 50));
}

async fn refused(location: &Location) -> Error {
    let error = open(location).await.expect_err("a broken log is opened");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.next_step().is_some(), "no next step: {error}");
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_cut_is_passed_by() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    cut(&checkpoint_file(&location, 4), 20);
    goes_on(&location, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_lost_or_empty_is_passed_by() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    std::fs::write(checkpoint_file(&location, 4), "").unwrap();
    goes_on(&location, 6).await;
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    std::fs::remove_file(checkpoint_file(&location, 4)).unwrap();
    goes_on(&location, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_lacks_a_part_is_passed_by() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    let part = log_folder(&location).join(format!("{:020}.checkpoint.0000000001.0000000002.parquet", 4));
    std::fs::rename(checkpoint_file(&location, 4), part).unwrap();
    let hint = json!({"version": 4, "size": 10, "parts": 2});
    std::fs::write(log_folder(&location).join("_last_checkpoint"), hint.to_string()).unwrap();
    goes_on(&location, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_at_the_last_checkpoint_that_is_no_hint_changes_nothing() {
    for hint in ["", "{\"version\":", "\u{0}\u{0}\u{0}", "{\"version\": \"four\"}"] {
        let (_dir, root) = lake();
        let location = root.table("bronze/shop.orders").unwrap();
        grown(&location, 6).await;
        std::fs::write(log_folder(&location).join("_last_checkpoint"), hint).unwrap();
        goes_on(&location, 6).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_checkpoint_stands_in_for_a_broken_one() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 9).await;
    for version in 0..4 {
        std::fs::remove_file(version_file(&location, version)).unwrap();
    }
    cut(&checkpoint_file(&location, 8), 20);
    goes_on(&location, 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_checkpoint_that_nothing_stands_in_for_is_named() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    std::fs::remove_file(version_file(&location, 2)).unwrap();
    cut(&checkpoint_file(&location, 4), 20);
    let error = refused(&location).await;
    assert!(error.to_string().contains("00000004.checkpoint.parquet` is not readable"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_never_goes_back_behind_a_checkpoint_that_is_passed_by() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 4).await;
    std::fs::remove_file(version_file(&location, 4)).unwrap();
    cut(&checkpoint_file(&location, 4), 20);
    refused(&location).await;
    // nor behind one that only the hint knows
    std::fs::remove_file(checkpoint_file(&location, 4)).unwrap();
    refused(&location).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_version_that_is_cut_is_named_and_once_moved_away_its_records_come_again() {
    let (_dir, root) = lake();
    for name in ["bronze/shop.orders", "silver/orders"] {
        let location = root.table(name).unwrap();
        grown(&location, 6).await;
        cut(&version_file(&location, 6), 20);
        let error = refused(&location).await;
        let file = "_delta_log/00000000000000000006.json";
        assert!(error.to_string().contains(&format!("version `6` of the log (`{file}`) is not readable")), "{error}");
        let hint = error.next_step().unwrap();
        assert!(hint.contains(&format!("move `{file}` out of the lake")), "{hint}");
        assert_eq!(hint.contains("`silver/orders`"), name.starts_with("silver"), "{hint}");
        // the way out that the hint names
        std::fs::remove_file(version_file(&location, 6)).unwrap();
        let mut table = open(&location).await.unwrap();
        assert_eq!(table.positions().get(partition(0)), Some(50));
        append(&mut table, 50, 60).await.unwrap();
        goes_on(&location, 6).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_lost_or_written_over_is_named() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    grown(&location, 3).await;
    std::fs::write(version_file(&location, 2), "{\"add\":{}}\n").unwrap();
    let error = refused(&location).await;
    assert!(error.to_string().contains("version `2` of the log"), "{error}");
    assert!(error.next_step().unwrap().contains("move the folder `silver/orders`"), "{error}");
    std::fs::remove_file(version_file(&location, 1)).unwrap();
    std::fs::remove_file(version_file(&location, 2)).unwrap();
    let error = refused(&location).await;
    assert!(error.to_string().contains("version `2` of the log"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newest_version_of_no_bytes_is_a_version_without_rows() {
    let (_dir, root) = lake();
    let location = root.table("bronze/shop.orders").unwrap();
    grown(&location, 6).await;
    std::fs::write(version_file(&location, 6), "").unwrap();
    let mut table = open(&location).await.unwrap();
    assert_eq!(table.positions().get(partition(0)), Some(50));
    append(&mut table, 50, 60).await.unwrap();
    goes_on(&location, 6).await;
}

#[test]
fn a_topic_with_the_name_of_a_log_is_refused_before_anything_is_written() {
    let (_dir, root) = lake();
    let error = root.table("bronze/_delta_log").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.next_step().unwrap().contains("`_delta_log`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_file_that_is_cut_to_nothing_is_corrupt_and_says_how_to_mend_it() {
    let (_dir, root) = lake();
    for left in [0, 100] {
        let location = root.table(&format!("silver/orders{left}")).unwrap();
        let mut table = KeyedTable::open_or_create(location.clone(), spec(), Settings::default()).await.unwrap();
        copy(&mut table, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
        for entry in std::fs::read_dir(location.url().to_file_path().unwrap()).unwrap().map(|e| e.unwrap()) {
            if entry.path().extension().is_some_and(|e| e == "parquet") {
                std::fs::OpenOptions::new().write(true).open(entry.path()).unwrap().set_len(left).unwrap();
            }
        }
        let opened = KeyedTable::open_or_create(location, spec(), Settings::default()).await;
        let error = opened.expect_err("a cut file is read");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.next_step().unwrap().contains("`lode rebuild`"), "{error}");
    }
}

/// Six hundred tables of one version, of which a runtime of 64 threads for blocking work opens all at once.
#[test]
fn six_hundred_tables_on_a_local_disk_are_opened_at_once() {
    const TABLES: usize = 600;
    let (_dir, root) = lake();
    let build = |threads| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).max_blocking_threads(threads).enable_all().build().unwrap()
    };
    let runtime = build(64);
    let name = |n: usize| format!("bronze/t{n}");
    let first = runtime.block_on(async {
        open(&root.table(&name(0)).unwrap()).await.unwrap();
        std::fs::read(version_file(&root.table(&name(0)).unwrap(), 0)).unwrap()
    });
    for n in 1..TABLES {
        let location = root.table(&name(n)).unwrap();
        std::fs::create_dir_all(log_folder(&location)).unwrap();
        std::fs::write(version_file(&location, 0), &first).unwrap();
    }
    let opened = runtime.block_on(async {
        let all = (0..TABLES).map(|n| {
            let location = root.table(&name(n)).unwrap();
            tokio::spawn(async move { open(&location).await.map(|table| table.version()) })
        });
        tokio::time::timeout(Duration::from_secs(120), futures::future::join_all(all.collect::<Vec<_>>())).await
    });
    // threads that wait for good would hold the runtime
    runtime.shutdown_background();
    let opened = opened.expect("the tables wait for each other");
    assert!(opened.into_iter().all(|table| matches!(table.unwrap(), Ok(0))));
}
