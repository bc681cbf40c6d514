use arrow::array::{Int32Array, Int64Array};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_added_filled_and_widened_in_one_commit() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let narrow =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, false), Field::new("v", DataType::Utf8, true)]));
    let spec = |fields: SchemaRef| TableSpec { fields, partition_by: vec!["v".into()], ..super::spec() };
    let mut table =
        KeyedTable::open_or_create(location.clone(), spec(narrow.clone()), Settings::default()).await.unwrap();
    let first = of(&[(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1), (3, "a", Op::Create, 3, 0, 2)]);
    let selection = table.select(&first, &[]).unwrap();
    let ids = selection.upserts().column(0).as_primitive::<Int64Type>().values().iter().map(|id| *id as i32);
    let output = RecordBatch::try_new(
        narrow.clone(),
        vec![Arc::new(Int32Array::from_iter_values(ids)), selection.upserts().column(1).clone()],
    )
    .unwrap();
    table.flush(&selection, &output, None, &[], &ranges(&[(0, 0, 3)]), Map::new()).await.unwrap();
    copy_narrow(&mut table, &narrow).await;

    let wide = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
        Field::new("qty", DataType::Int64, true),
        Field::new("at", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true),
    ]));
    let fills: HashMap<String, ArrayRef> =
        [("qty".to_string(), Arc::new(Int64Array::from(vec![7])) as ArrayRef)].into();
    let outcome = table.evolve(&wide, &fills).await.unwrap();
    assert!(matches!(outcome, Outcome::Committed { .. }));
    assert_eq!(table.schema().fields(), wide.fields());
    let again = table.evolve(&wide, &fills).await.unwrap();
    assert!(matches!(again, Outcome::AlreadyCommitted { .. }));
    let sum = query(&location, "SELECT sum(qty), count(at), count(*) FROM t").await;
    let value = |at: usize| sum[0].column(at).as_primitive::<Int64Type>().value(0);
    assert_eq!((value(0), value(1), value(2)), (14, 0, 2));

    // the widened key finds its owner, in this process and after a restart
    for _ in 0..2 {
        let at = table.positions()[&partition(0)];
        let seq = 100 + at as u128;
        let next = of(&[(1, "c", Op::Update, seq, 0, at)]);
        copy(&mut table, &next, &ranges(&[(0, at, at + 1)])).await.unwrap();
        assert_eq!(rows(&location).await, map(&[(1, "c"), (3, "a")]));
        table = KeyedTable::open_or_create(location.clone(), spec(wide.clone()), Settings::default()).await.unwrap();
    }
    let wrong = Arc::new(Schema::new(vec![Field::new("id", DataType::Utf8, false)]));
    let refused = table.evolve(&wrong, &HashMap::new()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot become"), "{refused}");
}

/// Deletes owner 2, so that a vector is there when the files are rewritten.
async fn copy_narrow(table: &mut KeyedTable, narrow: &SchemaRef) {
    let gone = of(&[(2, "", Op::Delete, 9, 0, 3)]);
    let selection = table.select(&gone, &[]).unwrap();
    let none = RecordBatch::new_empty(narrow.clone());
    table.flush(&selection, &none, None, &[], &ranges(&[(0, 3, 4)]), Map::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_tables_that_are_not_ours_are_refused() {
    let (_dir, root) = lake();
    for name in ["", "..", "silver/../x", "a/b\\c", "a b", "a/", "x\0", "%2e%2e"] {
        assert!(root.table(name).is_err(), "{name:?}");
    }
    assert!(Location::open("ftp://host/x", &HashMap::new()).is_err());
    let location = root.table("silver/orders").unwrap();
    KeyedTable::open_or_create(location.clone(), spec(), Settings::default()).await.unwrap();
    let other = TableSpec { key: vec!["v".into()], ..spec() };
    let refused = KeyedTable::open_or_create(location, other, Settings::default()).await.unwrap_err();
    assert!(refused.next_step().is_some_and(|hint| hint.contains("rebuild")), "{refused}");
}
