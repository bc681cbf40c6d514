//! Upkeep on real tables of a local disk, through a store that holds or refuses what a test says.

use std::path::Path;

use super::*;
use crate::lake::dead_letters::{DeadLetter, Stage};
use crate::lake::query::Lake;
use crate::lake::tests::bronze::{append, block, read_all, rows_of};
use crate::lake::tests::faulty::{faulty, forgive, hold, refuse};
use crate::lake::tests::{copy, lake, model, of, query, ranges, rows, spec};
use crate::lake::{BronzeTable, DEAD_LETTERS, KeyedTable, Location, Settings};
use crate::model::change::Op;

const DEADLINE: Duration = Duration::from_secs(60);
/// In the names of data files, and of no others.
const DATA: &str = "part-";

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("a minute is enough")
}

fn settings() -> Settings {
    // a vacuum beside commits is not to take what is on its way
    Settings { vacuum_retention: Duration::from_secs(3600), ..model::settings() }
}

async fn keyed(location: &Location) -> KeyedTable {
    KeyedTable::open_or_create(location.clone(), spec(), settings()).await.unwrap()
}

/// Commits the row `at`.
async fn write(table: &mut KeyedTable, at: i64) {
    let change = (at, "v", Op::Create, 100 + at as u128, 0, at);
    copy(table, &of(&[change]), &ranges(&[(0, at, at + 1)])).await.unwrap();
}

/// Commits a row more and tends, as the stream does, until `enough`; the number of rows.
async fn stream(
    table: &mut KeyedTable,
    upkeep: &mut Upkeep<<KeyedTable as Maintained>::Compacted>,
    from: i64,
    mut enough: impl FnMut(&KeyedTable, &Upkeep<<KeyedTable as Maintained>::Compacted>) -> bool,
) -> i64 {
    soon(async {
        let mut at = from;
        while !enough(table, upkeep) {
            write(table, at).await;
            upkeep.tend(table, Pace::Steady).await;
            at += 1;
        }
        at
    })
    .await
}

async fn expect_rows(location: &Location, count: i64) {
    let wanted: Vec<(i64, String)> = (0..count).map(|id| (id, "v".to_owned())).collect();
    assert_eq!(rows(location).await, wanted);
}

fn has_checkpoint(table: &Path) -> bool {
    let log = std::fs::read_dir(table.join("_delta_log")).unwrap();
    log.flatten().any(|entry| entry.file_name().to_string_lossy().contains("checkpoint.parquet"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keyed_table_is_compacted_and_gets_checkpoints_beside_its_commits() {
    let (dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    let folder = dir.path().join("silver/orders");
    let compacted = |table: &KeyedTable| (table.size().0 as u64) < table.size().1 / 2;
    let count = stream(&mut table, &mut upkeep, 0, |t, _| t.size().1 > 12 && compacted(t) && has_checkpoint(&folder));
    let count = count.await;
    expect_rows(&location, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_only_grows_is_compacted_and_gets_checkpoints_beside_its_commits() {
    let (dir, root) = lake();
    let location = root.table("bronze/t").unwrap();
    let mut table = BronzeTable::open_or_create(location.clone(), "bronze/t", settings()).await.unwrap();
    let mut upkeep = Upkeep::new("bronze/t");
    let folder = dir.path().join("bronze/t");
    let mut at = 0;
    soon(async {
        // one commit a record, and one a compaction
        while table.version() <= at as u64 || !has_checkpoint(&folder) {
            append(&mut table, &[rows_of([block(0, at..at + 1)], 86_400_000)], &[(0, at, at + 1)]).await;
            upkeep.tend(&mut table.append_only(), Pace::Steady).await;
            at += 1;
        }
    })
    .await;
    let all = read_all(&table, &crate::model::positions::Positions::new()).await;
    assert_eq!(all[&0], (0..at).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_commit_waits_for_a_compaction() {
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (location, chance) = faulty(&sound, 1);
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    // no commit reads a data file, a compaction does
    let held = hold(&chance, "get", DATA);
    let count = stream(&mut table, &mut upkeep, 0, |_, upkeep| !upkeep.compaction.is_idle()).await;
    soon(held.met()).await;
    let count = stream(&mut table, &mut upkeep, count, |table, _| table.size().1 >= count as u64 + 10).await;
    assert_eq!(table.size().0 as i64, count, "no file is compacted yet");
    held.release();
    let count = stream(&mut table, &mut upkeep, count, |table, _| (table.size().0 as u64) < table.size().1).await;
    expect_rows(&sound, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_fails_stops_nothing_and_is_made_later() {
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (location, chance) = faulty(&sound, 1);
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    refuse(&chance, "get", DATA);
    let count = stream(&mut table, &mut upkeep, 0, |_, upkeep| upkeep.compaction.failures > 0).await;
    assert_eq!(table.size().0 as i64, count, "nothing is compacted");
    forgive(&chance);
    upkeep.compaction.due = None;
    let count = stream(&mut table, &mut upkeep, count, |table, _| (table.size().0 as u64) < table.size().1).await;
    expect_rows(&sound, count).await;
}

#[tokio::test]
async fn what_fails_is_tried_again_after_pauses_that_grow() {
    let mut work = Work::<()>::new("compaction");
    let error = Error::new(ErrorKind::Unavailable, "no answer");
    for longest_s in [1, 2, 4, 8, 16, 32] {
        let before = Instant::now();
        work.put_off("orders", &error);
        assert!(!work.may_begin());
        let pause_s = (work.due.unwrap() - before).as_secs_f64();
        assert!(pause_s >= longest_s as f64 / 2.0, "{pause_s} s of {longest_s}");
    }
    work.begin(async { Ok(()) });
    assert_eq!(work.end("orders").await, Some(()));
    assert!(work.may_begin(), "a success ends the pauses");
}

/// A table whose upkeep has a defect.
struct Defective;

impl Maintained for Defective {
    type Compacted = ();
    const COMPACTS_TO_THE_END: bool = true;

    fn compacting(&mut self, _: Pace) -> Option<futures::future::BoxFuture<'static, Result<Option<()>>>> {
        Some(Box::pin(async { panic!("a defect") }))
    }

    async fn commit_compacted(&mut self, (): ()) -> Result<bool> {
        panic!("nothing was compacted")
    }

    fn checkpointing(&self) -> Option<futures::future::BoxFuture<'static, Result<()>>> {
        Some(Box::pin(async { panic!("a defect") }))
    }

    fn vacuuming(&mut self) -> futures::future::BoxFuture<'static, Result<Vacuumed>> {
        Box::pin(async { panic!("a defect") })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_upkeep_stops_nothing() {
    let mut upkeep = Upkeep::new("orders");
    upkeep.vacuum_at = Instant::now();
    soon(async {
        let failed = |upkeep: &Upkeep<()>| {
            upkeep.compaction.failures > 0 && upkeep.checkpoint.failures > 0 && upkeep.vacuum.failures > 0
        };
        while !failed(&upkeep) {
            upkeep.tend(&mut Defective, Pace::Steady).await;
            tokio::task::yield_now().await;
        }
        upkeep.finish(&mut Defective, Ending::Complete).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_its_end_leaves_nothing_that_is_worth_a_compaction() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    for at in 0..20 {
        write(&mut table, at).await;
    }
    soon(upkeep.finish(&mut table, Ending::Complete)).await;
    assert!(table.plan_compaction(Pace::Steady).is_none());
    assert!(table.size().0 < 3, "{:?}", table.size());
    expect_rows(&location, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_broken_off_gives_up_the_compaction_that_works() {
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (location, chance) = faulty(&sound, 1);
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    let held = hold(&chance, "get", DATA);
    let count = stream(&mut table, &mut upkeep, 0, |_, upkeep| !upkeep.compaction.is_idle()).await;
    soon(held.met()).await;
    soon(upkeep.finish(&mut table, Ending::BrokenOff)).await;
    assert_eq!(table.size().0 as i64, count);
    expect_rows(&sound, count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vacuum_never_meets_what_a_compaction_has_not_committed() {
    let (_dir, root) = lake();
    let sound = root.table("silver/orders").unwrap();
    let (location, chance) = faulty(&sound, 1);
    let (mut table, mut upkeep) = (keyed(&location).await, Upkeep::new("orders"));
    let held = hold(&chance, "get", DATA);
    let count = stream(&mut table, &mut upkeep, 0, |_, upkeep| !upkeep.compaction.is_idle()).await;
    soon(held.met()).await;
    upkeep.vacuum_at = Instant::now();
    let count = stream(&mut table, &mut upkeep, count, |table, _| table.size().1 >= count as u64 + 5).await;
    assert!(upkeep.vacuum.is_idle(), "the compaction still works");
    held.release();
    let count = stream(&mut table, &mut upkeep, count, |_, upkeep| !upkeep.vacuum.is_idle()).await;
    assert!(upkeep.compaction.is_idle(), "the vacuum still works");
    let count = stream(&mut table, &mut upkeep, count, |_, upkeep| upkeep.vacuum.is_idle()).await;
    expect_rows(&sound, count).await;
}

fn letter(offset: i64) -> DeadLetter {
    DeadLetter {
        topic: Arc::from("shop.orders"),
        partition: 0,
        offset,
        stage: Stage::Decode,
        table: "orders".to_owned(),
        reason: "no JSON".to_owned(),
        module: None,
    }
}

/// Writes letters while `operation` on `part` is held in the upkeep, which is begun with the vacuum at `vacuum_at`.
async fn expect_letters_beside(operation: &'static str, part: &'static str, vacuum_at: Instant) {
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, 1);
    let letters = Arc::new(DeadLetters::new(&root, Lake::new(root.clone()), settings()).unwrap());
    letters.write(&[letter(0)]).await.unwrap();
    let held = hold(&chance, operation, part);
    let (ending, ended) = tokio::sync::oneshot::channel();
    let upkeep = Upkeep { vacuum_at, ..Upkeep::new(DEAD_LETTERS) };
    let task = tokio::spawn(keep(Arc::downgrade(&letters), upkeep, ended));
    let mut count = 1;
    soon(async {
        let mut met = std::pin::pin!(held.met());
        while futures::poll!(&mut met).is_pending() {
            letters.write(&[letter(count)]).await.unwrap();
            count += 1;
        }
        for _ in 0..10 {
            letters.write(&[letter(count)]).await.unwrap();
            count += 1;
        }
    })
    .await;
    held.release();
    ending.send(Ending::Complete).unwrap();
    soon(task).await.unwrap();
    let files = letters.table().await.as_ref().unwrap().size().0;
    assert!(files < 3, "{files} files");
    let found = query(&sound.table(DEAD_LETTERS).unwrap(), "SELECT * FROM t").await;
    assert_eq!(found.iter().map(|batch| batch.num_rows() as i64).sum::<i64>(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_waits_for_a_compaction_of_the_letters() {
    expect_letters_beside("get", DATA, Instant::now() + VACUUM_INTERVAL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_letter_waits_for_a_vacuum_of_the_letters() {
    expect_letters_beside("list", "", Instant::now()).await;
}
