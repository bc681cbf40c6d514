//! One table is sick, fourteen are not: they are exact and current meanwhile, and the status says what is so.

use std::time::{Duration, Instant};

use super::Run;
use super::faulty::{Fault, FaultyLake};
use super::shop::{Shop, topic};

fn shop() -> Shop {
    let mut shop = Shop::new();
    shop.work(60);
    shop
}

/// The sick table.
const SICK: usize = 7;

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_part_of_the_store_holds_up_its_own_table_and_is_told() {
    for (prefix, told) in [("bronze/db.shop.t07", "bronze `db.shop.t07`"), ("silver/t07", "silver `t07`")] {
        let (shop, lake) = (shop(), FaultyLake::new());
        lake.break_down(prefix, Fault::Busy);
        let run = Run::start(&shop, &lake, "", false);
        run.until("the others are exact", async |_| shop.others_are_exact(&lake, &[SICK]).await).await;
        let status = run.status();
        assert!(!status.ready && status.stopped.is_empty(), "{status:#?}");
        let waits = |reason: &String| reason.contains(told) && reason.contains("tries again since");
        assert!(status.waiting_for.iter().any(waits), "{:?}", status.waiting_for);
        lake.heal();
        run.until("it is exact too", async |status| status.ready && shop.is_exact(&lake, SICK).await).await;
        assert_eq!(lake.offsets(&topic(SICK)).await, shop.offsets(SICK));
        run.stop().await.expect("a good end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_a_tables_task_stops_that_table_at_once_and_a_nudge_takes_it_up_again() {
    for prefix in ["bronze/db.shop.t07", "silver/t07"] {
        let (shop, lake) = (shop(), FaultyLake::new());
        lake.break_down(prefix, Fault::Panic);
        let run = Run::start(&shop, &lake, "", false);
        run.until("the others are exact", async |_| shop.others_are_exact(&lake, &[SICK]).await).await;
        run.until("the panic is told", async |status| status.stopped.len() == 1).await;
        let status = run.status();
        assert!(status.stopped[0].contains("t07"), "{:?}", status.stopped);
        let stopped = match prefix.starts_with("silver") {
            true => status.silver["t07"].report.stopped.clone(),
            false => status.bronze[topic(SICK).as_str()].stopped.clone(),
        };
        assert!(stopped.expect("a reason").reason.contains("a defect, made for this test"));
        lake.heal();
        run.nudge.notify_one();
        run.until("it is exact too", async |status| status.stopped.is_empty() && shop.is_exact(&lake, SICK).await)
            .await;
        assert_eq!(lake.offsets(&topic(SICK)).await, shop.offsets(SICK));
        let ended = run.stop().await;
        assert!(ended.expect_err("it had stopped").to_string().contains("made for this test"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_that_refuses_for_some_seconds_stops_no_table() {
    let (mut shop, lake) = (shop(), FaultyLake::new());
    let run = Run::start(&shop, &lake, "", true);
    run.until("it has begun", async |status| status.records > 0).await;
    lake.break_down("", Fault::Denied);
    let refused = Instant::now();
    run.until("it is refused", async |status| {
        let silver = status.silver.values().filter(|table| table.report.retrying.is_some()).count();
        let bronze = status.bronze.values().filter(|topic| topic.retrying.is_some()).count();
        assert_eq!(status.stopped, [""; 0]);
        silver + bronze > 0 && refused.elapsed() > Duration::from_secs(6)
    })
    .await;
    assert!(!run.status().ready);
    lake.heal();
    run.task.await.expect("the run's own task").expect("a good end");
    assert_eq!(shop.difference_of_others(&lake, &[]).await, "");
    for number in 0..super::shop::TABLES {
        assert_eq!(lake.offsets(&topic(number)).await, shop.offsets(number), "{number}");
    }
    shop.work(5);
    let run = Run::start(&shop, &lake, "", true);
    run.task.await.expect("the run's own task").expect("a good end");
    assert_eq!(shop.difference_of_others(&lake, &[]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_stopped_within_seconds_while_tables_try_again() {
    let (shop, lake) = (shop(), FaultyLake::new());
    lake.break_down("silver/", Fault::Busy);
    let run = Run::start(&shop, &lake, "", false);
    run.until("tables try again", async |status| {
        status.silver.values().filter(|table| table.report.retrying.is_some()).count() > 3
    })
    .await;
    let told = Instant::now();
    run.stop().await.expect("what is not committed is no failure");
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_gives_a_table_up_that_is_refused_for_good() {
    let (shop, lake) = (shop(), FaultyLake::new());
    lake.break_down("bronze/db.shop.t07", Fault::Denied);
    let run = Run::start(&shop, &lake, "", true);
    let error = run.task.await.expect("the run's own task").expect_err("a table is missing");
    assert!(error.to_string().contains("403"), "{error}");
    assert_eq!(shop.difference_of_others(&lake, &[SICK]).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_cut_stops_its_table_with_a_hint_and_the_others_go_on() {
    for (path, told) in [("silver/t07", "silver.t07"), ("bronze/db.shop.t07", "bronze.db.shop.t07")] {
        let (mut shop, lake) = (shop(), FaultyLake::new());
        let run = Run::start(&shop, &lake, "", true);
        run.task.await.expect("the run's own task").expect("a good end");
        let (last, whole) = lake.cut_last_commit(path).await;
        shop.work(6);
        let run = Run::start(&shop, &lake, "", false);
        run.until("the others are exact", async |status| {
            status.stopped == [told] && shop.others_are_exact(&lake, &[SICK]).await
        })
        .await;
        let status = run.status();
        let silver = status.silver.get("t07").and_then(|table| table.report.stopped.clone());
        let stopped = silver.or_else(|| status.bronze[topic(SICK).as_str()].stopped.clone()).expect("a reason");
        assert!(stopped.hint.is_some(), "{stopped:?}");
        // Put back as the hint says, the table goes on when somebody asks for it.
        lake.put(&last, whole).await;
        run.nudge.notify_one();
        run.until("it is exact too", async |status| status.stopped.is_empty() && shop.is_exact(&lake, SICK).await)
            .await;
        drop(run.stop().await);
    }
}
