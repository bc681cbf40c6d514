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
    table.replace(OwnerRows::copied(&selection, &output), &ranges(&[(0, 0, 3)]), Map::new()).await.unwrap();
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
        let at = table.positions().get(partition(0)).unwrap();
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
    table.replace(OwnerRows::copied(&selection, &none), &ranges(&[(0, 3, 4)]), Map::new()).await.unwrap();
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

fn renamed(mark: i64, columns: &[(&str, &str)]) -> Arc<crate::model::schema::Rename> {
    let columns = columns.iter().map(|(from, to)| crate::model::schema::RenamedColumn {
        from: (*from).to_owned(),
        to: (*to).to_owned(),
        source_name: (*to).to_owned(),
        fresh: true,
    });
    Arc::new(crate::model::schema::Rename { mark, columns: columns.collect() })
}

fn carried(rows: &[Row], key: Vec<usize>, rename: &Arc<crate::model::schema::Rename>) -> Vec<Changes> {
    let rows: Vec<_> = rows.iter().map(|r| (r.0, r.1.to_string(), r.2, r.3, r.4, r.5)).collect();
    vec![changes(&rows, key).carried(std::slice::from_ref(rename)).unwrap()]
}

async fn two_columns(location: &Location, names: &str) -> Vec<(i64, Option<String>)> {
    let mut rows = Vec::new();
    for batch in query(location, &format!("SELECT {names} FROM t")).await {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let values = arrow::compute::cast(batch.column(1), &DataType::Utf8).unwrap();
        let values = values.as_string::<i32>();
        rows.extend(
            (0..batch.num_rows()).map(|at| (ids.value(at), values.is_valid(at).then(|| values.value(at).to_owned()))),
        );
    }
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn renamed_columns_keep_their_values_and_their_owners() {
    for key in [vec![0], vec![]] {
        let (_dir, root) = lake();
        let location = root.table("silver/orders").unwrap();
        let spec = TableSpec { key: key.iter().map(|_| "id".to_owned()).collect(), ..super::spec() };
        let mut table = KeyedTable::open_or_create(location.clone(), spec, Settings::default()).await.unwrap();
        let rows: Vec<Row> =
            vec![(1, "a", Op::Create, 1, 0, 0), (2, "b", Op::Create, 2, 0, 1), (3, "c", Op::Create, 3, 0, 2)];
        let rows: Vec<_> = rows.iter().map(|r| (r.0, r.1.to_string(), r.2, r.3, r.4, r.5)).collect();
        copy(&mut table, &[changes(&rows, key.clone())], &ranges(&[(0, 0, 3)])).await.unwrap();

        let mut other = KeyedTable::open(location.clone(), Settings::default()).await.unwrap().unwrap();
        let rename = renamed(9, &[("id", "no"), ("v", "w")]);
        assert!(matches!(table.rename(&rename).await.unwrap(), Outcome::Committed { .. }));
        assert!(matches!(table.rename(&rename).await.unwrap(), Outcome::AlreadyCommitted { .. }));
        let late = Some("late".to_owned());
        let all = [(1, Some("a".to_owned())), (2, Some("b".to_owned())), (3, Some("c".to_owned()))];
        assert_eq!(two_columns(&location, "\"no\", w").await, all);

        // another instance has a batch on its way under the old names
        let stale = [changes(&[(4, "x".to_owned(), Op::Create, 4, 0, 3)], key.clone())];
        assert_eq!(copy(&mut other, &stale, &ranges(&[(0, 3, 4)])).await.unwrap(), Outcome::Fenced);
        assert_eq!(other.renamed(), 9);

        // rows of the old structure find their owners, in this process and after a restart
        let gone = carried(&[(2, "b", Op::Delete, 5, 0, 3)], key.clone(), &rename);
        copy(&mut other, &gone, &ranges(&[(0, 3, 4)])).await.unwrap();
        let mut table = KeyedTable::open(location.clone(), Settings::default()).await.unwrap().unwrap();
        let next = carried(&[(3, "c", Op::Delete, 6, 0, 4), (5, "late", Op::Create, 7, 0, 5)], key.clone(), &rename);
        copy(&mut table, &next, &ranges(&[(0, 4, 6)])).await.unwrap();
        assert_eq!(two_columns(&location, "\"no\", w").await, [(1, Some("a".to_owned())), (5, late)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_came_under_the_new_name_before_the_renaming_stays() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let mut table = KeyedTable::open_or_create(location.clone(), spec(), Settings::default()).await.unwrap();
    copy(&mut table, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    let wide = Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("v", DataType::Utf8, true),
        Field::new("w", DataType::Utf8, true),
    ]));
    table.evolve(&wide, &HashMap::new()).await.unwrap();
    let rename = renamed(4, &[("v", "w")]);
    let ahead = carried(&[(2, "b", Op::Create, 2, 0, 1)], vec![0], &rename);
    copy(&mut table, &ahead, &ranges(&[(0, 1, 2)])).await.unwrap();
    table.rename(&rename).await.unwrap();
    assert_eq!(two_columns(&location, "id, w").await, [(1, Some("a".to_owned())), (2, Some("b".to_owned()))]);
    assert!(table.schema().field_with_name("v").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_written_for_the_columns_of_before_another_instance_added_one_are_made_anew() {
    let (_dir, root) = lake();
    let location = root.table("silver/orders").unwrap();
    let open = || KeyedTable::open_or_create(location.clone(), spec(), Settings::default());
    let (mut slow, mut quick) = (open().await.unwrap(), open().await.unwrap());
    copy(&mut slow, &of(&[(1, "a", Op::Create, 1, 0, 0)]), &ranges(&[(0, 0, 1)])).await.unwrap();
    // selected and transformed, when the other gives the table a column whose rows hold 7
    let change = of(&[(2, "b", Op::Create, 2, 0, 1)]);
    let selection = slow.select(&change, &[]).unwrap();
    let wide = Arc::new(Schema::new(
        fields()
            .fields()
            .iter()
            .cloned()
            .chain([Arc::new(Field::new("qty", DataType::Int64, true))])
            .collect::<Vec<_>>(),
    ));
    let fills: HashMap<String, ArrayRef> =
        [("qty".to_string(), Arc::new(Int64Array::from(vec![7])) as ArrayRef)].into();
    assert!(matches!(quick.evolve(&wide, &fills).await.unwrap(), Outcome::Committed { .. }));
    let output = selection.upserts().clone();
    let done = slow.replace(OwnerRows::copied(&selection, &output), &ranges(&[(0, 1, 2)]), Map::new()).await.unwrap();
    assert_eq!(version_of(done), Outcome::Fenced);
    assert_eq!((slow.schema().fields(), slow.positions().get(partition(0))), (wide.fields(), Some(1)));
    // what it selects now it can fit to the new columns
    copy(&mut slow, &change, &ranges(&[(0, 1, 2)])).await.unwrap();
    assert_eq!(rows(&location).await, map(&[(1, "a"), (2, "b")]));
}
