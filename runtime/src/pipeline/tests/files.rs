//! Files that change while the stream runs: the pipeline file and a module.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{Run, Status, write_file};
use crate::transform::tests::guests::Guest;

const COPY: &str = "[silver.t03]\nfrom = \"t03\"\n[silver.copy]\nfrom = \"t03\"\n";

fn shop() -> Shop {
    let mut shop = Shop::new();
    shop.work(12);
    shop
}

fn refused(status: &Status) -> &str {
    status.pipeline_file.as_ref().map_or("", |refusal| &refusal.reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_file_that_cannot_be_taken_over_leaves_everything_as_it_was_and_is_told() {
    let (mut shop, lake) = (shop(), FaultyLake::new());
    let run = Run::follow(&shop, &lake, COPY);
    run.until_exact(&shop, &lake).await;
    for (more, told) in [
        ("[silver.broken", "TOML"),
        ("[silver.more]\nfrom = \"t04\"\ntransform = \"missing.wasm\"\n", "missing.wasm` cannot be read"),
        ("[silver.t03]\nfrom = \"t03\"\n[silver.copy]\nfrom = \"t03\"\npartition_by = [\"name\"]\n", "partition_by"),
        ("[silver.t03]\nfrom = \"t03\"\n[silver.copy]\nfrom = \"t04\"\n", "`silver.copy.from` cannot change"),
        ("[silver.more]\nfrom = \"t04\"\n[debezium]\ndecimal_handling = \"string\"\n", "`debezium` cannot change"),
    ] {
        write_file(&shop, more);
        run.until("it is refused", async |status| {
            eprintln!("{:?}", refused(status));
            refused(status).contains(told)
        })
        .await;
        shop.work(4);
        run.until_exact(&shop, &lake).await;
        run.until("the copy goes on", async |_| shop.difference_in(&lake, "copy", 3).await.is_empty()).await;
        let status = run.status();
        assert!(status.stopped.is_empty() && !status.silver.contains_key("more"), "{status:#?}");
    }
    write_file(&shop, COPY);
    run.until("nothing is refused any more", async |status| status.pipeline_file.is_none()).await;
    shop.work(4);
    run.until_exact(&shop, &lake).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_section_under_another_name_is_another_table_and_the_one_before_stays_as_it_is() {
    let (mut shop, lake) = (shop(), FaultyLake::new());
    let run = Run::follow(&shop, &lake, COPY);
    run.until_exact(&shop, &lake).await;
    run.until("the copy is exact", async |_| shop.difference_in(&lake, "copy", 3).await.is_empty()).await;
    let before = lake.rows("copy", "name").await;
    lake.break_commits("silver/other", Fault::ReadOnly, 2);
    write_file(&shop, &COPY.replace("silver.copy", "silver.other"));
    run.until("the sections are taken over", async |status| {
        status.silver.contains_key("other") && !status.silver.contains_key("copy")
    })
    .await;
    shop.work(9);
    run.until("the other is exact", async |_| shop.difference_in(&lake, "other", 3).await.is_empty()).await;
    run.until_exact(&shop, &lake).await;
    assert!(lake.is_spent());
    assert_eq!(lake.rows("copy", "name").await, before);
    // Without any section the table is copied because every table is.
    write_file(&shop, "");
    run.until("the section is gone", async |status| !status.silver.contains_key("other")).await;
    shop.work(9);
    run.until_exact(&shop, &lake).await;
    // Asked for again, it goes on from where it was.
    write_file(&shop, COPY);
    run.until("the copy is exact again", async |_| shop.difference_in(&lake, "copy", 3).await.is_empty()).await;
    run.stop().await.expect("a good end");
    shop.assert_exact(&lake).await;
    lake.assert_each_range_once("silver/copy").await;
}

/// Gives `id` back, and once more as `column`.
fn module(column: &'static str) -> Vec<u8> {
    Guest { writes: vec![(column, "l", true, 0)], passes: vec![("id", [0, 0])], ..Guest::default() }.wasm()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_takes_over_between_two_commits_that_fail_and_a_broken_one_does_not() {
    let (mut shop, lake) = (shop(), FaultyLake::new());
    let path = shop.folder().join("twin.wasm");
    let put = |bytes: &[u8]| std::fs::write(&path, bytes).expect("the module");
    put(&module("twin"));
    let run = Run::follow(&shop, &lake, "[silver.twins]\nfrom = \"t03\"\ntransform = \"twin.wasm\"\n");
    let text = |ids: Vec<(i64, String)>| ids.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let ids = async || text(lake.rows("t04", "name").await.unwrap_or_default());
    let derived = async |column: &str| lake.rows("twins", column).await.unwrap_or_default();
    // Tables t03 and t04 have the same ids.
    let follows = async |column: &str, from: i64| {
        let wanted: Vec<_> =
            ids().await.into_iter().map(|id| (id, if id > from { id.to_string() } else { String::new() })).collect();
        !wanted.is_empty() && derived(column).await == wanted
    };
    run.until("it has every row", async |_| shop.others_are_exact(&lake, &[3]).await && follows("twin", 0).await).await;
    let served = run.status().silver["twins"].report.module.clone();
    put(b"no module");
    run.until("it is refused", async |status| status.silver["twins"].report.refused.is_some()).await;
    shop.work(5);
    run.until("the one before serves", async |status| {
        status.silver["twins"].report.module == served
            && shop.others_are_exact(&lake, &[3]).await
            && follows("twin", 0).await
    })
    .await;
    let last = ids().await.pop().expect("a row");
    lake.break_commits("silver/twins", Fault::Unanswered, 2);
    put(&module("other"));
    run.until("the other serves", async |status| status.silver["twins"].report.module != served).await;
    shop.work(5);
    run.until("its rows have the other column", async |_| {
        shop.others_are_exact(&lake, &[3]).await && follows("other", last).await
    })
    .await;
    assert!(lake.is_spent());
    assert!(run.status().silver["twins"].report.refused.is_none());
    run.stop().await.expect("a good end");
    lake.assert_each_range_once("silver/twins").await;
}
