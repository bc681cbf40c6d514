//! A Silver table from changes to commits and dead letters, on a local lake.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::*;
use crate::lake::Location;
use crate::lake::query::Lake;
use crate::lake::tests::{Row, TOPIC, lake, map, model, of, partition, query, ranges, rows};
use crate::model::change::Op;
use crate::model::positions::Origin;
use crate::model::sequence::Sequence;
use crate::model::table_id::TableId;
use crate::pipeline::observe::report::Reporter;
use crate::pipeline::task::serving::Serving;
use crate::pipeline::task::tests::inbox;
use crate::transform::tests::ENGINE;
use crate::transform::tests::guests::{Guest, trapping_on};

fn module(guest: &Guest) -> Module {
    ENGINE.load(&guest.wasm(), "guest").unwrap()
}

fn opening(root: &Location, module: Option<Module>) -> Opening {
    let letters = DeadLetters::new(root, Lake::new(root.clone()), model::settings()).unwrap();
    Opening {
        plan: SilverSpec {
            name: "orders".into(),
            module: module.map(|module| (module, Value::Null)),
            partition_by: Vec::new(),
            changes: false,
            on_incompatible: OnIncompatible::DeadLetter,
        },
        location: root.table("silver/orders").unwrap(),
        feed: None,
        generation: None,
        settings: model::settings(),
        letters: Arc::new(letters),
        serving: Arc::new(Serving::new(Arc::new(Reporter::new("shop", false)))),
    }
}

async fn open(opening: &Opening) -> Upsert {
    opening.open(&inbox(TableId::silver("orders"))).await.unwrap()
}

async fn write(table: &mut Upsert, changes: &[Row], over: &[(i32, i64, i64)]) -> Result<Counts> {
    table.write(&of(changes), &[], &[], &ranges(over), String::new()).await
}

fn bad(offset: i64) -> BadRecord {
    BadRecord { topic: TOPIC.into(), partition: 0, offset, reason: "no JSON".into() }
}

/// Offsets and reasons of the dead letters.
async fn letters(root: &Location) -> Vec<(i64, String)> {
    let found = query(&root.table("dead_letters").unwrap(), "SELECT \"offset\", CAST(reason AS VARCHAR) FROM t").await;
    let mut all = Vec::new();
    for batch in found {
        let reasons = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Utf8).unwrap();
        let offsets = batch.column(0).as_primitive::<Int64Type>();
        all.extend(
            (0..batch.num_rows()).map(|row| (offsets.value(row), reasons.as_string::<i32>().value(row).to_owned())),
        );
    }
    all.sort();
    all
}

/// The column `out` of a table that a guest makes.
async fn outs(root: &Location) -> Vec<i64> {
    let found = query(&root.table("silver/orders").unwrap(), "SELECT out FROM t ORDER BY out").await;
    found.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn before_a_schema_is_known_only_dead_letters_are_written_and_floors_wait() {
    let (_dir, root) = lake();
    let mut table = open(&opening(&root, None)).await;
    let floor = Floor { sequence: Sequence(5), origin: Origin { input: partition(0).into(), offset: 1 } };
    let counts = table.write(&[], &[floor], &[bad(0)], &ranges(&[(0, 0, 2)]), String::new()).await.unwrap();
    assert_eq!((counts.dead_letters, counts.changes), (1, 0));
    assert!(!table.is_made() && table.positions().is_empty());
    assert_eq!(letters(&root).await, [(0, "no JSON".to_owned())]);
    // a row from before the floor, and one from after it
    let changes = [(1, "gone", Op::Create, 4, 0, 2), (2, "stays", Op::Create, 6, 0, 3)];
    write(&mut table, &changes, &[(0, 0, 4)]).await.unwrap();
    assert_eq!(rows(&root.table("silver/orders").unwrap()).await, map(&[(2, "stays")]));
    assert_eq!(table.positions().get(partition(0)), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_module_fails_on_is_a_dead_letter_and_the_rest_is_committed() {
    let (_dir, root) = lake();
    let mut table = open(&opening(&root, Some(module(&trapping_on(13))))).await;
    let changes = [(12, "a", Op::Create, 1, 0, 0), (13, "b", Op::Create, 2, 0, 1), (14, "c", Op::Create, 3, 0, 2)];
    let counts = write(&mut table, &changes, &[(0, 0, 3)]).await.unwrap();
    assert_eq!((counts.rows, counts.rejected, counts.dead_letters), (2, 1, 1));
    assert_eq!(outs(&root).await, [12, 14]);
    let found = letters(&root).await;
    assert_eq!(found.len(), 1);
    assert!(found[0].0 == 1 && found[0].1.contains("trapped"), "{found:?}");
    assert_eq!(table.positions().get(partition(0)), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_on_probation_that_fails_is_rolled_back_within_the_batch() {
    let (_dir, root) = lake();
    let (before, after) = (module(&Guest::default()), module(&trapping_on(13)));
    let opening = opening(&root, Some(before.clone()));
    let mut table = open(&opening).await;
    write(&mut table, &[(1, "a", Op::Create, 1, 0, 0)], &[(0, 0, 1)]).await.unwrap();
    table.adopt(after.clone(), Value::Null).await.unwrap();
    let serves = || opening.serving.get(&TableId::silver("orders")).map(|(module, _)| module.sha256());
    assert_eq!(serves(), Some(after.sha256()));
    let changes = [(12, "b", Op::Create, 2, 0, 1), (13, "c", Op::Create, 3, 0, 2)];
    let counts = write(&mut table, &changes, &[(0, 1, 3)]).await.unwrap();
    assert_eq!((counts.rows, counts.rejected, counts.dead_letters), (2, 0, 0));
    assert_eq!(serves(), Some(before.sha256()));
    assert_eq!(outs(&root).await, [1, 12, 13]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_structure_that_the_table_cannot_take_are_dead_letters_or_stop_it() {
    for (on_incompatible, stops) in [(OnIncompatible::DeadLetter, false), (OnIncompatible::Stop, true)] {
        let (_dir, root) = lake();
        let mut opening = opening(&root, None);
        opening.plan.on_incompatible = on_incompatible;
        let mut table = open(&opening).await;
        write(&mut table, &[(1, "a", Op::Create, 1, 0, 0)], &[(0, 0, 1)]).await.unwrap();
        // another key
        let mut other = of(&[(2, "b", Op::Create, 2, 0, 1)]);
        other[0].schema = Arc::new(TableSchema { key: vec![1], ..other[0].schema.as_ref().clone() });
        let written = table.write(&other, &[], &[], &ranges(&[(0, 1, 2)]), String::new()).await;
        assert_eq!(rows(&root.table("silver/orders").unwrap()).await, map(&[(1, "a")]));
        if stops {
            assert_eq!(written.unwrap_err().kind(), ErrorKind::Gap);
            continue;
        }
        assert_eq!(written.unwrap().dead_letters, 1);
        let found = letters(&root).await;
        assert!(found.len() == 1 && found[0].1.contains("key"), "{found:?}");
        assert_eq!(table.positions().get(partition(0)), Some(2));
    }
}
