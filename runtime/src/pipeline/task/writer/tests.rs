//! A writer on a local lake: what is committed once, what another instance left, what the feed gets.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Map;

use super::super::derivation::{Derivation, Offer};
use super::super::tests::inbox;
use super::*;
use crate::lake::tests::faulty::{Shared, faulty, forgive, refuse};
use crate::lake::tests::{Row, lake, map, model, of, partition, query, ranges, rows, spec};
use crate::model::change::Op;
use crate::model::table_id::TableId;
use crate::pipeline::observe::report::Reporter;
use crate::pipeline::task::serving::Serving;

fn place(root: &Location, feed: bool) -> Place {
    Place {
        name: "orders".into(),
        location: root.table("silver/orders").unwrap(),
        feed: feed.then(|| root.table("silver/orders_changes").unwrap()),
        settings: model::settings(),
    }
}

fn health() -> Health {
    inbox(TableId::silver("orders")).health
}

async fn make(place: &Place) -> Writer {
    Writer::make(place, &health(), spec(), &HashMap::new()).await.unwrap()
}

async fn open(place: &Place) -> Result<Option<Writer>> {
    Writer::open(place, &health()).await
}

/// Commits copies of `changes`; false when the table holds some of it already.
async fn commit(writer: &mut Writer, changes: &[Row], over: &[(i32, i64, i64)]) -> Result<bool> {
    let changes = of(changes);
    let selected = writer.select(&changes, &[]).await?;
    let serving = Arc::new(Serving::new(Arc::new(Reporter::new("shop", false))));
    let mut derivation = Derivation::new(&TableId::silver("orders"), None, serving, Arc::default());
    let offer = Offer::of_source(&changes[0].schema);
    derivation.take_up(derivation.describe(&offer)?, offer, writer.columns());
    let input = selected.selection().upserts().clone();
    let derived = derivation.derive(input, writer.table().schema()).await?;
    writer.commit(selected, derived, &ranges(over), "", Map::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_their_offsets_are_one_commit() {
    let (_dir, root) = lake();
    let place = place(&root, false);
    assert!(open(&place).await.unwrap().is_none());
    let mut writer = make(&place).await;
    let made = writer.table().version();
    assert!(
        commit(&mut writer, &[(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1)], &[(0, 0, 2)])
            .await
            .unwrap()
    );
    assert_eq!(writer.table().version(), made + 1);
    assert_eq!(rows(&place.location).await, map(&[(1, "a"), (2, "b")]));
    let again = open(&place).await.unwrap().unwrap();
    assert_eq!(again.table().positions().get(partition(0)), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_has_committed_is_left_out() {
    let (_dir, root) = lake();
    let place = place(&root, false);
    let mut slow = make(&place).await;
    let mut fast = open(&place).await.unwrap().unwrap();
    let all = [(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1)];
    assert!(commit(&mut fast, &all[..1], &[(0, 0, 1)]).await.unwrap());
    assert!(!commit(&mut slow, &all, &[(0, 0, 2)]).await.unwrap(), "half of it is in the table");
    let missing = slow.missing_of(&ranges(&[(0, 0, 2)])).unwrap();
    assert_eq!(missing, ranges(&[(0, 1, 2)]));
    assert!(commit(&mut slow, &all, &[(0, 1, 2)]).await.unwrap());
    assert_eq!(rows(&place.location).await, map(&[(1, "a"), (2, "b")]));
}

async fn until_refused(chance: &Shared, operation: &'static str) {
    let refused = async {
        while !chance.lock().unwrap().met.contains_key(operation) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("a minute is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_for_a_while_delays_a_commit_and_loses_nothing() {
    let (_dir, root) = lake();
    let (unsteady, chance) = faulty(&root, 1);
    let place = place(&unsteady, false);
    let mut writer = make(&place).await;
    for operation in ["put", "put_if_absent"] {
        chance.lock().unwrap().met.clear();
        let at = writer.table().positions().get(partition(0)).unwrap_or(0);
        refuse(&chance, operation, "");
        let change = [(at, "v", Op::Create, 10 + at as u128, 0, at)];
        let over = [(0, at, at + 1)];
        let (done, ()) = tokio::join!(commit(&mut writer, &change, &over), async {
            until_refused(&chance, operation).await;
            forgive(&chance);
        });
        assert!(done.unwrap());
    }
    assert_eq!(rows(&root.table("silver/orders").unwrap()).await, map(&[(0, "v"), (1, "v")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_has_every_change_and_its_table_the_newest() {
    let (_dir, root) = lake();
    let place = place(&root, true);
    let mut writer = make(&place).await;
    let changes = [(1, "a", Op::Create, 1, 0, 0), (1, "b", Op::Update, 2, 0, 1), (2, "c", Op::Create, 3, 0, 2)];
    assert!(commit(&mut writer, &changes, &[(0, 0, 3)]).await.unwrap());
    assert_eq!(rows(&place.location).await, map(&[(1, "b"), (2, "c")]));
    let feed = place.feed.clone().unwrap();
    let count = |batches: Vec<arrow::array::RecordBatch>| batches.iter().map(|b| b.num_rows()).sum::<usize>();
    assert_eq!(count(query(&feed, "SELECT * FROM t").await), 3);
    // once more: nothing is there twice
    let mut again = open(&place).await.unwrap().unwrap();
    assert!(commit(&mut again, &changes, &[(0, 0, 3)]).await.unwrap());
    assert_eq!(count(query(&feed, "SELECT * FROM t").await), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_without_its_table_is_refused() {
    let (dir, root) = lake();
    let place = place(&root, true);
    drop(make(&place).await);
    std::fs::remove_dir_all(dir.path().join("silver/orders")).unwrap();
    let error = open(&place).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("of a table that is no more"), "{error}");
}
