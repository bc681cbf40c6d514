//! What old versions need is kept, and a log that grows for ever is not.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

/// Remove actions in the newest checkpoint.
async fn removes_in_checkpoint(location: &Location) -> usize {
    let store = location.store().unwrap();
    let listed: Vec<_> = store.list(Some(&"_delta_log".into())).try_collect().await.unwrap();
    let newest = listed.iter().map(|m| &m.location).filter(|path| path.as_ref().ends_with(".checkpoint.parquet")).max();
    let bytes: Bytes = store.get(newest.unwrap()).await.unwrap().bytes().await.unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    batches
        .map(|batch| {
            let removes = batch.unwrap().column_by_name("remove").cloned().unwrap();
            removes.len() - removes.null_count()
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_do_not_carry_every_vector_and_file_that_was_replaced() {
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
    table.checkpointing().unwrap().await.unwrap();
    assert_eq!(removes_in_checkpoint(&location).await, 0);
    // nothing of it is old enough to go
    assert_eq!(table.vacuum().await.unwrap(), Vacuumed::default());

    // a vector of unknown age is named, so that it is kept from now on
    write(&mut table, 50..51).await;
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), settings).await.unwrap();
    write(&mut table, 51..52).await;
    write(&mut table, 52..53).await;
    table.checkpointing().unwrap().await.unwrap();
    assert_eq!(removes_in_checkpoint(&location).await, 1);
    let configuration = super::super::commit::configuration(&table.committer.metadata);
    assert_eq!(configuration["delta.deletedFileRetentionDuration"], "interval 604800 seconds");
    assert_eq!(configuration["delta.logRetentionDuration"], "interval 604800 seconds");
}
