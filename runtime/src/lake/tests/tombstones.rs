//! What old versions need is kept, and checkpoints do not grow with the number of commits.

use std::time::Duration;

use arrow::datatypes::Int64Type;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::lake::log::commit::{configuration, now_ms};

/// How long each tombstone of the newest checkpoint will still be in checkpoints, milliseconds.
async fn tombstones_ms(table: &KeyedTable, location: &Location) -> Vec<i64> {
    table.checkpointing().unwrap().await.unwrap();
    let store = location.store().unwrap();
    let listed: Vec<_> = store.list(Some(&"_delta_log".into())).try_collect().await.unwrap();
    let newest = listed.iter().map(|m| &m.location).filter(|path| path.as_ref().ends_with(".checkpoint.parquet")).max();
    let bytes: Bytes = store.get(newest.unwrap()).await.unwrap().bytes().await.unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    let property = &configuration(&table.committer.metadata)["delta.deletedFileRetentionDuration"];
    let kept_ms = property.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 1000;
    let mut left = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        let removes = batch.column_by_name("remove").unwrap().as_struct();
        let times = removes.column_by_name("deletionTimestamp").unwrap().as_primitive::<Int64Type>();
        left.extend(
            (0..removes.len()).filter(|row| removes.is_valid(*row)).map(|row| times.value(row) + kept_ms - now_ms()),
        );
    }
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_of_what_was_replaced_young_leave_the_checkpoints_within_the_hour() {
    const HOUR_MS: i64 = 3_600_000;
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    // vectors in files, which readers of old versions need
    let settings = Settings { checkpoint_every: 1, inline_vector_bytes: 0, ..Settings::default() };
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings.clone()).await.unwrap();
    let mut offset = 0;
    let mut write = async |table: &mut KeyedTable, ids: std::ops::Range<i64>| {
        let from = offset;
        let rows: Vec<Row> = ids.map(|id| (id, "v", Op::Update, (id + 1000 * from + 1) as u128, 0, from)).collect();
        offset += 1;
        copy(table, &of(&rows), &ranges(&[(0, from, offset)])).await.unwrap();
    };
    write(&mut table, 0..100).await;
    for id in 0..40 {
        write(&mut table, id..id + 1).await;
    }
    // forty vectors replaced, and forty files joined
    while let Some(compaction) = table.plan_compaction(Pace::Steady) {
        let rewritten = compaction.rewrite().await.unwrap();
        assert!(table.commit_compaction(rewritten).await.unwrap());
    }
    let left = tombstones_ms(&table, &location).await;
    assert!(left.len() >= 80 && left.iter().all(|ms| *ms <= HOUR_MS), "{left:?}");
    // nothing of it is old enough to go
    assert_eq!(table.vacuum().await.unwrap(), Vacuumed::default());

    // a vector of unknown age is kept by its tombstone alone
    write(&mut table, 50..51).await;
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings.clone()).await.unwrap();
    write(&mut table, 51..52).await;
    write(&mut table, 52..53).await;
    let left = tombstones_ms(&table, &location).await;
    assert_eq!(left.iter().filter(|ms| **ms > HOUR_MS).count(), 1, "{left:?}");

    // more is asked for later: the table says so, once
    let version = table.version();
    let month = Settings { vacuum_retention: Duration::from_secs(30 * 24 * 3600), ..settings };
    for _ in 0..2 {
        let table = KeyedTable::open_or_create(location.clone(), spec(), month.clone()).await.unwrap();
        assert_eq!(table.version(), version + 1);
        let said = configuration(&table.committer.metadata);
        assert_eq!(said["delta.deletedFileRetentionDuration"], "interval 2617921 seconds");
        assert_eq!(said["delta.logRetentionDuration"], "interval 2617921 seconds");
    }
    write(&mut table, 53..54).await;
    assert_eq!(rows(&location).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuum_takes_what_a_broken_upload_left_on_a_local_disk() {
    let (dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let settings = Settings { vacuum_retention: Duration::ZERO, ..Settings::default() };
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings).await.unwrap();
    copy(&mut table, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    let folder = dir.path().join("silver/orders");
    std::fs::create_dir(folder.join("day=1")).unwrap();
    let left = [folder.join("part-1.zstd.parquet#1"), folder.join("day=1/part-2.zstd.parquet#12")];
    let others =
        [folder.join("notes#1"), folder.join("part-3.zstd.parquet#a"), folder.join("_lode/part-4.zstd.parquet#1")];
    std::fs::create_dir_all(folder.join("_lode")).unwrap();
    for path in left.iter().chain(&others) {
        std::fs::write(path, "x").unwrap();
    }
    table.vacuum().await.unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    assert!(others.last().unwrap().exists());
    assert_eq!(rows(&location).await, map(&[(1, "a")]));
}
