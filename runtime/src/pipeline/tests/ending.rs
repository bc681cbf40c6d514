//! Runs that end: at the end of what there is, or in the middle, in a lake that refuses commits or loses their answers.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{Run, seed};

fn shop(count: i64) -> Shop {
    let mut shop = Shop::new();
    shop.work(count);
    shop
}

fn flaky_lake() -> FaultyLake {
    let lake = FaultyLake::new();
    lake.draw_from(seed());
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_through_commits_that_fail_has_everything_once() {
    let (shop, lake) = (shop(60), flaky_lake());
    lake.break_commits("", Fault::Flaky, 60);
    Run::start(&shop, &lake, "", true).end().await.expect("a good end");
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_commits_of_a_run_are_made_although_they_fail_at_first() {
    let (mut shop, lake) = (shop(20), flaky_lake());
    // Nothing is due before the end: all that is committed is committed by the drain.
    let more = "[silver.t07]\nfrom = \"t07\"\n";
    Run::start(&shop, &lake, more, true).end().await.expect("a good end");
    shop.work(6);
    for layer in ["bronze/db.shop.t07", "silver/t07"] {
        lake.break_commits(layer, Fault::ReadOnly, 2);
        lake.break_commits(layer, Fault::Unanswered, 1);
    }
    Run::start(&shop, &lake, more, true).end().await.expect("a good end");
    assert!(lake.is_spent());
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_stopped_in_the_middle_is_gone_on_with_by_the_next() {
    let (mut shop, lake) = (shop(60), flaky_lake());
    for records in [500, 100, 100] {
        lake.break_commits("", Fault::Flaky, 10);
        let run = Run::follow(&shop, &lake, "");
        run.until("it is in the middle", async |status| status.records >= records).await;
        run.stop().await.expect("what is not committed is no failure");
        lake.heal();
        shop.work(10);
    }
    lake.break_commits("", Fault::Flaky, 20);
    let summary = Run::start(&shop, &lake, "", true).end().await.expect("a good end");
    assert!(summary.silver.len() == super::shop::TABLES, "{summary:?}");
    shop.assert_exact(&lake).await;
}
