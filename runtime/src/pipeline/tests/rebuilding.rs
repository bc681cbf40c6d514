//! A Silver table made anew beside a run that goes on, in a lake that breaks it off.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{LIMIT, Run, pipeline};
use crate::error::Result;
use crate::lake::{KeyedTable, Settings};
use crate::pipeline::rebuild::{Rebuilt, rebuild_in};

async fn rebuild(shop: &Shop, lake: &FaultyLake) -> Result<Rebuilt> {
    rebuild_in(pipeline(shop, lake, "", true), "t07").await
}

async fn generation(lake: &FaultyLake) -> u64 {
    let table = KeyedTable::open(lake.root().table("silver/t07").unwrap(), Settings::default()).await;
    table.unwrap().expect("a table").generation()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_broken_off_changes_nothing_and_the_next_one_exchanges_the_generation() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(30);
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    // Where the new one grows.
    lake.break_down("silver/t07/_lode/g1", Fault::Panic);
    let error = rebuild(&shop, &lake).await.expect_err("it is broken off");
    assert!(error.to_string().contains("made for this test"), "{error}");
    lake.heal();
    assert_eq!(generation(&lake).await, 0);
    shop.work(5);
    run.until_exact(&shop, &lake).await;
    run.until("nothing is on its way", async |status| status.table_buffer.bytes == 0).await;
    // The exchange itself.
    lake.break_commits("silver/t07", Fault::Denied, usize::MAX);
    rebuild(&shop, &lake).await.expect_err("it is broken off");
    lake.heal();
    assert_eq!(generation(&lake).await, 0);
    run.until_exact(&shop, &lake).await;

    let rebuilt = rebuild(&shop, &lake).await.expect("it is made anew");
    assert_eq!(generation(&lake).await, rebuilt.generation);
    assert!(rebuilt.generation > 0 && rebuilt.changes > 0);
    run.until_exact(&shop, &lake).await;
    shop.work(5);
    run.until_exact(&shop, &lake).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_rebuilt_while_it_is_written() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(30);
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    lake.break_commits("silver/t07", Fault::Unanswered, 2);
    let other = pipeline(&shop, &lake, "", true);
    let rebuilding = tokio::spawn(async move { rebuild_in(other, "t07").await });
    for _ in 0..20 {
        shop.work(1);
        run.until_in_bronze(&shop).await;
    }
    let rebuilt = tokio::time::timeout(LIMIT, rebuilding).await.expect("an end within the limit");
    let rebuilt = rebuilt.expect("its own task").expect("it is made anew");
    shop.work(3);
    run.until_exact(&shop, &lake).await;
    assert_eq!(generation(&lake).await, rebuilt.generation);
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}
