//! Two pipelines that write the same tables of one lake: each is fenced by what the other has committed.

use super::faulty::{Fault, FaultyLake};
use super::shop::Shop;
use super::{Run, seed};
use crate::decode::{TableName, TopicKind};
use crate::lake::{BronzeTable, Settings};
use crate::pipeline::connector::Connectors;

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
            status.ready && status.silver.values().all(|table| table.lag == Some(0))
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

#[tokio::test(flavor = "multi_thread")]
async fn what_another_appended_to_the_schema_change_topic_is_known_once_its_bronze_is_open() {
    let (mut shop, lake) = (Shop::new(), FaultyLake::new());
    shop.work(5);
    let connectors = Connectors::new(lake.root(), Settings::default());
    let connector = connectors.of("db");
    // A Silver table of this instance looks before there is anything.
    connectors.take_in(&connector).await.unwrap();
    assert!(connector.is_silent());
    Run::start(&shop, &lake, "", true).end().await.expect("a good end");
    let bronze = lake.root().table("bronze/db").unwrap();
    let table = BronzeTable::open_or_create(bronze, "db", Settings::default()).await.unwrap();
    let kind = connectors.classify("db", &table).await.unwrap();
    assert!(matches!(kind, TopicKind::SchemaChanges));
    assert!(!table.positions().is_empty() && connector.has_reached(&table.positions().offsets()));
    let known = |table: String| {
        connector.with_history(|history| history.latest(&TableName { database: "shop".into(), table }).is_some())
    };
    assert!((0..super::shop::TABLES).all(|number| known(super::shop::table(number))));
}
