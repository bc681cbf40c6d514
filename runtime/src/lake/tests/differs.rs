//! Tables that replace rows when they differ, and what a commit tells of the owners.

use std::path::Path;

use super::*;
use crate::model::positions::InputId;

fn gold() -> TableSpec {
    TableSpec { name: "gold/orders".into(), freshness: Freshness::Differs, ..spec() }
}

async fn open(location: &Location) -> KeyedTable {
    KeyedTable::open_or_create(location.clone(), gold(), Settings::default()).await.unwrap()
}

/// The input of a table that is made of another one.
fn silver() -> InputId {
    InputId::Table { id: "2b1d".into(), generation: 3 }
}

fn versions(from: i64, to: i64) -> Ranges {
    Ranges::from([(silver(), Range { from, to })])
}

/// Rows of no input: owner, value, op.
fn derived(rows: &[(i64, &'static str, Op)]) -> Vec<Changes> {
    let rows: Vec<Row> = rows.iter().map(|(id, v, op)| (*id, *v, *op, 1, 0, 0)).collect();
    of(&rows).into_iter().map(|changes| Changes { records: None, ..changes }).collect()
}

fn writes(rows: &[(i64, &'static str)]) -> Vec<Changes> {
    derived(&rows.iter().map(|(id, v)| (*id, *v, Op::Update)).collect::<Vec<_>>())
}

/// Data files of the table, dead ones too.
fn data_files(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".parquet")).count()
}

async fn hidden_rows(location: &Location) -> u64 {
    KeyedTable::open(location.clone(), Settings::default()).await.unwrap().unwrap().extent().hidden_rows
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_the_same_are_not_written_again() {
    let (dir, root) = lake();
    let location = root.table("gold/orders").unwrap();
    let folder = dir.path().join("gold/orders");
    let mut table = open(&location).await;
    copy(&mut table, &writes(&[(1, "a"), (2, "b"), (3, "c")]), &versions(0, 5)).await.unwrap();
    assert_eq!(data_files(&folder), 1);
    for restarted in [false, true] {
        if restarted {
            table = open(&location).await;
        }
        // nothing moves: not even a commit
        let version = table.version();
        let same = copy(&mut table, &writes(&[(3, "c"), (1, "a")]), &Ranges::new()).await.unwrap();
        assert_eq!(same, Outcome::AlreadyCommitted { version });
        // the input moves on
        let next = 5 + i64::from(restarted);
        let moved = copy(&mut table, &writes(&[(2, "b")]), &versions(next, next + 1)).await.unwrap();
        assert_eq!(moved, Outcome::Committed(version + 1));
        assert_eq!((data_files(&folder), hidden_rows(&location).await), (1, 0), "restarted: {restarted}");
    }
    // one of three is another by now: that one is written, in the place of its old row
    copy(&mut table, &writes(&[(1, "a"), (2, "b2"), (3, "c")]), &versions(7, 8)).await.unwrap();
    assert_eq!((data_files(&folder), hidden_rows(&location).await), (2, 1));
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b2"), (3, "c")]));
    assert_eq!(table.positions().get(silver()), Some(8));
    assert_eq!(
        copy(&mut table, &writes(&[(1, "x")]), &versions(6, 8)).await.unwrap(),
        Outcome::AlreadyCommitted { version: table.version() }
    );
    assert_eq!(open(&location).await.positions(), table.positions(), "the input is read back from the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_rows_differs_from_one_with_rows_only() {
    let (_dir, root) = lake();
    let location = root.table("gold/orders").unwrap();
    let mut table = open(&location).await;
    copy(&mut table, &writes(&[(1, "a"), (2, "b")]), &Ranges::new()).await.unwrap();
    for _ in 0..2 {
        let gone = derived(&[(1, "", Op::Delete), (7, "", Op::Delete)]);
        copy(&mut table, &gone, &Ranges::new()).await.unwrap();
        assert_eq!(rows(&location).await, map(&[(2, "b")]));
        let version = table.version();
        let again = copy(&mut table, &gone, &Ranges::new()).await.unwrap();
        assert_eq!(again, Outcome::AlreadyCommitted { version });
        // the very row of before comes back
        copy(&mut table, &writes(&[(1, "a")]), &Ranges::new()).await.unwrap();
        assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b")]));
        table = open(&location).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_an_owner_are_compared_together() {
    let (_dir, root) = lake();
    let location = root.table("gold/orders").unwrap();
    let mut table = open(&location).await;
    let mut put = async |values: &[&str]| {
        let selection = table.select(&writes(&[(1, "")]), &[]).unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1; values.len()]));
        let texts: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
        let output = RecordBatch::try_new(fields(), vec![ids, texts]).unwrap();
        let sources = vec![0; values.len()];
        let rows = given(&selection, &output, &sources, &[]);
        let outcome = table.replace(rows, &Ranges::new(), Map::new()).await.unwrap();
        matches!(outcome, Outcome::Committed(_))
    };
    assert!(put(&["a", "b"]).await);
    assert!(!put(&["b", "a"]).await, "in another order");
    assert!(put(&["a"]).await, "one of them");
    assert!(put(&["a", "a"]).await, "the same twice");
    assert!(put(&[]).await, "none");
    assert!(!put(&[]).await, "none again");
    assert!(put(&["a", "b"]).await);
    let mut expected = vec![(1, "a".to_string()), (1, "b".to_string())];
    expected.sort();
    assert_eq!(rows(&location).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_instance_replaced_meanwhile_is_compared_anew() {
    let (_dir, root) = lake();
    let location = root.table("gold/orders").unwrap();
    let mut one = open(&location).await;
    copy(&mut one, &writes(&[(1, "a"), (2, "b")]), &versions(0, 1)).await.unwrap();
    let mut other = open(&location).await;
    let changes = writes(&[(1, "a"), (2, "b2")]);
    let selection = one.select(&changes, &[]).unwrap();
    let output = selection.upserts().clone();
    // owner 1 is the same and is left out of the files; then it is no more
    copy(&mut other, &writes(&[(1, "x")]), &Ranges::new()).await.unwrap();
    let late = one.replace(OwnerRows::copied(&selection, &output), &versions(1, 2), Map::new()).await.unwrap();
    assert_eq!(version_of(late), Outcome::Fenced);
    copy(&mut one, &changes, &versions(1, 2)).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b2")]));
    // a commit that changes no row is no reason to begin anew
    let elsewhere = Ranges::from([(InputId::Table { id: "9c".into(), generation: 0 }, Range { from: 0, to: 4 })]);
    assert!(matches!(copy(&mut other, &[], &elsewhere).await.unwrap(), Outcome::Committed(_)));
    assert!(matches!(copy(&mut one, &writes(&[(2, "b3")]), &versions(2, 3)).await.unwrap(), Outcome::Committed(_)));
    assert_eq!(one.positions().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_keeps_the_rule_by_which_it_was_made() {
    let (_dir, root) = lake();
    let location = root.table("gold/orders").unwrap();
    let table = open(&location).await;
    assert_eq!(table.schema().fields(), fields().fields(), "the fingerprint is the table's own column");
    let newer = TableSpec { freshness: Freshness::Newer, ..gold() };
    let refused = KeyedTable::open_or_create(location.clone(), newer, Settings::default()).await.unwrap_err();
    assert!(refused.to_string().contains("another rule"), "{refused}");
    let keyless = TableSpec { key: vec![], ..gold() };
    let elsewhere = root.table("gold/keyless").unwrap();
    let refused = KeyedTable::open_or_create(elsewhere, keyless, Settings::default()).await.unwrap_err();
    assert!(refused.to_string().contains("needs a key"), "{refused}");
    let feed = ChangesTable::open_or_create(root.table("gold/orders_changes").unwrap(), "gold/orders_changes", &table);
    assert!(feed.await.unwrap_err().to_string().contains("has no feed"));
}

/// Key and value of the rows that owners got, and the keys among `keys` whose owners lost theirs.
fn told(table: &KeyedTable, outcome: Outcome<Committed>, keys: &[i64]) -> (Vec<(i64, String)>, Vec<i64>) {
    let Outcome::Committed(Committed { changes, .. }) = outcome else { panic!("{outcome:?}") };
    let written = changes.rows().unwrap();
    let ids = written.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
    let values = written.column_by_name("v").unwrap().as_string::<i32>().iter().map(|v| v.unwrap().to_string());
    let owners = table.owners_of(&[Arc::new(Int64Array::from(keys.to_vec()))]).unwrap();
    let gone = keys.iter().zip(owners).filter(|(_, owner)| changes.gone().contains(owner)).map(|(key, _)| *key);
    let mut rows: Vec<_> = ids.into_iter().zip(values).collect();
    rows.sort();
    (rows, gone.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_tells_which_owners_got_rows_and_which_lost_theirs() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), Settings::default()).await.unwrap();
    let first = of(&[(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1), (3, "c", Op::Create, 3, 0, 2)]);
    copy(&mut table, &first, &ranges(&[(0, 0, 3)])).await.unwrap();
    let second = of(&[
        (1, "late", Op::Update, 0, 0, 3),
        (2, "b2", Op::Update, 5, 0, 4),
        (3, "", Op::Delete, 6, 0, 5),
        (4, "filtered", Op::Create, 7, 0, 6),
        (5, "e", Op::Create, 8, 0, 7),
    ]);
    let selection = table.select(&second, &[]).unwrap();
    let kept: Vec<u32> = (0..selection.upserts().num_rows() as u32).filter(|row| *row != 1).collect();
    let picks = arrow::array::UInt32Array::from(kept.clone());
    let output = arrow::compute::take_record_batch(selection.upserts(), &picks).unwrap();
    let outcome =
        table.replace(given(&selection, &output, &kept, &[]), &ranges(&[(0, 3, 8)]), Map::new()).await.unwrap();
    assert_eq!(told(&table, outcome, &[1, 2, 3, 4, 5]), (map(&[(2, "b2"), (5, "e")]), vec![3, 4]));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_lost_to_another_commit_are_not_told() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let open = || KeyedTable::open_or_create(location.clone(), spec(), Settings::default());
    let (mut slow, mut quick) = (open().await.unwrap(), open().await.unwrap());
    let old = of(&[(1, "old", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1)]);
    let selection = slow.select(&old, &[]).unwrap();
    let output = selection.upserts().clone();
    copy(&mut quick, &of(&[(1, "new", Op::Update, 9, 1, 0)]), &ranges(&[(1, 0, 1)])).await.unwrap();
    let outcome =
        slow.replace(OwnerRows::copied(&selection, &output), &ranges(&[(0, 0, 2)]), Map::new()).await.unwrap();
    assert_eq!(told(&slow, outcome, &[1, 2]), (map(&[(2, "b")]), vec![]));
    assert_eq!(rows(&location).await, map(&[(1, "new"), (2, "b")]));
}
