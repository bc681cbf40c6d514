//! Tables that are behind: held up for a while, new while the stream runs, or new to a Bronze that is full.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{Run, seed, write_file};

/// The table that is behind.
const LATE: usize = 7;

fn shop(count: i64) -> Shop {
    let mut shop = Shop::new();
    shop.work(count);
    shop
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_commits_are_refused_for_a_while_catches_up_from_bronze_and_is_live_again() {
    let (mut shop, lake) = (shop(20), FaultyLake::new());
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    lake.break_commits("silver/t07", Fault::ReadOnly, usize::MAX);
    // More than its queue holds, in small deliveries, all of them committed by the others meanwhile.
    for _ in 0..34 {
        shop.work(3);
        run.until_in_bronze(&shop).await;
    }
    run.until("the others are exact", async |_| shop.others_are_exact(&lake, &[LATE]).await).await;
    run.until("it lacks what Bronze holds", async |status| {
        let late = &status.silver["t07"];
        late.report.retrying.is_some() && late.lag > Some(0) && !status.ready
    })
    .await;
    lake.heal();
    run.until("it has caught up", async |status| status.ready && status.silver["t07"].lag == Some(0)).await;
    run.until_exact(&shop, &lake).await;
    shop.work(5);
    run.until_exact(&shop, &lake).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_asked_for_while_the_stream_runs_goes_from_bronze_to_live_without_a_gap() {
    let (mut shop, lake) = (shop(40), FaultyLake::new());
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    // Its first commits are told to have failed, and have not.
    lake.break_commits("silver/late", Fault::Unanswered, 3);
    write_file(&shop, "[silver.t07]\nfrom = \"t07\"\n[silver.late]\nfrom = \"t07\"\n");
    // The stream does not pause for it.
    run.until("it has begun", async |status| status.silver.contains_key("late")).await;
    for _ in 0..12 {
        shop.work(3);
        run.until_in_bronze(&shop).await;
    }
    run.until("it is exact", async |status| {
        status.silver["late"].caught_up && shop.difference_in(&lake, "late", LATE).await.is_empty()
    })
    .await;
    shop.work(5);
    run.until("it is live", async |_| shop.difference_in(&lake, "late", LATE).await.is_empty()).await;
    run.until_exact(&shop, &lake).await;
    assert!(lake.is_spent());
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
    lake.assert_each_range_once("silver/late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_gone_from_the_lake_are_made_from_the_bronze_that_is_there_while_the_stream_goes_on() {
    let (mut shop, lake) = (shop(40), FaultyLake::new());
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    run.stop().await.expect("a good end");
    lake.remove("silver").await;
    shop.work(10);
    lake.draw_from(seed());
    lake.break_commits("silver/", Fault::Flaky, 20);
    let run = Run::follow(&shop, &lake, "");
    for _ in 0..10 {
        shop.work(2);
        run.until_in_bronze(&shop).await;
    }
    run.until_exact(&shop, &lake).await;
    run.until("every table has met Bronze", async |status| status.ready).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}
