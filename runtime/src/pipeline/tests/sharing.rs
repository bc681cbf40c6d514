//! Two pipelines that write the same tables of one lake: each is fenced by what the other has committed.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{Run, seed};

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_over_one_lake_commit_everything_once() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    lake.draw_from(seed());
    shop.work(20);
    lake.break_commits("", Fault::Flaky, 40);
    let runs = [Run::follow(&shop, &lake, ""), Run::follow(&shop, &lake, "")];
    for _ in 0..12 {
        shop.work(3);
        for run in &runs {
            run.until_in_bronze(&shop).await;
        }
    }
    for run in &runs {
        run.until_exact(&shop, &lake).await;
        run.until("it has taken in everything", async |status| {
            status.ready && status.silver.values().all(|table| table.lag == 0)
        })
        .await;
    }
    let [first, second] = runs;
    let commits = |run: &Run| run.status().silver.values().map(|table| table.rows_written).sum::<u64>();
    assert!(commits(&first) > 0 && commits(&second) > 0, "both are to have committed something");
    first.stop().await.expect("a good end");
    // Alone, the other goes on.
    shop.work(5);
    second.until_exact(&shop, &lake).await;
    second.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}
