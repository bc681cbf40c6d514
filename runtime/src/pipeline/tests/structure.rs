//! Structures that change while the stream runs, and a lake that refuses the commit of the change.

use super::Run;
use super::faulty::{Fault, FaultyLake};
use super::shop::{Event, Shop};

/// The table whose structure changes.
const CHANGED: usize = 7;

const EVENTS: [Event; 6] = [
    Event::ColumnAdded,
    Event::Truncated,
    Event::ColumnRenamed,
    Event::MadeAnew,
    // once more, in the structure that it has by then
    Event::Truncated,
    Event::MadeAnew,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_table_follows_its_structure_through_commits_that_fail() {
    for fault in [Fault::ReadOnly, Fault::Unanswered] {
        let (mut shop, lake) = (Shop::new(), FaultyLake::new());
        shop.work(12);
        let run = Run::follow(&shop, &lake, "");
        run.until_exact(&shop, &lake).await;
        for event in EVENTS {
            lake.break_commits("silver/t07", fault, 2);
            shop.happen(CHANGED, event);
            shop.work(7);
            run.until("every table is exact after the change", async |status| {
                assert_eq!(status.stopped, [""; 0], "{event:?}, {fault:?}");
                lake.is_spent() && shop.others_are_exact(&lake, &[]).await
            })
            .await;
        }
        run.stop().await.expect("a good end");
        shop.assert_exact(&lake).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_behind_meets_every_structure_that_it_had_meanwhile() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(12);
    let run = Run::follow(&shop, &lake, "");
    run.until_exact(&shop, &lake).await;
    lake.break_commits("silver/t07", Fault::ReadOnly, usize::MAX);
    for event in EVENTS {
        shop.happen(CHANGED, event);
        shop.work(7);
        run.until_in_bronze(&shop).await;
    }
    run.until("the others are exact", async |_| shop.others_are_exact(&lake, &[CHANGED]).await).await;
    lake.heal();
    run.until_exact(&shop, &lake).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_the_start_meets_every_structure_that_there_was() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(12);
    for event in EVENTS {
        shop.happen(CHANGED, event);
        shop.work(7);
    }
    lake.break_commits("silver/t07", Fault::Unanswered, 3);
    Run::start(&shop, &lake, "", true).end().await.expect("a good end");
    assert!(lake.is_spent());
    shop.assert_exact(&lake).await;
}
