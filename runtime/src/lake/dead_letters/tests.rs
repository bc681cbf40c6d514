//! Dead letters on a local lake.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;
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
    let at = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(at.clone(), spec(), model::settings()).await.unwrap();
    copy(&mut table, &of(&[(1, "a", Op::Create, 1, 0, 1)]), &ranges(&[(0, 0, 2)])).await.unwrap();
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
