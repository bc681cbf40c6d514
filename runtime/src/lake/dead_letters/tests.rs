//! Dead letters on a local lake.

use arrow::datatypes::Int64Type;

use super::*;
use crate::lake::tests::faulty::{faulty, forgive, hold, lose, refuse};
use crate::lake::tests::{TOPIC, copy, lake, model, of, query, ranges, spec};

fn letters(root: &Location) -> DeadLetters {
    DeadLetters::new(root, Lake::new(root.clone()), model::settings()).unwrap()
}

fn letter(offset: i64, reason: &str) -> DeadLetter {
    DeadLetter {
        topic: TOPIC.into(),
        partition: 0,
        offset,
        stage: Stage::Decode,
        table: "orders".into(),
        reason: reason.into(),
        module: None,
    }
}

async fn offsets(root: &Location) -> Vec<i64> {
    let found = query(&root.table(DEAD_LETTERS).unwrap(), "SELECT \"offset\" FROM t ORDER BY \"offset\"").await;
    found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// Version of the dead-letter table.
async fn version(root: &Location) -> u64 {
    let table = crate::lake::delta_table(&root.table(DEAD_LETTERS).unwrap(), None).await.unwrap();
    table.version().unwrap()
}

/// A Silver table that has taken in two records.
async fn orders(root: &Location) -> Location {
    let at = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(at.clone(), spec(), model::settings()).await.unwrap();
    copy(&mut table, &of(&[(1, "a", Op::Create, 1, 0, 1)]), &ranges(&[(0, 0, 2)])).await.unwrap();
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_is_written_again_is_there_once_with_its_last_reason() {
    let (_dir, root) = lake();
    let letters = letters(&root);
    letters.write(&[letter(0, "first"), letter(1, "other")]).await.unwrap();
    letters.write(&[letter(0, "second")]).await.unwrap();
    assert_eq!(offsets(&root).await, [0, 1]);
    let found = query(&root.table(DEAD_LETTERS).unwrap(), "SELECT \"offset\" FROM t WHERE reason = 'second'").await;
    assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_batch_that_was_never_committed_are_taken_away() {
    let (_dir, root) = lake();
    let at = orders(&root).await;
    let letters = letters(&root);
    letters.forget_from("orders", &at).await.unwrap();
    let of_another = DeadLetter { table: "customers".into(), ..letter(7, "stays") };
    letters.write(&[letter(0, "committed"), letter(2, "not yet"), of_another]).await.unwrap();
    letters.forget_from("orders", &at).await.unwrap();
    assert_eq!(offsets(&root).await, [0, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_takes_away_what_was_decided_before_it_began() {
    let (_dir, root) = lake();
    let letters = letters(&root);
    letters.write(&[letter(0, "before"), letter(9, "not rebuilt")]).await.unwrap();
    let begun_ms = chrono::Utc::now().timestamp_millis() + 1;
    while chrono::Utc::now().timestamp_millis() <= begun_ms {
        tokio::task::yield_now().await;
    }
    letters.write(&[letter(1, "by the rebuild")]).await.unwrap();
    let id = PartitionId { topic: TOPIC.into(), partition: 0 };
    letters.forget_before("orders", begun_ms, &Positions::from([(id, 5)])).await.unwrap();
    assert_eq!(offsets(&root).await, [1, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_letters_whose_answer_is_lost_is_not_made_again() {
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, 0);
    let letters = letters(&root);
    letters.write(&[letter(0, "sound")]).await.unwrap();
    let before = version(&sound).await;
    lose(&chance, "put_if_absent", "_delta_log");
    letters.write(&[letter(1, "lost"), letter(2, "lost")]).await.unwrap();
    assert_eq!(chance.lock().unwrap().met.get("put_if_absent"), Some(&1));
    assert_eq!((version(&sound).await, offsets(&sound).await), (before + 1, vec![0, 1, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_that_nobody_knows_to_be_written_are_there_once_after_another_try() {
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, 0);
    let letters =
        DeadLetters::new(&root, Lake::new(root.clone()), Settings { commit_attempts: 1, ..model::settings() });
    let letters = letters.unwrap();
    letters.write(&[letter(0, "sound")]).await.unwrap();
    lose(&chance, "put_if_absent", "_delta_log");
    refuse(&chance, "get", "_delta_log");
    let error = letters.write(&[letter(1, "first"), letter(2, "first")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    forgive(&chance);
    assert_eq!(offsets(&sound).await, [0, 1, 2], "they were written");
    letters.write(&[letter(1, "second"), letter(2, "second")]).await.unwrap();
    assert_eq!(offsets(&sound).await, [0, 1, 2]);
    let old = query(&sound.table(DEAD_LETTERS).unwrap(), "SELECT \"offset\" FROM t WHERE reason = 'first'").await;
    assert_eq!(old.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_forgotten_once_after_a_restart() {
    let (_dir, sound) = lake();
    let at = orders(&sound).await;
    letters(&sound).write(&[letter(1, "committed"), letter(2, "not yet"), letter(3, "not yet")]).await.unwrap();
    let written = version(&sound).await;
    // the first restart is told that it has failed, though it has not
    let (root, chance) = faulty(&sound, 0);
    lose(&chance, "put_if_absent", "_delta_log");
    letters(&root).forget_from("orders", &at).await.unwrap();
    assert_eq!((version(&sound).await, offsets(&sound).await), (written + 1, vec![1]));
    let restarted = letters(&sound);
    restarted.forget_from("orders", &at).await.unwrap();
    assert_eq!(version(&sound).await, written + 1, "there was nothing to forget");
    // what the batch says when it comes again is kept
    restarted.write(&[letter(2, "again")]).await.unwrap();
    assert_eq!(offsets(&sound).await, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_of_a_clock_that_was_ahead_are_forgotten_and_may_come_again() {
    let (_dir, root) = lake();
    let at = orders(&root).await;
    let ahead = letters(&root);
    ahead.newest_us.store(chrono::Utc::now().timestamp_micros() + 3_600_000_000, Relaxed);
    ahead.write(&[letter(0, "committed"), letter(2, "not yet")]).await.unwrap();
    let restarted = letters(&root);
    restarted.forget_from("orders", &at).await.unwrap();
    assert_eq!(offsets(&root).await, [0]);
    restarted.write(&[letter(2, "again")]).await.unwrap();
    assert_eq!(offsets(&root).await, [0, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_write_at_once_lose_and_double_no_letter() {
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, 0);
    let (one, other) = (letters(&root), letters(&sound));
    one.write(&[letter(0, "before")]).await.unwrap();
    other.write(&[letter(1, "before")]).await.unwrap();
    // the commit of one waits until the other has taken its version
    let held = hold(&chance, "put_if_absent", "_delta_log");
    let late = tokio::spawn(async move { one.write(&[letter(2, "late"), letter(3, "both")]).await });
    held.met().await;
    other.write(&[letter(3, "both"), letter(4, "early")]).await.unwrap();
    held.release();
    late.await.unwrap().unwrap();
    assert_eq!(offsets(&sound).await, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_make_the_table_at_once_make_one() {
    let (_dir, sound) = lake();
    let (root, chance) = faulty(&sound, 0);
    let (one, other) = (letters(&root), letters(&sound));
    let held = hold(&chance, "put_if_absent", "_delta_log");
    let late = tokio::spawn(async move { one.write(&[letter(0, "late")]).await });
    held.met().await;
    other.write(&[letter(1, "early")]).await.unwrap();
    held.release();
    late.await.unwrap().unwrap();
    assert_eq!(offsets(&sound).await, [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_name_has_a_quote_forgets_its_own_letters_only() {
    let (_dir, root) = lake();
    let at = orders(&root).await;
    let letters = letters(&root);
    let of = |table: &str, offset| DeadLetter { table: table.into(), ..letter(offset, "not yet") };
    letters.write(&[of("o'Brien", 5), of("O'brien", 6), of("o''Brien", 7)]).await.unwrap();
    letters.forget_from("o'Brien", &at).await.unwrap();
    assert_eq!(offsets(&root).await, [6, 7]);
}
